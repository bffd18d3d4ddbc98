"""Every class, method, argument and default of the two source documents, by list."""

from __future__ import annotations

import abc
import copy
import dataclasses
import inspect
import json
import pickle
from typing import Generic, TypeVar
from unittest import mock

import pytest

from runonce import (
    BatchSampler,
    ExperimentConfig,
    ExperimentParameters,
    FrozenClassVariables,
    MachineParams,
    PipelineStage,
    Run,
    TaskSampler,
    TrainingPipeline,
    load,
    render,
    set_hash_functions,
)
from runonce.author.entry import check_methods
from runonce.errors import EntryError
from runonce.experiment.run import Checkpoint

EMPTY = inspect.Parameter.empty


def signature(function) -> list[tuple[str, object]]:
    parameters = inspect.signature(function).parameters.values()
    kind = inspect.Parameter.VAR_KEYWORD
    return [("**" + p.name if p.kind is kind else p.name, p.default) for p in parameters]


def test_the_four_fields_of_parameters_stand_in_this_order_with_these_defaults():
    fields = dataclasses.fields(ExperimentParameters)
    assert [field.name for field in fields] == ["name", "hash", "overwrite", "hash_representations"]
    assert [field.default for field in fields[:3]] == ["UNNAMED", None, False]
    assert fields[3].default_factory is dict
    assert fields[3].repr is False
    made = ExperimentParameters("a", "h", True, {})
    assert (made.name, made.hash, made.overwrite, made.hash_representations) == ("a", "h", True, {})


def test_params_hash_takes_dry_and_stores_nothing():
    assert signature(ExperimentParameters.params_hash)[:2] == [("self", EMPTY), ("dry", False)]

    @dataclasses.dataclass
    class Params(ExperimentParameters):
        some_parameter: int = 0

    params = Params(some_parameter=2)
    before = dict(vars(params))
    assert len(params.params_hash()) == 64
    assert set(params.params_hash(dry=True)) >= {"name", "hash", "overwrite", "hash_representations", "some_parameter"}
    assert vars(params) == before


def test_hash_representations_are_functions_of_the_set_and_the_value_or_none_to_exclude():
    @dataclasses.dataclass
    class Params(ExperimentParameters):
        path: str = "a/b"
        gpus: int = 1
        hash_representations: dict = set_hash_functions(path=lambda self, value: value.lower(), gpus=None)

    assert Params(path="A/B", gpus=4).params_hash() == Params().params_hash()
    assert Params(path="a/c").params_hash() != Params().params_hash()


def test_a_hash_that_is_given_is_the_hash():
    assert ExperimentParameters(hash="my-cache").params_hash() == "my-cache"


CONFIG_METHODS = {
    "tag": [("self", EMPTY)],
    "training_pipeline": [("self", EMPTY), ("**kwargs", EMPTY)],
    "machine_params": [("self", EMPTY), ("mode", "train"), ("**kwargs", EMPTY)],
    "create_model": [("self", EMPTY), ("**kwargs", EMPTY)],
    "make_sampler_fn": [("self", EMPTY), ("**kwargs", EMPTY)],
} | {
    f"{mode}_task_sampler_args": [
        ("self", EMPTY),
        ("process_ind", EMPTY),
        ("total_processes", EMPTY),
        ("devices", None),
        ("seeds", None),
        ("deterministic_cudnn", False),
    ]
    for mode in ("train", "valid", "test")
}

ABSTRACT = {"tag", "training_pipeline", "machine_params", "create_model", "make_sampler_fn"}


@pytest.mark.parametrize("name", CONFIG_METHODS)
def test_a_method_of_the_config_takes_what_the_source_says(name):
    assert signature(getattr(ExperimentConfig, name)) == CONFIG_METHODS[name]


def test_the_abstract_methods_are_those_of_the_source():
    assert ExperimentConfig.__abstractmethods__ == ABSTRACT
    with pytest.raises(TypeError, match="abstract"):
        ExperimentConfig()


class OwnLoop(ExperimentConfig):
    def tag(self):
        return "own"

    def machine_params(self, mode="train", **kwargs):
        return {"nprocesses": 1, "gpu_ids": []}

    def train(self, run):
        pass


def test_a_loop_of_ones_own_is_one_method():
    """What the documents do not know of: a class without such a loop has all five to define."""
    assert OwnLoop.__abstractmethods__ == frozenset()
    with pytest.raises(NotImplementedError, match="OwnLoop has no create_model"):
        OwnLoop().create_model()
    assert type("Derived", (OwnLoop,), {}).__abstractmethods__ == frozenset()
    partial = type("Partial", (ExperimentConfig,), {"train": lambda self, run: None})
    assert partial.__abstractmethods__ == {"tag", "machine_params"}


