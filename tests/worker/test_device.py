"""What is different on a GPU: proved on the CPU as far as that goes, and on a GPU where there is one."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import trainings
from trainings import Line, Params

import runonce
from runonce import MachineParams
from runonce.errors import EntryError
from runonce.experiment.machine import plan_job
from runonce.worker.feed import make_feed
from runonce.worker.group import backend_of
from runonce.worker.journal import Journal
from runonce.worker.place import Place

PLACE = Place("train", 0, 1)
OPTIMIZER = SimpleNamespace(param_groups=[{"lr": 0.1}])

FILE = """apiVersion: runonce.dev/v1alpha1
kind: Experiment
metadata: {{name: line}}
spec:
  config: trainings:Line
  params: {{}}
  machineParams: {{train: {{nprocesses: {processes}, gpuIds: {gpus}}}}}
"""

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")


@dataclass
class Logged:
    """The part of a run that a journal needs, as it is on a GPU."""

    device: torch.device = field(default_factory=lambda: torch.device("cuda"))
    process_ind: int = 0
    coupled: bool = False
    entries: list = field(default_factory=list)

    def log(self, metrics, *, step):
        self.entries.append((step, dict(metrics)))


def see(journal: Journal, value: float, step: int) -> None:
    loss = torch.tensor(value)
    journal.see(loss, {"square": (loss * 2, 2)}, step)


def test_on_a_gpu_losses_are_looked_at_with_the_entries_of_the_log():
    run = Logged()
    journal = Journal(run, PLACE, Line(Params()).training_pipeline())
    see(journal, 1.0, 1)
    see(journal, 2.0, 2)
    journal.flush(2, OPTIMIZER)
    assert run.entries == [(2, {"square": 1.5, "lr": 0.1})]


def test_on_a_gpu_a_loss_that_is_no_number_is_found_at_the_next_entry_and_its_own_step_named():
    journal = Journal(Logged(), PLACE, Line(Params()).training_pipeline())
    for step, value in enumerate([1.0, float("nan"), 2.0], start=1):
        see(journal, value, step)
    with pytest.raises(EntryError, match="the loss of step 2 is nan; there is no checkpoint yet"):
        journal.flush(3, OPTIMIZER)


def test_batches_go_to_the_device_whatever_nest_they_are_in():
    config = Line(Params())
    feed = make_feed(config, "train", PLACE, torch.device("meta"), seeds=[1])
    feed.begin()
    (batch,) = feed.next(config.create_model())
    assert {tensor.device.type for tensor in batch.data} == {"meta"}


@pytest.mark.parametrize(
    ("gpus", "device", "backend"), [([], "cpu", "gloo"), ([0, 1], "cuda", "nccl"), ([0, 0], "cuda", "gloo")]
)
def test_nccl_joins_gpus_and_gloo_everything_else(gpus, device, backend):
    """Ranks that share a GPU are refused by nccl."""
    shape = plan_job(MachineParams(nprocesses=2, gpu_ids=gpus), mode="train", local=True)
    assert backend_of(shape, torch.device(device)) == backend


@pytest.mark.gpu
@on_gpu
def test_one_gpu_gives_the_weights_of_the_cpu(job):
    """The twin is test_engine's comparison with a plain loop."""
    here, there = (job(gpus=gpus, folder=name).run().weights() for gpus, name in (([], "cpu"), ([0], "gpu")))
    assert all(weight.device.type == "cpu" for weight in there.values())
    assert max(float((here[name] - there[name]).abs().max()) for name in here) < 1e-6


@pytest.mark.gpu
@on_gpu
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_lower_precision_trains_on_a_gpu(job, precision):
    trained = job("Single", precision=precision, epochs=12, gpus=[0]).run()
    losses = [value for _, value in trained.entries("square")]
    assert losses[-1] < losses[0] / 3


@pytest.mark.gpu
@on_gpu
def test_a_killed_training_on_a_gpu_goes_on_to_the_weights_of_an_undisturbed_one(job):
    params = {"pause": 0.03, "epochs": 8, "dropout": 0.3}
    whole = job(gpus=[0], folder="whole", **params).run().weights()
    first = job(gpus=[0], folder="killed", env={"RUNONCE_CHECKPOINT_S": "0.1"}, **params).start()
    while not first.saved() and first.started[0].is_alive():
        first.started[0].join(0.01)
    first.kill()
    again = first.again(gpus=[0]).run()
    assert "goes on from the checkpoint of step" in again.log(0)
    assert max(float((whole[name] - weight).abs().max()) for name, weight in again.weights().items()) < 1e-6


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two NVIDIA GPUs")
def test_two_gpus_joined_by_nccl_give_the_weights_of_one(tmp_path):
    shutil.copy(Path(trainings.__file__), tmp_path)
    weights = []
    for gpus in ([0], [0, 1]):
        (tmp_path / "line.yaml").write_text(FILE.format(processes=len(gpus), gpus=gpus))
        ran = runonce.run(str(tmp_path / "line.yaml"), store=str(tmp_path / str(len(gpus))), modes=["train"])
        weights.append(torch.load(ran["train"].path("weights.pt"), weights_only=True))
    one, two = weights
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-6
