"""Tutorials that run: their files are written into an empty folder, their commands run there, their output compared.

In a page, a block with a title is a file; ``console`` blocks are commands (``$ …``) with what they print below;
``python`` blocks without a title run one after the other, and a ``text`` block after one is what it prints. A line
``…`` stands for any lines. A command with nothing below it only has to succeed, one that fails is followed by
``$ echo $?``. ``python -m docs.builder.tutorials [PAGE…]`` writes what is printed now into the pages (``?`` asks for
all of it).
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

__all__ = ["PAGES", "Mismatch", "replay"]

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "tutorials"
_BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NUMBER = re.compile(r"(?<![\w.])[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?(?![\w]|\.\d)")
_TIME = re.compile(r"\b[\d.]+ ?s\b(?: \(\d+:\d\d:\d\d\))?")
_ROW_TIME = re.compile(r"[\d.]+ │$")
FRAME_ONLY = "<!-- numbers depend on the machine -->\n"


class Mismatch(AssertionError):
    """A page shows something else than what is printed."""


def replay(page: Path, folder: Path, *, compare: bool = True) -> str:
    """Run a page in ``folder``; its text with what was printed.

    Args:
        compare: numbers, too: they agree within a unit of the last digit that is shown, counts exactly.

    Raises:
        Mismatch: a command fails, or a line that is shown cannot be found in what was printed.
    """
    text = page.read_text(encoding="utf-8")
    names: dict[str, object] = {"__name__": "__main__"}
    out, end, printed = [], 0, ""
    with contextlib.chdir(folder), _alone(folder):
        for match in _BLOCK.finditer(text):
            language, title, body = match.groups()
            _forget(folder)
            if title:
                Path(title).parent.mkdir(parents=True, exist_ok=True)
                Path(title).write_text(body, encoding="utf-8")
            elif language == "python":
                printed, _ = _captured(lambda code=body: exec(code, names))
            elif language in ("console", "text"):
                how = "words" if not compare else "frame" if text[: match.start()].endswith(FRAME_ONLY) else "all"
                new = _console(body, how) if language == "console" else _shown(body, printed, how)
                out += [text[end : match.start(3)], new]
                end = match.end(3)
    return "".join([*out, text[end:]])


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """As in a terminal of its own: a width, one core, modules of this folder found and forgotten again."""
    before = dict(os.environ)
    os.environ |= {"COLUMNS": "110", "LOKY_MAX_CPU_COUNT": "1"}
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        _forget(folder)
        os.environ.clear()
        os.environ.update(before)


def _forget(folder: Path) -> None:
    """Modules from here: a new process would read them again."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name.startswith("klsim_paper_") or (file and Path(file).is_relative_to(folder.resolve())):
            del sys.modules[name]


def _captured(call: object) -> tuple[str, object]:
    stream = io.StringIO()
    with contextlib.redirect_stdout(stream):
        result = call()  # type: ignore[operator]
    return stream.getvalue(), result


def _console(body: str, how: str) -> str:
    """The block with what its commands print."""
    out, code = [], 0
    parts = re.split(r"^\$ (.*)\n", body, flags=re.MULTILINE)[1:]
    commands = list(zip(parts[::2], parts[1::2], strict=True))
    for i, (command, shown) in enumerate(commands):
        if command == "echo $?":
            printed = f"{code}\n"
        else:
            printed, code = run(command)
            if code and not (i + 1 < len(commands) and commands[i + 1][0] == "echo $?"):
                raise Mismatch(f"{command}: exit code {code}\n{printed}")
        out += [f"$ {command}\n", _shown(shown, printed, how) if shown else ""]
    return "".join(out)


def run(command: str) -> tuple[str, int]:
    """What a command prints, and its exit code; klsim and Python files run in this process: imports count once."""
    program, *words = shlex.split(command, comments=True)
    if program == "klsim":
        from klsim.cli import app

        printed, code = _captured(lambda: app(words, standalone_mode=False))
        return printed.replace(str(Path.cwd()), "/home/you"), int(code or 0)  # type: ignore[call-overload]
    if program == "python":
        return _captured(lambda: runpy.run_path(words[0], run_name="__main__"))[0], 0
    if program != "pytest":
        raise ValueError(f"{command}: klsim, python or pytest")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    asked = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *words]
    if not _installed_plugin():
        asked += ["-p", "klsim.testing.pytest_plugin"]
    ran = subprocess.run(asked, capture_output=True, text=True, env=environment, check=False)
    return ran.stdout, ran.returncode


