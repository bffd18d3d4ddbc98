"""Jobs as processes: Indexed semantics, retries, groups, and that nothing is left behind whoever is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from runonce.errors import JobExists, JobGone, StillEnding
from runonce.experiment.job import JobPlan, JobState, Owner, Round
from runonce.experiment.machine import MachineParams, plan_job
from runonce.local.processes import LocalJobs

ME, OTHER = Owner(uid="me", name="mine"), Owner(uid="other", name="theirs")

PRELUDE = """
import json, os, pathlib, signal, subprocess, sys, time
index = int(os.environ["JOB_COMPLETION_INDEX"])
out = pathlib.Path(os.environ["RUNONCE_OUTPUT"])
base = pathlib.Path(os.environ["BASE"])
def tried(limit=1):
    "How often this index began before."
    path = base / f"tries-{index}"
    count = int(path.read_text()) if path.exists() else 0
    path.write_text(str(count + 1))
    return count
def note(name, text=""):
    (base / f".{name}").write_text(text)
    (base / f".{name}").rename(base / name)
def wait_for(name):
    while not (base / name).exists():
        time.sleep(0.01)
"""


@pytest.fixture
def make(tmp_path):
    """Jobs whose processes run a given text instead of the worker."""
    made = []

    def jobs(program: str = "", **options) -> LocalJobs:
        one = LocalJobs(
            tmp_path / "jobs", workdir=tmp_path, command=[sys.executable, "-c", PRELUDE + program], **options
        )
        made.append(one)
        return one

    yield jobs
    for one in made:
        one.close(hurry=True)


@pytest.fixture
def planned(tmp_path) -> Callable[..., JobPlan]:
    def plan(n: int = 1, *, coupled: bool = False, gpu_ids=(), **changes) -> JobPlan:
        shape = plan_job(MachineParams(n, gpu_ids, coupled=coupled), mode="train", local=True)
        given = {
            "name": "job", "cache_key": "k", "shape": shape, "spec": "{}", "env": {"BASE": str(tmp_path)}, "owner": ME,
            "round": Round(round="r"),
        }  # fmt: skip
        return JobPlan(**(given | changes))

    return plan


def until(condition: Callable[[], object], seconds: float = 180.0):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
    return value


def ended(jobs: LocalJobs, name: str = "job") -> JobState:
    return until(lambda: (state := jobs.get(name)) and state.phase in ("complete", "failed") and state)


def log(jobs: LocalJobs, state: JobState, index: int) -> str:
    return (jobs.logs(state.name, state.uid) / f"{index}.log").read_text()


# --- Indexed semantics ---


def test_every_index_runs_once_in_an_empty_folder_with_its_number(make, planned, tmp_path):
    jobs = make("note(f'ran-{index}', json.dumps([tried(), os.listdir(out)]))")
    jobs.create(planned(3))
    state = ended(jobs)
    assert (state.phase, state.succeeded, state.failures, state.active) == ("complete", (0, 1, 2), (), 0)
    assert [json.loads((tmp_path / f"ran-{i}").read_text()) for i in range(3)] == [[0, []]] * 3


def test_the_output_of_each_index_is_in_its_log(make, planned):
    jobs = make("print('out', index); print('err', index, file=sys.stderr)")
    jobs.create(planned(2))
    state = ended(jobs)
    assert sorted(log(jobs, state, 1).split("\n")) == ["", "err 1", "out 1"]


def test_independent_processes_take_turns_on_their_devices(make, planned, tmp_path):
    jobs = make(
        "device = os.environ['CUDA_VISIBLE_DEVICES']\n"
        "os.mkdir(base / f'busy-{device}'); time.sleep(0.1); os.rmdir(base / f'busy-{device}')\n"
        "note(f'ran-{index}', device)"
    )
    jobs.create(planned(4, gpu_ids=[3, 5]))
    assert ended(jobs).phase == "complete"
    assert [(tmp_path / f"ran-{i}").read_text() for i in range(4)] == ["3", "3", "5", "5"]


def test_a_process_without_gpus_sees_none(make, planned, tmp_path):
    jobs = make("note('seen', os.environ['CUDA_VISIBLE_DEVICES'])")
    jobs.create(planned(1))
    ended(jobs)
    assert (tmp_path / "seen").read_text() == ""


def test_an_index_is_tried_again_as_often_as_it_may(make, planned, tmp_path):
    jobs = make("sys.exit(0 if index == 0 or tried() == 2 else 1)")
    jobs.create(planned(2, retries=2))
    assert ended(jobs).phase == "complete"
    assert (tmp_path / "tries-1").read_text() == "3"


def test_the_others_go_on_when_an_index_fails_for_good(make, planned):
    jobs = make("print('why', index)\nsys.exit(7 if index == 0 else 0)")
    jobs.create(planned(3))
    state = ended(jobs)
    assert (state.phase, state.succeeded) == ("failed", (1, 2))
    (failure,) = state.failures
    assert (failure.index, failure.exit_code, failure.reason) == (0, 7, "Error")
    assert failure.log_tail == "why 0\n"


def test_a_configuration_error_is_not_tried_again_and_ends_all(make, planned, tmp_path):
    jobs = make("tried()\nsys.exit(78) if index == 0 else time.sleep(600)")
    jobs.create(planned(2, retries=5))
    state = ended(jobs)
    assert (state.phase, state.failures[0].index, state.failures[0].reason) == ("failed", 0, "ConfigurationError")
    assert (tmp_path / "tries-0").read_text() == "1"


def test_a_stopped_index_is_tried_again_without_charge(make, planned):
    jobs = make("sys.exit(0 if tried() == 1 else 75)")
    jobs.create(planned(1, retries=0))
    assert ended(jobs).phase == "complete"


def test_a_program_that_cannot_be_started_fails_the_job(planned, tmp_path):
    jobs = LocalJobs(tmp_path / "jobs", workdir=tmp_path, command=["/no/such/program"])
    jobs.create(planned(1))
    state = ended(jobs)
    assert state.phase == "failed"
    assert "/no/such/program" in state.failures[0].log_tail


# --- coupled processes ---


def test_coupled_processes_end_together_and_the_cause_is_named_first(make, planned):
    jobs = make("print('cause') if index == 1 else None\nsys.exit(5) if index == 1 else time.sleep(600)")
    jobs.create(planned(3, coupled=True, retries=2))
    state = ended(jobs)
    assert [(f.index, f.exit_code, f.reason) for f in state.failures][0] == (1, 5, "Error")
    assert {f.reason for f in state.failures[1:]} == {"EndedWithGroup"}


def test_who_hangs_is_the_cause_and_not_those_that_lost_it(make, planned):
    jobs = make("note('up') if index == 1 else wait_for('up')\nsys.exit(76) if index == 0 else time.sleep(600)")
    jobs.create(planned(2, coupled=True))
    assert [(f.index, f.reason) for f in ended(jobs).failures] == [(1, "Hung"), (0, "LostPeer")]


def test_a_victim_that_is_seen_first_does_not_hide_the_cause(make, planned):
    jobs = make(
        "signal.signal(signal.SIGTERM, lambda *_: os._exit(9))\n"
        "note(f'up-{index}'); wait_for('up-0'); wait_for('up-1')\n"
        "sys.exit(76) if index == 0 else time.sleep(600)"
    )
    jobs.create(planned(2, coupled=True))
    assert [(f.index, f.exit_code) for f in ended(jobs).failures] == [(1, 9), (0, 76)]


def test_coupled_processes_share_one_address_and_port(make, planned, tmp_path):
    jobs = make("note(f'at-{index}', os.environ['MASTER_ADDR'] + ':' + os.environ['MASTER_PORT'])")
    jobs.create(planned(2, coupled=True))
    ended(jobs)
    assert (tmp_path / "at-0").read_text() == (tmp_path / "at-1").read_text()


# --- ends ---


def test_a_process_that_takes_too_long_is_ended_and_named(make, planned):
    jobs = make("print('begun'); sys.stdout.flush(); time.sleep(600 if index else 0)", grace_s=0.2)
    jobs.create(planned(2, active_deadline_s=5))
    state = ended(jobs)
    assert [(f.index, f.reason) for f in state.failures] == [(1, "DeadlineExceeded")]


def test_the_last_owner_out_ends_the_job_with_grace(make, planned, tmp_path):
    jobs = make("signal.signal(signal.SIGTERM, lambda *_: (note('saved'), os._exit(75)))\nnote('up'); time.sleep(600)")
    state = jobs.create(planned(1))
    jobs.join("job", OTHER, uid=state.uid, cache_key="k")
    until((tmp_path / "up").exists)
    jobs.leave("job", ME, uid=state.uid)
    assert jobs.get("job").owners == (OTHER,)
    jobs.leave("job", OTHER, uid=state.uid)
    state = ended(jobs)
    assert (state.failures[0].exit_code, state.failures[0].reason) == (75, "Left")
    assert (tmp_path / "saved").exists()


def test_one_who_does_not_listen_is_killed_after_the_grace(make, planned, tmp_path):
    jobs = make("signal.signal(signal.SIGTERM, signal.SIG_IGN)\nnote('up'); time.sleep(600)", grace_s=0.3)
    state = jobs.create(planned(1))
    until((tmp_path / "up").exists)
    jobs.leave("job", ME, uid=state.uid)
    assert ended(jobs).failures[0].exit_code == -signal.SIGKILL


def test_a_suspended_job_runs_nothing_until_it_is_resumed(make, planned, tmp_path):
    jobs = make(
        "signal.signal(signal.SIGTERM, lambda *_: os._exit(75))\nnote(f'up-{tried()}')\nwait_for('go')", grace_s=5
    )
    state = jobs.create(planned(1))
    until((tmp_path / "up-0").exists)
    jobs.suspend("job", uid=state.uid, value=True)
    until(lambda: jobs.get("job").active == 0)
    assert (jobs.get("job").phase, jobs.get("job").suspended) == ("active", True)
    (tmp_path / "go").write_text("")
    jobs.suspend("job", uid=state.uid, value=False)
    assert ended(jobs).phase == "complete"


# --- the door ---


def test_a_name_is_taken_until_it_is_replaced(make, planned):
    jobs = make()
    first = jobs.create(planned(1))
    with pytest.raises(JobExists):
        jobs.create(planned(1))
    ended(jobs)
    until(lambda: not jobs.living("k"))
    with pytest.raises(JobGone):
        jobs.replace(planned(1), uid="another")
    second = jobs.replace(planned(1, round=Round(round="r", attempt=2)), uid=first.uid)
    assert (second.uid != first.uid, second.round.attempt) == (True, 2)
    ended(jobs)


def test_a_job_with_living_processes_is_not_replaced(make, planned):
    jobs = make("time.sleep(600)")
    state = jobs.create(planned(1))
    with pytest.raises(StillEnding):
        jobs.replace(planned(1), uid=state.uid)


def test_another_process_sees_the_job_joins_it_and_leaves_it(make, planned, tmp_path):
    jobs, others = make("note('up'); wait_for('go')"), make()
    state = jobs.create(planned(1))
    until((tmp_path / "up").exists)
    seen = others.get("job")
    assert (seen.phase, seen.uid, seen.active) == ("active", state.uid, 1)
    assert [process.job_uid for process in others.living("k")] == [state.uid]
    assert others.living("x") == []
    others.join("job", OTHER, uid=state.uid, cache_key="k")
    assert [one.name for one in others.owned(OTHER)] == ["job"]
    for uid, key in ((state.uid, "x"), ("another", "k")):
        with pytest.raises(JobGone):
            others.join("job", OTHER, uid=uid, cache_key=key)
    others.leave("job", OTHER, uid=state.uid)
    (tmp_path / "go").write_text("")
    assert ended(others).phase == "complete"
    with pytest.raises(JobGone):
        others.join("job", OTHER, uid=state.uid, cache_key="k")


def test_what_was_recorded_is_read_and_survives_the_supervisors_own_writes(make, planned, tmp_path):
    jobs = make("wait_for('go')")
    state = jobs.create(planned(1))
    data = replace(state.round, verdict="charged", charges={"me": 1}, tokens=("t",))
    jobs.record("job", uid=state.uid, data=data)
    (tmp_path / "go").write_text("")
    assert ended(jobs).round == data
    with pytest.raises(JobGone):
        jobs.record("job", uid="another", data=data)


def test_an_expired_job_is_gone(make, planned):
    jobs = make()
    state = jobs.create(planned(1))
    ended(jobs)
    jobs.expire("job", uid=state.uid, seconds=3600)
    assert jobs.get("job") is not None
    jobs.expire("job", uid=state.uid, seconds=-1)
    assert jobs.get("job") is None
    until(lambda: not jobs.living("k"))
    assert jobs.create(planned(1)).uid != state.uid
    ended(jobs)


def test_what_is_not_there_is_none(make):
    jobs = make()
    assert jobs.get("nothing") is None
    assert jobs.owned(ME) == []
    assert jobs.living("k") == []
    jobs.leave("nothing", ME, uid="u")


# --- whoever is killed ---

HOLDER = """
import json, pathlib, sys, time
from runonce.experiment.job import JobPlan, Owner, Round
from runonce.experiment.machine import MachineParams, plan_job
from runonce.local.processes import LocalJobs
root, program = pathlib.Path(sys.argv[1]), sys.argv[2]
jobs = LocalJobs(root / "jobs", workdir=root, command=[sys.executable, "-c", program])
jobs.create(JobPlan(name="job", cache_key="k", shape=plan_job(MachineParams(2, coupled=True), mode="train", local=True),
    spec="{}", env={"BASE": str(root)}, owner=Owner(uid="holder", name="h"), round=Round(round="r")))
