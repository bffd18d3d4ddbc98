"""SIGKILL, and on again: the weights are those of a training that nobody disturbed, bit by bit."""

from __future__ import annotations

import random
import time
from dataclasses import replace

import pytest
import torch

SEED = 20261124
EVERY = {"RUNONCE_CHECKPOINT_S": "0.02", "RUNONCE_PEER_TIMEOUT_S": "30"}
PACE = {"pause": 0.004, "epochs": 8, "dropout": 0.3, "stages": 2, "valid_every": 7, "keep": "best:-error"}


def same(first, second) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def kill_at(job, draw: random.Random) -> None:
    """SIGKILL of one rank, or of all, some time after the first checkpoint's first record, or within its writing."""
    deadline = time.monotonic() + 180
    while not job.saved() and any(process.is_alive() for process in job.started):
        assert time.monotonic() < deadline, job.log(0)
        time.sleep(0.001)
    time.sleep(draw.uniform(0, 0.4))
    if draw.random() < 0.5:
        draw.choice(job.started).kill()
    else:
        job.kill()
    job.wait()


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_after_kills_the_weights_and_the_log_are_those_of_an_undisturbed_training(job, processes):
    draw = random.Random(SEED + processes)
    undisturbed = job(processes=processes, folder="whole", **PACE).run()
    killed = job(processes=processes, folder="killed", env=EVERY, **PACE)
    for _ in range(3):
        killed.start()
        kill_at(killed, draw)
        killed = killed.again()
    killed.run()
    assert same(killed.weights(), undisturbed.weights())
    assert "goes on from the checkpoint of step" in killed.log(0)
    for name in ("square", "size", "valid/error", "lr"):
        assert killed.entries(name) == undisturbed.entries(name)


def test_a_stopped_training_saves_at_once_and_goes_on(job):
    """SIGTERM to one rank of two: both stop after the same step, with 75."""
    undisturbed = job(processes=2, folder="whole", **PACE).run()
    stopped = job(processes=2, folder="stopped", **PACE).start()
    deadline = time.monotonic() + 180
    while not (stopped.output(0) / "metrics.jsonl").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.5)
    stopped.started[1].terminate()
    codes = stopped.wait()
    if codes != [0, 0]:
        assert codes == [75, 75], stopped.log(0)
        assert len(stopped.saved()) == 2
    assert same(stopped.again().run().weights(), undisturbed.weights())


def test_another_number_of_processes_goes_on_from_the_end_of_an_epoch_and_says_so(job):
    params = {"pause": 0.005, "epochs": 10}
    undisturbed = job(folder="whole", **params).run()
    first = job(processes=2, folder="other", env=EVERY, **params).start()
    deadline = time.monotonic() + 180
    while not any("e/" in name and name.endswith("i1") and name[:-1] + "0" in first.saved() for name in first.saved()):
        assert time.monotonic() < deadline, first.log(0)
        time.sleep(0.005)
    first.kill()
    second = first.again(processes=1).run()
    assert "the end of epoch" in second.log(0)
    assert "2 processes saved it, and 1 can go on only from there" in second.log(0)
    difference = max(float((second.weights()[n] - w).abs().max()) for n, w in undisturbed.weights().items())
    assert difference < 1e-6
    assert dict(second.entries("square")) == pytest.approx(dict(undisturbed.entries("square")), abs=1e-6)


def test_early_stopping_goes_on_where_it_stood(job):
    params = {"pause": 0.02, "epochs": 50}
    first = job("Early", folder="a", env=EVERY, **params).start()
    deadline = time.monotonic() + 180
    while len(first.saved()) < 2:
        assert time.monotonic() < deadline, first.log(0)
        time.sleep(0.002)
    first.kill()
    assert first.again().run().entries("square")[-1][0] == 12


@pytest.mark.parametrize("count", [2, 4])
def test_only_the_newest_checkpoints_are_kept_and_the_newest_end_of_an_epoch(job, count):
    trained = job(processes=2, env=EVERY, checkpoints=count, **PACE).run()
    steps = {name.rpartition("/k/")[2].split("/")[0] for name in trained.saved()}
    assert count <= len(steps) <= count + 1
    assert any(step.endswith("e") for step in steps)


def test_a_damaged_checkpoint_is_passed_over_by_all(job):
    first = job(processes=2, env=EVERY, **PACE).run()
    newest = max(first.saved())
    first.backend.put(newest, b"{}")
    again = first.again().run()
    assert "is passed over" in again.log(0) + again.log(1)
    assert same(again.weights(), first.weights())


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"width": 9}, "size mismatch for 0.weight"),
        ({"wrong": "sgd"}, "settings of its optimizer are not those of this one: amsgrad, betas"),
        ({"batch_size": 4}, "the state is of batch_size=8, the sampler of 4"),
        ({"stages": 1}, "its pipeline has 2 stages, this one 1"),
        ({"wrong": "no schedule"}, "settings of its optimizer are not those of this one: initial_lr"),
    ],
    ids=["model", "optimizer", "sampler", "stages", "schedule"],
)
def test_a_checkpoint_of_other_code_or_another_shape_is_refused_at_once(job, changed, said):
    """No other try would help, so it is final, and what was saved stays."""
    first = job(env=EVERY, **PACE).run()
    saved = first.saved()
    other = first.again()
    other.params = replace(first.params, **changed)
    assert other.start().wait() == [78], other.log(0)
    text = " ".join(other.log(0).split())
    assert "train, process 0 of 1, stage " in text
    assert "is of other code or another shape" in text
    assert said in text
    assert "Run with --overwrite to begin anew, or go back to the code that saved it." in text
    assert "Traceback" not in text
    assert other.saved() == saved
