"""The table of machine parameters, a test a row, in the same words from a class and from a file."""

from __future__ import annotations

import random

import numpy as np
import pytest

from runonce.errors import InputError, MachineError
from runonce.experiment.machine import MachineParams, machine_params_of, plan_job, process_seeds
from runonce.experiment.spec import parse_experiment


def shape(nprocesses, gpu_ids=(), *, mode="test", local=False, **more):
    return plan_job(MachineParams(nprocesses=nprocesses, gpu_ids=gpu_ids, **more), mode=mode, local=local)


@pytest.mark.parametrize("gpu_ids", [(), (-1,), (-1, -1)])
def test_without_gpus_there_is_no_gpu_resource_at_all(gpu_ids):
    job = shape(3, gpu_ids)
    assert (job.completions, job.parallelism, job.gpus_per_process, job.gpu_resource) == (3, 3, 0, "")
    assert job.device_slots == ((), (), ())


@pytest.mark.parametrize(
    ("n", "ids", "each", "slots"),
    [
        (2, (0, 1), 1, ((0,), (1,))),
        (2, (0, 1, 2, 3), 2, ((0, 1), (2, 3))),
        (1, (5, 3), 2, ((5, 3),)),
        (2, (0, 0, 1), 1, ((0,), (1,))),
    ],
)
def test_devices_that_are_a_multiple_of_the_processes_are_shared_out_evenly(n, ids, each, slots):
    job = shape(n, ids, mode="train")
    assert (job.completions, job.parallelism, job.gpus_per_process, job.device_slots) == (n, n, each, slots)
    assert job.gpu_resource == "nvidia.com/gpu"


def test_independent_processes_on_fewer_devices_take_turns():
    job = shape(5, (0, 1))
    assert (job.completions, job.parallelism, job.gpus_per_process) == (5, 2, 1)
    assert job.device_slots == ((0,), (0,), (0,), (1,), (1,))
    assert job.gpus == 2


def test_coupled_processes_on_fewer_devices_are_refused_on_a_cluster_with_the_ways_out():
    with pytest.raises(MachineError) as caught:
        shape(4, (0, 1), coupled=True)
    assert str(caught.value).startswith("gpuIds: has 2 different ids for 4 coupled processes")
    assert "4 ids" in str(caught.value)
    assert "nvidia.com/gpu.shared" in str(caught.value)


def test_on_one_machine_coupled_processes_share_a_device():
    job = shape(4, (0, 1), coupled=True, local=True)
    assert (job.parallelism, job.device_slots) == (4, ((0,), (0,), (1,), (1,)))


@pytest.mark.parametrize("resource", ["nvidia.com/gpu.shared", "nvidia.com/mig-1g.5gb"])
def test_a_shared_resource_lets_coupled_processes_run_at_once(resource):
    job = shape(4, (0,), coupled=True, gpu_resource=resource)
    assert (job.parallelism, job.gpus_per_process, job.gpu_resource) == (4, 1, resource)


def test_more_devices_than_processes_and_no_multiple_is_refused():
    with pytest.raises(MachineError, match=r"3 different ids for 2 processes.*Give 2 or 4 ids"):
        shape(2, (0, 1, 2))


def test_counts_for_each_device_give_contiguous_blocks():
    job = shape([3, 2], (0, 1))
    assert (job.completions, job.parallelism) == (5, 2)
    assert job.device_slots == ((0,), (0,), (0,), (1,), (1,))


def test_a_device_without_a_process_is_not_counted():
    job = shape([3, 0], (0, 1))
    assert (job.completions, job.parallelism, job.gpus) == (3, 1, 1)


def test_counts_without_devices_are_processes_on_the_cpu():
    assert shape([3, 2]).completions == 5


def test_counts_and_devices_agree_in_length():
    with pytest.raises(MachineError, match="nprocessesPerDevice: has 2 counts, and gpuIds has 3 ids"):
        shape([1, 1], (0, 1, 2))


def test_no_counts_at_all_are_refused():
    with pytest.raises(MachineError, match="nprocessesPerDevice: is empty"):
        shape([])


@pytest.mark.parametrize("n", [0, [0, 0]])
def test_no_processes_is_a_mode_that_is_not_run_and_says_why(n):
    job = shape(n, (0, 1))
    assert (job.completions, job.reason) == (0, "nprocesses is 0")


@pytest.mark.parametrize(("mode", "coupled"), [("train", True), ("valid", False), ("test", False)])
def test_train_is_coupled_and_the_others_are_not_unless_told(mode, coupled):
    assert shape(2, mode=mode).coupled is coupled
    assert shape(2, mode=mode, coupled=not coupled).coupled is not coupled