time.sleep(600)
"""

FAMILY = """
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
note(f"up-{index}", json.dumps([os.getppid(), os.getpid(), child.pid]))
signal.signal(signal.SIGTERM, signal.SIG_IGN)
time.sleep(600)
"""


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        pass
    except NotADirectoryError:  # pragma: no cover - where there is no /proc
        pass
    if os.path.exists("/proc/self"):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("victims", ["supervisor", "guard", "rank", "rank and supervisor", "guard and supervisor"])
def test_nothing_is_left_behind_whoever_is_killed(make, tmp_path, victims):
    """SIGKILL; a rank has a child of its own and does not listen to SIGTERM."""
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path), PRELUDE + WATCH + FAMILY])
    try:
        families = []
        for index in (0, 1):
            until((tmp_path / f"up-{index}").exists)
            families.append(json.loads((tmp_path / f"up-{index}").read_text()))
        guard, rank, _ = families[1]
        if "guard" in victims:
            os.kill(guard, signal.SIGKILL)
        if "rank" in victims:
            os.kill(rank, signal.SIGKILL)
        if "supervisor" in victims:
            holder.kill()
        processes = [pid for family in families for pid in family]
        until(lambda: not any(map(alive, processes)))
        jobs = make()
        state = until(lambda: (state := jobs.get("job")) and state.phase == "failed" and state)
        assert (state.failures[0].reason == "SupervisorLost") is ("supervisor" in victims)
        until(lambda: not jobs.living("k"))
    finally:
        holder.kill()
        holder.wait()


# As the worker does it: the guard may be gone with the supervisor.
WATCH = """
import threading
def end_with(lifeline):
    os.read(lifeline, 1)
    os.killpg(os.getpgrp(), signal.SIGKILL)
threading.Thread(target=end_with, args=(int(os.environ["RUNONCE_LIFELINE"]),), daemon=True).start()
"""


def test_what_a_program_leaves_running_is_ended_with_it(make, planned, tmp_path):
    jobs = make('child = subprocess.Popen(["sleep", "600"])\nnote("child", str(child.pid))')
    jobs.create(planned(1))
    assert ended(jobs).phase == "complete"
    assert not alive(int((tmp_path / "child").read_text()))


def test_output_folders_do_not_stay(make, planned, tmp_path):
    jobs = make("(out / 'big').write_text('x' * 1000)")
    state = jobs.create(planned(2))
    ended(jobs)
    until(lambda: not jobs.living("k"))
    assert not jobs.outputs("job", state.uid).exists()
    assert Path(jobs.logs("job", state.uid)).exists()