def _installed_plugin() -> bool:
    """Whether pytest finds the plugin by itself; in a checkout that is not installed anew it does not."""
    from importlib.metadata import entry_points

    return any(e.value == "klsim.testing.pytest_plugin" for e in entry_points(group="pytest11"))


def _shown(shown: str, printed: str, how: str) -> str:
    """The lines of ``shown`` as they are printed now.

    Args:
        how: ``all``: words and numbers; ``words``: any numbers; ``frame``: only lines without numbers and outside rows
            of tables, in order: what was trained on another machine ends elsewhere.

    Raises:
        Mismatch: a line is not printed.
    """
    if how == "frame":
        return _framed(shown, printed)
    exact = how == "all"
    lines = [line.rstrip() for line in printed.splitlines()]
    if shown.strip() == "?":
        return "\n".join(lines).strip("\n") + "\n"
    out, at, skipping = [], 0, False
    for line in shown.splitlines():
        if line.strip() == "…":
            out.append(line)
            skipping = True
            continue
        while at < len(lines) and not _same(line, lines[at], exact):
            if not skipping and lines[at].strip():
                break
            at += 1
        if at == len(lines) or not _same(line, lines[at], exact):
            there = lines[at] if at < len(lines) else "nothing more"
            raise Mismatch(f"the page shows\n  {line}\nprinted is\n  {there}\n\nof all\n{printed}")
        out.append(lines[at])
        at, skipping = at + 1, False
    rest = [line for line in lines[at:] if line.strip()]
    if rest and not skipping:
        raise Mismatch(f"the page ends before\n  {rest[0]}\nof all\n{printed}")
    return "\n".join(out) + "\n"


def _framed(shown: str, printed: str) -> str:
    rest = iter([_shape(line) for line in printed.splitlines()])
    for line in shown.splitlines():
        if line.strip() and not re.search(r"\d|^ *│|^…$", line) and _shape(line) not in rest:
            raise Mismatch(f"the page shows\n  {line}\nwhich is not in\n{printed}")
    return shown


def _same(one: str, two: str, exact: bool) -> bool:
    if _shape(one) != _shape(two):
        return False
    return not exact or all(_agree(a, b) for a, b in zip(_numbers(one), _numbers(two), strict=True))


def _shape(line: str) -> str:
    """A line without its numbers, frames and widths."""
    bare = re.sub(r"[━─┃┏┓┗┛┡┩┳┻╇┴│└┘┌┐├┤┼ ]+", " ", line)
    return _NUMBER.sub("#", _TIME.sub("# s", bare)).strip()


def _numbers(line: str) -> list[str]:
    return _NUMBER.findall(_ROW_TIME.sub("", _TIME.sub("", line)))


def _agree(one: str, two: str) -> bool:
    a, b = (float(x.replace(",", "")) for x in (one, two))
    if max(abs(a), abs(b)) < 1e-10:  # residuals of rounding: another processor has others
        return True
    return abs(a - b) <= 1.001 * max(_unit(one), _unit(two))


def _unit(text: str) -> float:
    """What the last digit of a number stands for; of a whole number nothing: counts agree or do not."""
    mantissa, _, exponent = text.partition("e")
    decimals = len(mantissa.partition(".")[2])
    if not exponent and not decimals:
        return 0.0
    return float(10 ** (int(exponent or 0) - decimals))


def main() -> None:
    for page in sorted(PAGES.glob("*.md")):
        if page.name != "index.md" and (not sys.argv[1:] or page.stem in sys.argv[1:]):
            with TemporaryDirectory() as folder:
                page.write_text(replay(page, Path(folder), compare=False), encoding="utf-8")
            print(page)


if __name__ == "__main__":
    main()
