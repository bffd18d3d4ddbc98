"""Runs at once, runs that are stopped, runs that are killed: nothing is lost, left behind, or made twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

LOOP = """
import os, pathlib, time
BASE = pathlib.Path(os.environ["BASE"])

def train(self, run):
    checkpoint = run.latest_checkpoint()
    first = checkpoint.step if checkpoint else 0
    with (BASE / "starts").open("a") as file:
        file.write(f"{first} {os.getpid()}\\n")
    for step in range(first, 1000):
        if step == 3:
            (BASE / "up").write_text("")
        if run.should_stop():
            run.save_checkpoint({"x": step}, step=step)
            return
        if step == 2:
            run.save_checkpoint({"x": step}, step=step)
        if step >= 3 and (BASE / "go").exists():
            break
        time.sleep(0.01)
    run.log({"loss": 1.0}, step=step)
    (run.output / "weights.json").write_text("[1]")
"""


@pytest.fixture
def looping(place):
    place.write(
        "tiny.py", (place.folder / "tiny.py").read_text() + LOOP + "\nTiny = type('Tiny', (Tiny,), {'train': train})\n"
    )
    return place


def start(place, *more: str) -> subprocess.Popen[str]:
    return place.start("run", "tiny.yaml", "--mode", "train", "-o", "json", *more, **folders(place))


def folders(place) -> dict[str, str]:
    (place.folder / "tmp").mkdir(exist_ok=True)
    return {"BASE": str(place.folder), "TMPDIR": str(place.folder / "tmp")}


def until(condition, seconds: float = 180.0):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return value


def saved(place) -> list[Path]:
    """Records of checkpoints: they are written beside the loop, which goes on meanwhile."""
    return list((place.home / "store" / "w").glob("*/*/*/k/*/*/i0"))


def starts(place) -> list[tuple[int, int]]:
    """First step and process of every start of the loop."""
    path = place.folder / "starts"
    rows = path.read_text().splitlines() if path.exists() else []
    return [(int(step), int(pid)) for step, pid in (row.split() for row in rows)]


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return False


def test_of_two_at_once_one_works_and_the_other_waits_and_hits(looping):
    first = start(looping)
    until((looping.folder / "up").exists)
    second = start(looping)
    assert "another run makes this result already" in second.stderr.readline()
    (looping.folder / "go").write_text("")
    outs = [json.loads(process.communicate(timeout=180)[0]) for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0]
    assert [out["modes"]["train"]["cacheHit"] for out in outs] == [False, True]
    assert len(starts(looping)) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_saves_a_checkpoint_and_goes_on_from_it(looping, number):
    process = start(looping)
    until((looping.folder / "up").exists)
    process.send_signal(number)
    out, err = process.communicate(timeout=180)
    assert process.returncode == 75, err
    assert "stopping after a checkpoint" in err
    assert "stopped; run again to go on" in out
    assert looping.commits() == []
    (looping.folder / "go").write_text("")
    done = looping.runonce("run", "tiny.yaml", "--mode", "train", "-o", "json", BASE=str(looping.folder))
    assert done.code == 0, done.err
    (before, _), (after, _) = starts(looping)
    assert before == 0
    assert after >= 3
    assert all(gone(pid) for _, pid in starts(looping))


@pytest.mark.parametrize("victim", ["run", "process", "both"])
def test_after_a_kill_the_next_run_goes_on_and_nothing_is_left(looping, victim):
    process = start(looping)
    until((looping.folder / "up").exists)
    until(lambda: saved(looping))
    ((_, pid),) = starts(looping)
    if victim in ("process", "both"):
        os.kill(pid, signal.SIGKILL)
    if victim in ("run", "both"):
        process.kill()
    else:
        (looping.folder / "go").write_text("")
    process.communicate(timeout=180)
    until(lambda: all(gone(pid) for _, pid in starts(looping)))
    (looping.folder / "go").write_text("")
    done = looping.runonce("run", "tiny.yaml", "--mode", "train", "-o", "json", **folders(looping))
    assert done.code == 0, done.err
    assert [step for step, _ in starts(looping)] == [0, 2]
    assert len(looping.commits()) == 1
    assert list((looping.folder / "tmp").iterdir()) == []


def test_who_waits_takes_over_when_the_worker_is_killed(looping):
    first = start(looping)
    until((looping.folder / "up").exists)
    second = start(looping)
    assert "another run makes this result already" in second.stderr.readline()
    until(lambda: saved(looping))
    (looping.folder / "up").unlink()
    first.kill()
    first.communicate(timeout=180)
    until((looping.folder / "up").exists)
    (looping.folder / "go").write_text("")
    _, err = second.communicate(timeout=180)
    assert second.returncode == 0, err
    assert "attempt 2" in err
    assert [step for step, _ in starts(looping)] == [0, 2]


def test_ten_at_once_over_three_keys_are_three_results(place):
    place.write("tiny.py", (place.folder / "tiny.py").read_text().replace("def train(self, run):", COUNTED))
    processes = [
        place.start("run", "tiny.yaml", "-p", f"lr=0.{1 + i % 3}", "--mode", "train", BASE=str(place.folder))
        for i in range(10)
    ]
    results = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0] * 10, results
    assert len(place.commits()) == 3
    assert len((place.folder / "starts").read_text().splitlines()) == 3


COUNTED = """def train(self, run):
        import os
        with open(os.environ["BASE"] + "/starts", "a") as file:
            file.write(f"{self.params.lr}\\n")"""


def test_two_homes_that_share_a_store_do_not_wait_for_one_that_is_dead(looping, tmp_path):
    """The lease lasts 30 s; the lock of the kernel ends with its holder."""
    shared = ("--store", str(tmp_path / "shared"))
    first = start(looping, *shared)
    until((looping.folder / "up").exists)
    more = {"BASE": str(looping.folder), "RUNONCE_HOME": str(tmp_path / "two")}
    second = looping.start("run", "tiny.yaml", "--mode", "train", "-o", "json", *shared, **more)
    assert "its lease in the store is held by" in second.stderr.readline()
    first.kill()
    first.communicate(timeout=180)
    until(lambda: len(starts(looping)) == 2, 25)
    (looping.folder / "go").write_text("")
    _, err = second.communicate(timeout=180)
    assert second.returncode == 0, err


SHARED = """
import sys
from pathlib import Path
from runonce.store import filesystem
filesystem.SYSTEM = type("Mounted", (), {"kind": lambda self, path: "nfs"})()
from runonce.__main__ import main
sys.exit(main())
"""


def test_two_machines_that_share_home_and_store_by_a_mount_work_one_at_a_time(looping):
    """They have one folder of Jobs, and neither sees the other's processes: the lease decides."""

    def on(host: str) -> subprocess.Popen[str]:
        code = f"import socket; socket.gethostname = lambda: {host!r}{SHARED}"
        return subprocess.Popen(
            [sys.executable, "-c", code, "run", "tiny.yaml", "--mode", "train", "-o", "json"],
            cwd=looping.folder, env=looping.env(BASE=str(looping.folder)), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, start_new_session=True,
        )  # fmt: skip

    first = on("one")
    until((looping.folder / "up").exists)
    second = on("two")
    assert "its lease in the store is held by one-" in second.stderr.readline()
    (looping.folder / "go").write_text("")
    outs = [json.loads(process.communicate(timeout=180)[0]) for process in (first, second)]
    assert [out["modes"]["train"]["cacheHit"] for out in outs] == [False, True]
    assert len(starts(looping)) == 1
    assert {path.name for path in (looping.home / "jobs").glob("*/*")} == {"one", "two"}


