"""SIGKILL from outside at seeded moments of a run, of a rank, a supervisor, the parent, of all; then the same command again."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from moments import STOPS, Moment, processes, read_moments, spread

MOMENTS = int(os.environ.get("RUNONCE_KILLS", "5"))
TABLE = os.environ.get("RUNONCE_KILL_TABLE")  # a file that gets a row for each kill
SEED = 20261124
VICTIMS = ("rank", "supervisor", "parent", "all")

CODE = '''
import json, os, time
from dataclasses import dataclass
import torch
from runonce import ExperimentConfig, ExperimentParameters, MachineParams

def paid(run):
    with open(os.environ["PAID"], "a") as file:
        file.write(f"{run.mode} {run.process_ind} {time.time()}\\n")

@dataclass
class Params(ExperimentParameters):
    steps: int = 12

class Killed(ExperimentConfig):
    """Adds up, on every rank, what can be known beforehand; a checkpoint every second step."""
    Params = Params
    def tag(self): return "killed"
    def machine_params(self, mode="train", **kwargs):
        if mode == "valid": raise NotImplementedError
        return MachineParams(nprocesses=2, coupled=False)
    def train(self, run):
        paid(run)
        found = run.latest_checkpoint()
        step, total = (found.step, int(found.state["total"])) if found else (0, torch.tensor(0).item())
        while step < self.params.steps:
            step += 1
            total += step * (run.process_ind + 1)
            if step % 2 == 0:
                run.save_checkpoint({"total": torch.tensor(total)}, step=step)
        (run.output / "total.json").write_text(json.dumps(total))
        (run.output / "big").write_bytes(bytes([run.process_ind]) * 3_000_000)
    def test(self, run):
        paid(run)
        path = run.inputs["train"]
        totals = [json.loads((path / name / "total.json").read_text()) for name in (".", "shard-1")]
        (run.output / "totals.json").write_text(json.dumps(totals))
    def training_pipeline(self, **kwargs): raise NotImplementedError
    def create_model(self, **kwargs): raise NotImplementedError
    def make_sampler_fn(self, **kwargs): raise NotImplementedError
'''

FILE = """
apiVersion: runonce.dev/v1alpha1
kind: Experiment
metadata: {name: killed}
spec:
  config: killed:Killed
  params: {steps: 12}
  keyMachine: true
  machineParams:
    train: {nprocesses: 2, coupled: false}
    test: {nprocesses: 1}
"""

# The same in shell: nothing but the runner's own work takes time, so most kills are of this one.
SCRIPT = """
index=$JOB_COMPLETION_INDEX
if [ -n "$RUNONCE_INPUT_TRAIN" ]; then
    echo "test $index $(date +%s.%N)" >> "$PAID"
    echo "[$(cat "$RUNONCE_INPUT_TRAIN/total.json"), $(cat "$RUNONCE_INPUT_TRAIN/shard-1/total.json")]" > "$RUNONCE_OUTPUT/totals.json"
    exit
