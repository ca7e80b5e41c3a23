"""Writing files: whole or not at all, and only what was asked for."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from klsim.files import printable, write_atomically

posix = pytest.mark.skipif(os.name != "posix", reason="links, pipes and modes of POSIX")


def test_text_is_utf8_with_unix_line_ends(tmp_path):
    write_atomically(tmp_path / "new" / "file", "β\n")
    assert (tmp_path / "new" / "file").read_bytes() == "β\n".encode()
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["file"]


@posix
def test_a_link_is_followed(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write_atomically(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


@posix
@pytest.mark.parametrize("mode", [0o600, 0o644, 0o664])
def test_the_mode_is_kept(tmp_path, mode):
    (tmp_path / "file").touch(mode=mode)
    (tmp_path / "file").chmod(mode)
    write_atomically(tmp_path / "file", "new")
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode


@posix
def test_a_new_file_has_the_mode_that_others_have(tmp_path):
    write_atomically(tmp_path / "file", "new")
    (tmp_path / "other").write_text("other")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "other").stat().st_mode


@posix
def test_a_pipe_is_written_to_and_stays(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write_atomically(pipe, "through")
    reader.join()
    assert read == ["through"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_device_is_not_replaced():
    before = os.stat(os.devnull).st_mode
    write_atomically(Path(os.devnull), "x")
    assert os.stat(os.devnull).st_mode == before


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_text("old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk")))
    with pytest.raises(OSError, match="disk"):
        write_atomically(file, "new")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


@posix
def test_what_a_killed_writer_left_is_removed_and_nothing_of_a_living_one(tmp_path):
    code = f"""
import os, signal
from pathlib import Path
from klsim.files import printable, write_atomically
os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
write_atomically(Path({str(tmp_path / "file")!r}), "killed")
"""
    subprocess.run([sys.executable, "-c", code], check=False)
    (left,) = tmp_path.iterdir()
    living = tmp_path / f".file.{os.getpid()}.x.part"
    other = tmp_path / ".other.1.part"
    for kept in (living, other):
        kept.touch()
    write_atomically(tmp_path / "file", "whole")
    assert not left.exists()
    assert {p.name for p in tmp_path.iterdir()} == {"file", living.name, other.name}


def test_control_characters_are_shown():
    assert printable("a\x1b[2J\x9b\x07\u202eb\n\tβ") == "a\\x1b[2J\\x9b\\x07\\u202eb\n\tβ"
