"""What `run` draws on a real terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import time

SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def on_a_terminal(
    place, *words: str, seconds: float = 120.0, until_seen: str = "", then=lambda: None
) -> tuple[int, str]:
    """Exit code and all that came to a terminal of 120 columns; `then` is called once `until_seen` was there."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    env = place.env(TERM="xterm-256color", COLUMNS="120", LINES="40")
    process = subprocess.Popen(
        place.command(*words),
        cwd=place.folder,
        env=env,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    seen = b""
    deadline = time.monotonic() + seconds
    while True:
        assert time.monotonic() < deadline, seen.decode(errors="replace")
        try:
            data = os.read(ours, 65536)
        except OSError:  # Linux says so at the end
            data = b""
        if not data:
            break
        seen += data
        if until_seen and until_seen in seen.decode(errors="replace"):
            until_seen = ""
            then()
    os.close(ours)
    return process.wait(60), seen.decode()


def test_bars_stay_below_the_lines_of_the_processes_and_go_at_the_end(curves):
    script = (curves.folder / "curves.sh").read_text()
    curves.write("curves.sh", script.replace("log 0 loss", 'echo "up $JOB_COMPLETION_INDEX"\nlog 0 loss'))
    curves.write("waits", "")
    code, seen = on_a_terminal(
        curves, "run", "curves.yaml", until_seen="step 0  loss", then=lambda: curves.write("go", "")
    )
    assert code == 0, seen
    assert "━" in seen
    assert re.search(r"train .*0 of 2", seen), "the bar of two processes"
    plain = [SEQUENCE.sub("", line).strip("\r") for line in seen.replace("\r", "\n").split("\n")]
    for index in (0, 1):
        assert f"[train {index}] up {index}" in plain, "a line of a process stands by itself"
    assert seen.count("\x1b[?25l") == seen.count("\x1b[?25h") > 0, "the cursor is there again"
    end = SEQUENCE.sub("", seen[seen.rindex("\x1b[?25h") :])
    assert "━" not in end
    assert "train  succeeded" in end


def test_a_sweep_has_a_bar_of_its_own(curves):
    code, seen = on_a_terminal(curves, "run", "curves.yaml", "--grid", "x=[1, 2, 3]", "--mode", "train")
    assert code == 0, seen
    assert re.search(r"all .*1 of 3", seen)
    assert seen.count("\x1b[?25l") == seen.count("\x1b[?25h") > 0


def test_without_a_terminal_there_are_lines_alone(curves):
    done = curves.runonce("run", "curves.yaml")
    assert done.code == 0, done.err
    assert "\x1b" not in done.err
    assert "train: step 0  loss" in done.err or "train: step 3  loss" in done.err
