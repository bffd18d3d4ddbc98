"""What cannot be trained is refused with mode, process, stage and the way out; exit code 78 is final."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from runonce.store.backend import blob_name

FINAL = 78


def refused(job) -> str:
    assert set(job.start().wait()) == {FINAL}, job.log(0)
    text = job.log(0)
    assert "Traceback" not in text
    return " ".join(text.split())


@pytest.mark.parametrize(
    ("wrong", "said", "fix"),
    [
        ("nan", "train, process 0 of 1, stage 1 (square): the loss of step 1 is nan; there is no checkpoint yet.",
         'TrainingPipeline(nonfinite="skip")'),
        ("shapes", "error (TensorMismatch): train, process 0 of 1, stage 1 (square): loss 'square' raised RuntimeError: ",
         "The batch: float64 [8, 4], float64 [8, 1]. Mend it."),
        ("ragged", "error (TensorMismatch): train, process 0 of 1, stage 1 (square)", "but got [4] at entry 0 and [3] at entry "),
        ("no scalar", "loss 'square' returned a tensor [8, 1]; a loss is a tensor with one number",
         "Return that, or (it, {name: number to log})."),
        ("ends early", "stage 1 (square), step 5: Lying ended after 5 of the 7 tasks that its length promised",
         "Let length be the tasks left in this epoch"),
        ("never ends", "stage 1 (square): the sampler is endless, and the stage is to last for epochs",
         "Give the sampler a length, or the stage max_stage_steps."),
        ("no parameters", "train, process 0 of 1: the model has no parameter to train",
         "Let create_model return a module with parameters"),
        ("no data", "Line.make_sampler_fn raised FileNotFoundError: [Errno 2] No such file or directory: '/nowhere/data.bin'",
         "See that its data are there."),
    ],
)  # fmt: skip
def test_each_names_its_place_and_the_way_out(job, wrong, said, fix):
    text = refused(job(wrong=wrong))
    assert "train, process 0 of 1" in text
    assert ("stage 1 (square)" in text) == (wrong not in ("no parameters", "no data"))  # these come before any stage
    assert said in text
    assert fix in text


def test_a_metric_that_is_no_sum_and_count(job):
    job().run().commit()
    text = refused(job(mode="test", wrong="metric"))
    assert "test, process 0 of 1: metric 'error' returned float 0.5; a metric is (sum, count)" in text
    assert "Return the sum over the batch and how many items it has" in text


def test_samplers_of_different_lengths_would_wait_for_each_other(job):
    text = refused(job(wrong="uneven", processes=2))
    assert "those of the processes are 5 to 6; the longer would wait for the shorter for ever" in text


def test_processes_that_build_other_models_are_told_apart(job):
    started = job(wrong="models", processes=2).start()
    codes = started.wait()
    assert FINAL in codes, codes  # wins over the other, which has lost its peer
    assert set(codes) <= {FINAL, 76}, codes
    rank = codes.index(FINAL)
    text = started.log(rank)
    assert f"train, process {rank} of 2, stage 1 (square): joining the processes raised RuntimeError" in text
    assert "See that they build the same model." in text


def test_the_last_good_checkpoint_is_named(job):
    text = refused(job("Turns", env={"RUNONCE_CHECKPOINT_S": "0"}, pause=0.05))
    assert "the loss of step 6 is nan; the last good checkpoint is of step " in text


def test_a_step_whose_loss_is_no_number_can_be_left_out(job):
    trained = job("Turns", nonfinite="skip", processes=2).run()
    assert "step 6 is left out: a gradient is no number" in trained.log(0)
    assert all(value == value for _, value in trained.entries("square"))


def test_processes_that_are_not_coupled_train_no_model_together(job):
    text = refused(job(processes=2, coupled=False))
    assert "train, process 0 of 2: the 2 processes are not coupled" in text
    assert "Remove coupled: false, ask for nprocesses: 1, or override train." in text


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has GPUs, so that they are missed cannot be seen")
@pytest.mark.parametrize(("processes", "gpus", "each"), [(1, [0], 1), (1, [0, 1], 2), (2, [0, 1], 1)])
def test_gpus_that_are_not_there(job, processes, gpus, each):
    """nccl without a GPU, and more GPUs than the machine has."""
    text = refused(job(processes=processes, gpus=gpus))
    assert f"train, process 0 of {processes}: spec.machineParams.train.gpuIds: gives each process {each} GPU" in text
    assert "(nccl), and this one sees 0 of them." in text
    assert "or [] for the CPU (gloo)" in text


def test_train_that_left_no_weights(job):
    job("Weightless").run().commit()
    text = refused(job("Weightless", mode="valid"))
    assert "valid, process 0 of 1: the artifacts of train hold no weights.pt" in text


def test_artifacts_of_train_that_are_damaged(job):
    """Its own exit code, since it is train that has to be made anew; then this mode goes on as if nothing had been."""
    trained = job().run().commit()
    (weights,) = (file for file in trained.shards()[0].files if file.path == "weights.pt")
    blob = Path(trained.store) / blob_name(weights.blobs[0])
    right = blob.read_bytes()
    blob.chmod(0o644)
    blob.write_bytes(right[:-1] + bytes([right[-1] ^ 1]))
    started = job(mode="test").start()
    assert started.wait() == [77], started.log(0)
    assert "error (Damaged): " in started.log(0)
    assert "Traceback" not in started.log(0)
    assert list(started.backend.list(f"w/{started.key}/")) == []
    blob.write_bytes(right)
    started.again().run()


@pytest.mark.parametrize("how", ["ends", "hangs"])
def test_a_rank_that_is_lost_or_hangs_never_hangs_the_others(job, tmp_path, how):
    """The victims say so with 76, so that the cause wins over them."""
    marks = tmp_path / "marks"
    marks.mkdir()
    env = {"HOW": how, "MARKS": str(marks), "RUNONCE_PEER_TIMEOUT_S": "10"}
    started = job("Hanging", processes=3, env=env).start()
    started.started[0].join(180)
    started.started[2].join(180)
    assert [started.started[rank].exitcode for rank in (0, 2)] == [76, 76], started.log(0)
    assert "another process is gone or hangs" in started.log(0)
    assert started.started[1].is_alive() == (how == "hangs")