def test_a_mode_that_keeps_the_loop_of_the_engine_needs_what_that_calls():
    check_methods(OwnLoop, ["train"])
    with pytest.raises(EntryError) as caught:
        check_methods(OwnLoop, ["train", "valid", "test"])
    assert (
        "OwnLoop lacks training_pipeline, create_model, make_sampler_fn, which the engine needs for valid, test"
        in str(caught.value)
    )
    made = type("Made", (OwnLoop,), {name: lambda self, **kwargs: None for name in ABSTRACT - {"create_model"}})
    with pytest.raises(EntryError, match="Made lacks create_model, which"):
        check_methods(made, ["test"])


class Whole(ExperimentConfig):
    LIST = [1, {"a": [2]}]
    TABLE = {"x": {"y": 1}}
    NAMES = {"a"}
    PAIR = ([1], {"x": 1})

    @classmethod
    def tag(cls):
        return "whole"

    def training_pipeline(self, **kwargs):
        return TrainingPipeline({"l": lambda model, batch: 0}, [PipelineStage(["l"], epochs=1)], lambda p: None)

    @classmethod
    def machine_params(cls, mode="train", **kwargs):
        return {"nprocesses": 1, "gpu_ids": []}

    def create_model(self, **kwargs):
        return None

    def make_sampler_fn(self, **kwargs):
        return kwargs

    def train_task_sampler_args(
        self, process_ind, total_processes, devices=None, seeds=None, deterministic_cudnn=False
    ):
        return {"process_ind": process_ind, "seeds": seeds}


def test_a_config_with_class_methods_works_and_has_default_params():
    config = Whole()
    assert (config.tag(), type(config.params)) == ("whole", ExperimentParameters)
    arguments = config.train_task_sampler_args(0, 1, seeds=[3])
    assert config.make_sampler_fn(**arguments) == {"process_ind": 0, "seeds": [3]}
    with pytest.raises(NotImplementedError, match="Whole has no test_task_sampler_args"):
        config.test_task_sampler_args(0, 1)


def test_params_of_another_class_are_refused():
    @dataclasses.dataclass
    class Params(ExperimentParameters):
        x: int = 0

    class Other(Whole):
        pass

    with pytest.raises(TypeError, match="takes ExperimentParameters, not a int"):
        Whole(3)
    assert Whole(Params()).params.x == 0


def test_the_metaclass_is_that_of_abstract_classes():
    assert type(ExperimentConfig) is FrozenClassVariables
    assert issubclass(FrozenClassVariables, abc.ABCMeta)


@pytest.mark.parametrize("name", ["LIST", "new", "tag", "__doc__", "Params"])
def test_a_class_variable_cannot_be_set(name):
    with pytest.raises(RuntimeError, match=rf"Whole\.{name} cannot be set"):
        setattr(Whole, name, 1)


def test_a_class_variable_cannot_be_deleted():
    with pytest.raises(RuntimeError, match=r"Whole\.LIST cannot be deleted"):
        del Whole.LIST


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda: Whole.LIST.append(3), "LIST"),
        (lambda: Whole.LIST.__setitem__(0, 3), "LIST"),
        (lambda: Whole.LIST[1]["a"].append(3), "LIST"),
        (lambda: Whole.LIST.sort(), "LIST"),
        (lambda: Whole.TABLE.update(z=1), "TABLE"),
        (lambda: Whole.TABLE["x"].pop("y"), "TABLE"),
        (lambda: Whole.NAMES.add("b"), "NAMES"),
        (lambda: Whole.NAMES.clear(), "NAMES"),
        (lambda: Whole.PAIR[0].append(2), "PAIR"),
        (lambda: Whole.PAIR[1].update(x=2), "PAIR"),
    ],
)
def test_a_container_of_the_class_cannot_be_changed_in_place(change, where):
    with pytest.raises(RuntimeError, match=rf"Whole\.{where} is a class variable"):
        change()