def test_two_homes_that_share_a_store_work_one_at_a_time(looping, tmp_path):
    shared = ("--store", str(tmp_path / "shared"))
    first = start(looping, *shared)
    until((looping.folder / "up").exists)
    second = looping.start(
        "run",
        "tiny.yaml",
        "--mode",
        "train",
        "-o",
        "json",
        *shared,
        BASE=str(looping.folder),
        RUNONCE_HOME=str(tmp_path / "two"),
    )
    assert "its lease in the store is held by" in second.stderr.readline()
    (looping.folder / "go").write_text("")
    outs = [json.loads(process.communicate(timeout=180)[0]) for process in (first, second)]
    assert [out["modes"]["train"]["cacheHit"] for out in outs] == [False, True]
    assert len(starts(looping)) == 1


def test_two_runs_of_one_key_into_two_stores_do_not_wait_for_each_other(looping, tmp_path):
    """The one's result will not be in the other's store."""
    first, second = (start(looping, "--store", str(tmp_path / name)) for name in ("one", "two"))
    until(lambda: len(starts(looping)) == 2)
    (looping.folder / "go").write_text("")
    outs = [json.loads(process.communicate(timeout=180)[0]) for process in (first, second)]
    assert [out["modes"]["train"]["cacheHit"] for out in outs] == [False, False]