def test_numpy_whole_numbers_are_whole_numbers():
    assert shape(np.int64(2), [np.int32(0), np.int32(1)]).completions == 2


REFUSED = [
    ({"nprocesses": True}, "nprocesses: is True; a number of processes is a whole number from 0 to 100000."),
    ({"nprocesses": 2.5}, "nprocesses: is 2.5; a number of processes is a whole number from 0 to 100000."),
    ({"nprocesses": "2"}, "nprocesses: is '2'; a number of processes is a whole number from 0 to 100000."),
    ({"nprocesses": -1}, "nprocesses: is -1; a number of processes is a whole number from 0 to 100000."),
    ({"nprocesses": 100001}, "nprocesses: is 100001; a number of processes is a whole number from 0 to 100000."),
    (
        {"nprocesses": [1, -2], "gpu_ids": [0, 1]},
        "nprocessesPerDevice[1]: is -2; a number of processes is a whole number from 0 to 100000.",
    ),
    (
        {"nprocesses": 1, "gpu_ids": [-2]},
        "gpuIds[0]: is -2; the id of a GPU is a whole number from 0 on, or -1 for the CPU.",
    ),
    (
        {"nprocesses": 1, "gpu_ids": [True]},
        "gpuIds[0]: is True; the id of a GPU is a whole number from 0 on, or -1 for the CPU.",
    ),
    (
        {"nprocesses": 2, "gpu_ids": [-1, 0]},
        "gpuIds: is [-1, 0]: the CPU (-1) and GPUs in one Job, whose processes are all alike. "
        "Give ids of GPUs alone, or [] for the CPU.",
    ),
    (
        {"nprocesses": 2, "gpu_ids": [0, 1, 2]},
        "gpuIds: has 3 different ids for 2 processes, and all processes of a Job get equally many GPUs. "
        "Give 2 or 4 ids, or a number of processes that divides 3.",
    ),
    (
        {"nprocesses": [1, 1], "gpu_ids": [0]},
        "nprocessesPerDevice: has 2 counts, and gpuIds has 1 ids. "
        "Give one count for each id, or nprocesses as one number.",
    ),
    (
        {"nprocesses": [60000, 60000]},
        "nprocessesPerDevice: add up to 120000 processes; one Job has at most 100000. Ask for fewer.",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_a_class_hears_why(arguments, message):
    with pytest.raises(MachineError) as caught:
        plan_job(MachineParams(**arguments), mode="train", local=True)
    assert str(caught.value) == message


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_a_file_hears_the_same_words(arguments, message):
    n = arguments["nprocesses"]
    block = {"nprocessesPerDevice" if isinstance(n, list) else "nprocesses": n}
    if "gpu_ids" in arguments:
        block["gpuIds"] = arguments["gpu_ids"]
    with pytest.raises(InputError) as caught:
        parse_experiment(resource(train=block))
    assert str(caught.value) == f"spec.machineParams.train.{message}"


def test_in_a_file_a_whole_float_is_a_whole_number():
    spec = parse_experiment(resource(train={"nprocesses": 2.0, "gpuIds": [0.0, 1.0]})).spec
    assert spec.shape("train").device_slots == ((0,), (1,))


def test_python_refuses_every_float():
    with pytest.raises(MachineError, match=r"is 2\.0; a number of processes is a whole number"):
        shape(2.0)


def test_both_numbers_of_processes_are_refused():
    with pytest.raises(InputError, match="nprocesses: and nprocessesPerDevice are both given"):
        parse_experiment(resource(train={"nprocesses": 1, "nprocessesPerDevice": [1]}))


def test_a_mapping_is_taken_as_in_the_source():
    assert machine_params_of({"nprocesses": 2, "gpu_ids": [0, 1]}, mode="train") == MachineParams(2, [0, 1])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"nprocesses": 1, "gpus": [0]}, "gpus: is no machine parameter"),
        ({"gpu_ids": [0]}, "nprocesses: is missing"),
        (3, "returned a int"),
        (None, "returned a NoneType"),
    ],
)
def test_anything_else_is_refused(value, message):
    with pytest.raises(MachineError, match=message):
        machine_params_of(value, mode="train")


def test_seeds_are_those_of_the_source_and_a_prefix_of_more():
    draw = random.Random(7)
    assert process_seeds(7, 5) == [draw.randint(0, 2**31 - 1) for _ in range(5)]
    assert process_seeds(7, 3) == process_seeds(7, 5)[:3]
    assert process_seeds(8, 3) != process_seeds(7, 3)


def resource(**blocks):
    return {
        "apiVersion": "runonce.dev/v1alpha1",
        "kind": "Experiment",
        "metadata": {"name": "x"},
        "spec": {"config": "m:C", "machineParams": blocks},
    }