fi
echo "train $index $(date +%s.%N)" >> "$PAID"
echo $((78 * (index + 1))) > "$RUNONCE_OUTPUT/total.json"
head -c 3000000 /dev/zero | tr '\\0' "$index" > "$RUNONCE_OUTPUT/big"
"""

COMMAND = FILE.replace("config: killed:Killed", "command: [sh, killed.sh]\n  code: [killed.sh]")
KINDS = {"class": FILE, "command": COMMAND}

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are found through /proc")


@pytest.fixture
def killed(place):
    """The command, and a way to hold it up before a write of one of its processes."""
    write_code(place)
    stops = place.folder / "stops"
    stops.mkdir()

    def env(stop_at: object = "") -> dict[str, str]:
        for name in ("reached", "go"):
            (stops / name).unlink(missing_ok=True)
        return {
            "PAID": str(place.folder / "paid"),
            "PYTHONPATH": str(STOPS),
            "RUNONCE_STOPS": str(stops),
            "RUNONCE_STOP_AT": str(stop_at),
        }

    place.stops, place.stopping = stops, env
    return place


def write_code(place) -> None:
    place.write("killed.py", CODE)
    place.write("killed.sh", SCRIPT)
    for kind, text in KINDS.items():
        place.write(f"{kind}.yaml", text)


@pytest.fixture(scope="module")
def moments(tmp_path_factory, new_place) -> Callable[[str], list[Moment]]:
    """All of a run that nobody disturbs, by its kind; it is run when first asked for."""
    known: dict[str, list[Moment]] = {}

    def of(kind: str) -> list[Moment]:
        if kind not in known:
            place = new_place(tmp_path_factory.mktemp(kind))
            write_code(place)
            env = {"PAID": str(place.folder / "paid"), "PYTHONPATH": str(STOPS), "RUNONCE_STOPS": str(place.folder)}
            done = place.runonce("run", f"{kind}.yaml", **env)
            assert done.code == 0, done.err
            known[kind] = read_moments((place.folder / "trace").read_text())
        return known[kind]

    return of


def drawn(number: int) -> tuple[str, int, int]:
    """Kind of the run, and in which of how many equal parts of it the moment lies: every fifth is of the class."""
    of_class = [i for i in range(MOMENTS) if i % 5 == 4]
    same = of_class if number in of_class else [i for i in range(MOMENTS) if i not in of_class]
    return "class" if number in of_class else "command", same.index(number), len(same)


def until(condition, what: str, seconds: float = 180.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def strike(place, kind: str, moment: Moment, victim: str, draw: random.Random) -> bool:
    """Run until the moment, and kill; whether it was reached (a run that goes on after a kill may be past it)."""
    process = place.start("run", f"{kind}.yaml", **place.stopping(moment))
    reached = place.stops / "reached"
    until(lambda: reached.exists() or process.poll() is not None, "neither the moment nor the end came")
    was_reached = process.poll() is None
    living = processes(place.home)
    chosen = list(living) if victim == "all" else [pid for pid, kind in living.items() if kind == victim]
    chosen = chosen or [process.pid]  # before the first rank, and after the last
    for pid in chosen if victim == "all" else draw.sample(sorted(chosen), 1):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    (place.stops / "go").touch()
    _, err = process.communicate(timeout=180)
    assert process.returncode in (0, -signal.SIGKILL), err
    until(lambda: not processes(place.home), "a process was left behind")
    return was_reached


def published(place) -> dict[tuple[str, str], float]:
    """When each process, by mode and index, had published what it made."""
    found: dict[tuple[str, str], float] = {}
    for path in (place.home / "store" / "w").glob("*/*/*/*/i*"):
        with contextlib.suppress(ValueError):
            mode = json.loads(path.read_bytes())["mode"]
            key = mode, path.name.removeprefix("i")
            found[key] = min(found.get(key, time.time()), path.stat().st_mtime)
    return found


def paid(place) -> list[tuple[tuple[str, str], float]]:
    rows = [line.split() for line in (place.folder / "paid").read_text().splitlines()]
    return [((mode, index), float(when)) for mode, index, when in rows]


@pytest.mark.parametrize("number", range(MOMENTS))
def test_after_a_kill_at_any_moment_the_same_command_finishes_the_work(killed, moments, number):
    draw = random.Random(SEED + number)
    kind, part, parts = drawn(number)
    victim, moment = VICTIMS[number % len(VICTIMS)], spread(moments(kind), part, parts, draw)
    told = [(moment, victim, strike(killed, kind, moment, victim, draw))]
    if draw.random() < 0.3:
        moment, victim = draw.choice(moments(kind)), draw.choice(VICTIMS)
        told.append((moment, victim, strike(killed, kind, moment, victim, draw)))
    done = killed.runonce("run", f"{kind}.yaml", "-o", "json", **killed.stopping())
    assert done.code == 0, done.err
    artifacts = Path(done.json["modes"]["test"]["artifacts"])
    assert json.loads((artifacts / "totals.json").read_text()) == [78, 156]
    assert len(killed.commits()) == 2
    again = killed.runonce("run", f"{kind}.yaml", "-o", "json", **killed.stopping())
    assert [outcome["cacheHit"] for outcome in again.json["modes"].values()] == [True, True]
    assert killed.runonce("verify").out == "nothing is damaged\n"
    assert processes(killed.home) == {}
    twice = [(who, when) for who, when in paid(killed) if when > published(killed)[who]]
    assert twice == [], "what was published is paid for again"
    tell(number, kind, told, len(paid(killed)))


def tell(number: int, kind: str, strikes: list[tuple[Moment, str, bool]], starts: int) -> None:
    text = "; then ".join(
        f"{victim} at {moment.role.replace('-', ' ')}, write {moment.number} ({moment.phase})"
        + ("" if reached else ", after the end")
        for moment, victim, reached in strikes
    )
    row = f"| {number + 1} | {kind} | {text} | {starts} |"
    print(row)
    if TABLE:
        with open(TABLE, "a") as table:
            table.write(row + "\n")


@pytest.mark.parametrize(("kind", "phases"), [("command", set()), ("class", {"checkpoint"})])
def test_moments_are_spread_over_all_that_a_run_does(moments, kind, phases):
    draws = [spread(moments(kind), number, 40, random.Random(SEED + number)) for number in range(40)]
    seldom = {moment.phase for moment in moments(kind)}
    assert {moment.phase for moment in draws} >= {"job", "publish: files"} | phases
    assert seldom >= {"job", "publish: files", "publish: shard", "commit", "results", "lease"} | phases
    assert {moment.role for moment in moments(kind)} == {"run", "train-0", "train-1", "test-0"}
