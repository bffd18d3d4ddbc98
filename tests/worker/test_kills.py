"""SIGKILL from outside at seeded moments, also while a checkpoint is being written; then on, to the very same weights."""

from __future__ import annotations

import os
import random
import re
import time
from pathlib import Path

import pytest
import torch

MOMENTS = int(os.environ.get("RUNONCE_KILLS", "3"))
TABLE = os.environ.get("RUNONCE_KILL_TABLE")
SEED = 20261124

TRAINING = {"pause": 0.004, "epochs": 8, "dropout": 0.3, "stages": 2, "valid_every": 7, "keep": "best:-error"}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Weights of trainings that nobody disturbed, by the number of processes; made when first asked for."""
    known: dict[int, dict[str, torch.Tensor]] = {}

    def weights(job, processes: int) -> dict[str, torch.Tensor]:
        if processes not in known:
            known[processes] = job(processes=processes, folder="whole", **TRAINING).run().weights()
        return known[processes]

    return weights


def wait_for_a_write(job, scratch: Path) -> None:
    """Until a file of a checkpoint is there that is not in the store yet."""
    deadline = time.monotonic() + 30
    while not any(scratch.rglob("saving-*.pt")):
        if time.monotonic() > deadline or not any(process.is_alive() for process in job.started):
            return
        time.sleep(0.0005)


def strike(job, draw: random.Random, scratch: Path) -> str:
    """Kill some processes at some moment; what was done, for the table."""
    wait_for_a_write(job, scratch)
    wait = draw.choice((0.0, draw.uniform(0, 0.5)))
    time.sleep(wait)
    when = f"{wait:.2f} s after a write began" if wait else "in a write"
    count = draw.choice((1, len(job.started)))
    victims = draw.sample(range(len(job.started)), count)
    for rank in victims:
        job.started[rank].kill()
    codes = job.wait()
    assert set(codes) <= {-9, 76, 0}, job.log(0)
    return f"{when}: rank {', '.join(map(str, sorted(victims)))}"


@pytest.mark.parametrize("moment", range(MOMENTS))
def test_after_a_kill_at_any_moment_the_weights_are_those_of_an_undisturbed_training(
    job, undisturbed, tmp_path, moment
):
    draw = random.Random(SEED + moment)
    processes = (1, 2, 4)[moment % 3]
    expected = undisturbed(job, processes)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    env = {"RUNONCE_CHECKPOINT_S": "0.03", "RUNONCE_PEER_TIMEOUT_S": "10", "TMPDIR": str(scratch)}
    killed = job(processes=processes, folder="killed", env=env, **TRAINING)
    strikes = []
    for _ in range(draw.choice((1, 2))):
        killed.start()
        strikes.append(strike(killed, draw, scratch))
        killed = killed.again()
        for path in scratch.rglob("*.pt"):
            path.unlink()
    killed.run()
    weights = killed.weights()
    equal = weights.keys() == expected.keys() and all(torch.equal(weights[name], expected[name]) for name in weights)
    resumed = re.search(r"goes on from the checkpoint of step (\d+)", killed.log(0))
    if TABLE:
        row = (str(moment), str(processes), "; ".join(strikes), resumed[1] if resumed else "0", str(equal).lower())
        with Path(TABLE).open("a", encoding="utf-8") as table:
            table.write(f"| {' | '.join(row)} |\n")
    assert equal
