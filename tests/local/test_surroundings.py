"""A machine that does not play along: no room, no rights, no folder, other spellings of one file. No traceback, ever."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMANDS = [
    ("run", "tiny.yaml"),
    ("plan", "tiny.yaml"),
    ("key", "tiny.yaml"),
    ("render", "tiny:Tiny"),
    ("explain", "tiny.yaml"),
]


def keys(done) -> list[str]:
    assert done.code == 0, done.err
    return [mode["cacheKey"] for mode in done.json["modes"].values()]


@pytest.fixture
def unwritable(tmp_path) -> Path:
    """A home that not even root can make: its parent is a file."""
    (tmp_path / "file").write_text("")
    return tmp_path / "file" / "home"


def test_a_home_that_cannot_be_written_is_named_with_the_way_out(place, unwritable):
    done = place.runonce("run", "tiny.yaml", "--store", str(place.folder / "store"), RUNONCE_HOME=str(unwritable))
    assert (done.code, "Traceback" in done.err) == (1, False)
    assert str(unwritable) in done.err
    assert "Let RUNONCE_HOME name a folder that can be written" in done.err


@pytest.mark.parametrize("command", COMMANDS[1:], ids=lambda command: command[0])
def test_what_writes_nothing_needs_no_home(place, unwritable, command):
    done = place.runonce(*command, RUNONCE_HOME=str(unwritable), RUNONCE_STORE=str(place.folder / "store"))
    assert done.code == 0, done.err


@pytest.mark.parametrize("command", COMMANDS[:3], ids=lambda command: command[0])
def test_a_working_directory_that_is_gone_is_told(place, command):
    program = f"import os, sys; os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone'); os.execv(sys.executable, {place.command(*command)!r})"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=place.folder, env=place.env(), capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (
        1,
        "error: the working directory is gone. Change into one that is there.\n",
    )


@pytest.mark.parametrize("command", COMMANDS[:2], ids=lambda command: command[0])
def test_output_that_cannot_be_written_is_told_in_one_line(place, command):
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full here")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            place.command(*command), cwd=place.folder, env=place.env(), stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: No space left on device."
    assert "Traceback" not in done.stderr


def test_a_reader_that_has_seen_enough_is_no_error(place):
    line = f"{sys.executable} -m runonce key tiny.yaml | head -n 1"
    done = subprocess.run(["bash", "-c", line], cwd=place.folder, env=place.env(), capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("tiny  (tiny.yaml, line 2)\n", "")


def test_closed_streams_are_taken_as_empty(place):
    line = f"{sys.executable} -m runonce key - <&-"
    done = subprocess.run(["bash", "-c", line], cwd=place.folder, env=place.env(), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "error: standard input holds no document. Give at least one.\n")
    line = f"{sys.executable} -m runonce run tiny.yaml >&- 2>&-"
    assert subprocess.run(["bash", "-c", line], cwd=place.folder, env=place.env()).returncode == 0
    assert len(place.commits()) == 2


@pytest.mark.parametrize(
    ("target", "saying"),
    [
        ("", "(no name) cannot be read"),
        ("x" * 5000, "cannot be read: File name too long"),
        ("folder", "folder cannot be read: Is a directory"),
        ("loop", "loop cannot be read: Too many levels of symbolic links"),
        ("binary", "binary, line 2, is no UTF-8"),
        ("big", "big has more than 64 MiB, so it holds no experiments"),
        ("no\nsuch", "cannot be read: No such file"),
    ],
)
@pytest.mark.parametrize("command", ["run", "key"])
def test_a_target_that_is_no_file_of_experiments(place, command, target, saying):
    (place.folder / "folder").mkdir()
    (place.folder / "loop").symlink_to("loop")
    (place.folder / "binary").write_bytes(bytes(range(256)))
    with (place.folder / "big").open("wb") as big:
        big.truncate(64 * 2**20 + 1)
    done = place.runonce(command, target)
    assert done.code == 2
    assert saying in done.err
    assert not place.home.exists()


def test_one_file_in_other_spellings_of_its_bytes_and_its_name_has_one_key(place):
    here = keys(place.runonce("key", "tiny.yaml", "-o", "json"))
    text = (place.folder / "tiny.yaml").read_text()
    (place.folder / "crlf.yaml").write_bytes(text.replace("\n", "\r\n").encode())
    (place.folder / "bom.yaml").write_bytes(b"\xef\xbb\xbf" + text.encode())
    (place.folder / "link.yaml").symlink_to("tiny.yaml")
    (place.folder / "a b é\n.yaml").write_text(text)
    os.mkfifo(place.folder / "pipe.yaml")
    for name in ("crlf.yaml", "bom.yaml", "link.yaml", "a b é\n.yaml", str(place.folder / "tiny.yaml"), "./tiny.yaml"):
        assert keys(place.runonce("key", name, "-o", "json")) == here
    assert keys(place.runonce("key", "-", "-o", "json", stdin=text)) == here
    line = f"cat tiny.yaml > pipe.yaml & {sys.executable} -m runonce key pipe.yaml -o json"
    done = subprocess.run(["bash", "-c", line], cwd=place.folder, env=place.env(), capture_output=True, text=True)
    assert all(key in done.stdout for key in here)


def test_a_name_that_is_no_utf8_is_shown_as_well_as_can_be(place):
    name = os.fsdecode(b"\xff.yaml")
    (place.folder / name).write_text((place.folder / "tiny.yaml").read_text())
    for command in ("key", "plan", "run"):
        done = subprocess.run(place.command(command, name), cwd=place.folder, env=place.env(), capture_output=True)
        assert done.returncode == 0, done.stderr
    done = place.runonce("key", "tiny.yaml", "-p", os.fsdecode(b"lr\xff=1"))
    assert (done.code, "lone surrogate" in done.err) == (2, True)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_another_encoding_of_the_terminal_is_no_reason_to_fail(edited, encoding):
    place = edited("label: a", 'label: "é日本😀"')
    for command in ("key", "plan", "run"):
        done = subprocess.run(
            place.command(command, "tiny.yaml"),
            cwd=place.folder,
            env=place.env(PYTHONIOENCODING=encoding),
            capture_output=True,
        )
        assert done.returncode == 0, done.stderr


def test_a_rendered_file_is_utf8_whatever_the_terminal_speaks(edited):
    place = edited("label: a", 'label: "é日本😀"')
    for env in ({"PYTHONIOENCODING": "latin-1"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}):
        done = subprocess.run(
            place.command("render", "tiny.yaml"), cwd=place.folder, env=place.env(**env), capture_output=True
        )
        assert done.returncode == 0, done.stderr
        assert '"label": "é日本😀"' in done.stdout.decode()