def test_every_mutator_of_the_plain_containers_is_closed():
    for name, plain in (("LIST", list), ("TABLE", dict), ("NAMES", set)):
        frozen = type(getattr(Whole, name))
        reading = {"__init__", "__new__", "__reduce_ex__", "__reduce__", "__setstate__", "__getstate__"}
        for method in ("append", "extend", "insert", "remove", "pop", "clear", "sort", "reverse", "update", "popitem",
                       "setdefault", "add", "discard", "difference_update", "intersection_update",
                       "symmetric_difference_update", "__setitem__", "__delitem__", "__iadd__", "__imul__", "__ior__",
                       "__iand__", "__isub__", "__ixor__"):  # fmt: skip
            if hasattr(plain, method) and method not in reading:
                assert getattr(frozen, method) is not getattr(plain, method), (name, method)


def test_a_container_of_the_class_pickles_copies_and_dumps_as_a_plain_one():
    for value in (Whole.LIST, Whole.TABLE, Whole.NAMES):
        for twin in (pickle.loads(pickle.dumps(value)), copy.deepcopy(value), copy.copy(value)):
            assert twin == value
            assert type(twin) in (list, dict, set)
    assert json.dumps([Whole.LIST, Whole.TABLE]) == '[[1, {"a": [2]}], {"x": {"y": 1}}]'
    copy.deepcopy(Whole.LIST)[1]["a"].append(3)


def test_instances_are_free_and_a_subclass_may_say_otherwise():
    config = Whole()
    config.LIST = [9]
    assert (config.LIST, Whole.LIST[0]) == ([9], 1)
    with mock.patch.object(config, "tag", return_value="mocked"):
        assert config.tag() == "mocked"

    class Sub(Whole):
        LIST = [5]

    assert Sub.LIST == [5]
    with pytest.raises(RuntimeError):
        Sub.LIST = []


def test_a_generic_config_works():
    kind = TypeVar("kind")

    class Typed(Whole, Generic[kind]):
        pass

    class Concrete(Typed[int]):
        pass

    assert Concrete().tag() == "whole"


def test_a_config_is_no_dataclass():
    with pytest.raises(RuntimeError, match="fields belong into Params"):

        @dataclasses.dataclass
        class Wrong(Whole):
            x: int = 1

    with pytest.raises(RuntimeError, match="fields belong into Params"):

        class AlsoWrong(Whole):
            x: list = dataclasses.field(default_factory=list)


def test_a_task_sampler_has_the_methods_of_the_source():
    assert TaskSampler.__abstractmethods__ == {"next_task", "reset", "set_seed"}
    for name in ("close", "state_dict", "load_state_dict"):
        assert callable(getattr(TaskSampler, name))


def test_machine_params_are_keywords_of_the_source():
    assert MachineParams(nprocesses=2, gpu_ids=[0, 1]).gpu_ids == [0, 1]
    assert signature(MachineParams)[:2] == [("nprocesses", EMPTY), ("gpu_ids", ())]


SIGNATURES = {
    MachineParams: [("nprocesses", EMPTY), ("gpu_ids", ()), ("gpu_resource", None), ("coupled", None)],
    PipelineStage: [
        ("loss_names", EMPTY),
        ("epochs", None),
        ("max_stage_steps", None),
        ("loss_weights", None),
        ("early_stopping_criterion", None),
    ],
    BatchSampler: [
        ("dataset", EMPTY),
        ("batch_size", EMPTY),
        ("process_ind", 0),
        ("total_processes", 1),
        ("seed", 0),
        ("shuffle", False),
        ("num_workers", 0),
    ],
    TrainingPipeline: [
        ("named_losses", EMPTY),
        ("pipeline_stages", EMPTY),
        ("optimizer_builder", EMPTY),
        ("lr_scheduler_builder", None),
        ("named_metrics", {}),
        ("valid_every", None),
        ("max_grad_norm", None),
        ("accumulate", 1),
        ("precision", "float32"),
        ("keep", "last"),
    ],
    Checkpoint: [("step", EMPTY), ("state", EMPTY)],
    Run.log: [("self", EMPTY), ("metrics", EMPTY), ("step", EMPTY)],
    Run.save_checkpoint: [("self", EMPTY), ("state", EMPTY), ("step", EMPTY)],
    Run.latest_checkpoint: [("self", EMPTY)],
    Run.should_stop: [("self", EMPTY)],
    ExperimentConfig: [("params", None)],
    ExperimentConfig.train: [("self", EMPTY), ("run", EMPTY)],
    ExperimentConfig.valid: [("self", EMPTY), ("run", EMPTY)],
    ExperimentConfig.test: [("self", EMPTY), ("run", EMPTY)],
    TaskSampler.next_task: [("self", EMPTY)],
    TaskSampler.reset: [("self", EMPTY)],
    TaskSampler.set_seed: [("self", EMPTY), ("seed", EMPTY)],
    TaskSampler.close: [("self", EMPTY)],
    TaskSampler.state_dict: [("self", EMPTY)],
    TaskSampler.load_state_dict: [("self", EMPTY), ("state", EMPTY)],
    load: [("cls", EMPTY), ("form", EMPTY), ("resolve", EMPTY)],
    render: [("params", EMPTY)],
}


