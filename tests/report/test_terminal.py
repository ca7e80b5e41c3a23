"""Progress where there is no terminal."""

from __future__ import annotations

from klsim.report import terminal


def test_plain_lines_off_a_terminal(capsys, monkeypatch):
    now = iter([0.0, 1.0, 11.0, 11.0, 12.0, 25.0, 25.0])
    monkeypatch.setattr(terminal.time, "monotonic", lambda: next(now))
    with terminal.progress("verify", 4) as advance:
        for name in ("a/C1", "a/C2", "a/C3", "b/C1[x]"):
            advance(name)
    assert [line for line in capsys.readouterr().err.splitlines() if line] == ["verify 2/4 a/C2", "verify 4/4 b/C1[x]"]


def test_a_total_that_is_known_later(capsys, monkeypatch):
    now = iter([0.0, 11.0, 11.0, 30.0, 30.0])
    monkeypatch.setattr(terminal.time, "monotonic", lambda: next(now))
    with terminal.progress("sample", 0) as advance:
        advance.to(2, 5, "a")
        advance.to(5, 5, "b")
    assert [line for line in capsys.readouterr().err.splitlines() if line] == ["sample 2/5 a", "sample 5/5 b"]