@pytest.mark.parametrize("function", SIGNATURES, ids=lambda function: function.__qualname__)
def test_what_authors_call_begins_with_these_arguments_and_later_ones_have_defaults(function):
    promised, parameters = SIGNATURES[function], inspect.signature(function).parameters
    later = [p for p in list(parameters.values())[len(promised) :] if p.kind is not inspect.Parameter.VAR_KEYWORD]
    made = [(name, made_default(function, name, default)) for name, default in signature(function)[: len(promised)]]
    assert made == promised
    assert EMPTY not in [parameter.default for parameter in later]


def made_default(cls, name, default):
    """What a dataclass's default factory gives, in the place of its mark."""
    fields = {field.name: field for field in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else {}
    factory = fields[name].default_factory if name in fields else dataclasses.MISSING
    return default if factory is dataclasses.MISSING else factory()


def test_a_loop_gets_what_it_is_promised():
    assert {
        "mode", "params", "process_ind", "total_processes", "device", "seed", "seeds", "output", "inputs",
    } <= set(Run.__annotations__)  # fmt: skip
    for method in (Run.log, Run.save_checkpoint):
        assert inspect.signature(method).parameters["step"].kind is inspect.Parameter.KEYWORD_ONLY


def test_a_sampler_without_a_state_takes_none_up():
    class Endless(TaskSampler):
        length = float("inf")

        def next_task(self):
            return 1

        def reset(self): ...

        def set_seed(self, seed): ...

    sampler = Endless()
    assert (sampler.state_dict(), sampler.load_state_dict({}), sampler.close()) == ({}, None, None)
    with pytest.raises(NotImplementedError, match="Endless cannot take up the state"):
        sampler.load_state_dict({"at": 3})


def loss(model, batch):
    return 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pipeline_stages": []}, "TrainingPipeline.pipeline_stages: is empty"),
        ({"named_losses": {"other": loss}}, "names 'loss', no named loss"),
        ({"accumulate": 0}, "TrainingPipeline.accumulate: is 0"),
        ({"valid_every": True}, "TrainingPipeline.valid_every: is True"),
        ({"max_grad_norm": float("nan")}, "TrainingPipeline.max_grad_norm: is nan"),
        ({"precision": "fp16"}, "TrainingPipeline.precision: is 'fp16'; it is one of float32, bfloat16, float16"),
        ({"keep": "best:accuracy"}, "TrainingPipeline.keep: is 'best:accuracy'"),
    ],
)
def test_a_pipeline_that_cannot_run_is_refused_when_it_is_made(change, message):
    good = {
        "named_losses": {"loss": loss},
        "pipeline_stages": [PipelineStage(["loss"], max_stage_steps=3)],
        "optimizer_builder": lambda parameters: None,
    }
    TrainingPipeline(**good)
    with pytest.raises(EntryError) as caught:
        TrainingPipeline(**(good | change))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"loss_names": []}, "loss_names: is []"),
        ({"loss_names": "loss", "epochs": 1}, "loss_names: is 'loss'"),
        ({"loss_names": ["a"]}, "epochs and max_stage_steps are both missing"),
        ({"loss_names": ["a"], "epochs": 1, "max_stage_steps": 1}, "epochs and max_stage_steps are both given"),
        ({"loss_names": ["a"], "epochs": 0}, "epochs: is 0"),
        ({"loss_names": ["a"], "epochs": 1, "loss_weights": [1, 2]}, "loss_weights: has 2 entries for 1 losses"),
    ],
)
def test_a_stage_that_cannot_run_is_refused_when_it_is_made(arguments, message):
    with pytest.raises(EntryError) as caught:
        PipelineStage(**arguments)
    assert message in str(caught.value)


def test_a_stage_pairs_losses_with_weights():
    assert PipelineStage(["a", "b"], epochs=1).weighted_losses == [("a", 1.0), ("b", 1.0)]
    assert PipelineStage(["a", "b"], epochs=1, loss_weights=[2, 0.5]).weighted_losses == [("a", 2), ("b", 0.5)]
