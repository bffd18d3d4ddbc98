"""Containers that are class variables of a config, where they are given on: in parameters, documents and copies."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import yaml

from runonce import ExperimentConfig, ExperimentParameters, render
from runonce.author.entry import machines_of
from runonce.experiment.spec import ExperimentSpec, to_resource


class Plain:
    LIST = [1, {"a": [2]}]
    TABLE = {"x": {"y": 1}}
    NAMES = {"a"}
    PAIR = ([1], {"x": 1})


class Frozen(ExperimentConfig):
    LIST, TABLE, NAMES, PAIR = Plain.LIST, Plain.TABLE, Plain.NAMES, Plain.PAIR

    def tag(self):
        return "frozen"

    def machine_params(self, mode="train", **kwargs):
        raise NotImplementedError

    def training_pipeline(self, **kwargs):
        raise NotImplementedError

    def create_model(self, **kwargs):
        raise NotImplementedError

    def make_sampler_fn(self, **kwargs):
        raise NotImplementedError


@dataclasses.dataclass
class OfTheClass(ExperimentParameters):
    """Each annotation under which a container of the class may be given."""

    anything: Any = None
    list_: list = dataclasses.field(default_factory=list)
    table: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)
    names: set[str] = dataclasses.field(default_factory=set)
    sequence: Sequence[Any] = ()
    pair: tuple[list[int], dict[str, int]] = ([], {})
    union: list | str = ""


def of_the_class(source) -> OfTheClass:
    return OfTheClass(
        anything=source.NAMES,
        list_=source.LIST,
        table=source.TABLE,
        names=source.NAMES,
        sequence=source.LIST,
        pair=source.PAIR,
        union=source.LIST,
    )


def test_a_container_of_the_class_in_parameters_is_written_as_the_plain_one():
    """Safe YAML knows exact classes only, and what the class holds is no other value than the same in a file."""
    params, plain = of_the_class(Frozen), of_the_class(Plain)
    form = render(params)
    assert yaml.safe_load(yaml.safe_dump(form)) == form == render(plain)
    assert params.params_hash() == plain.params_hash()
    assert dataclasses.asdict(params) == dataclasses.asdict(plain)
    assert yaml.safe_dump(dataclasses.asdict(params)) == yaml.safe_dump(dataclasses.asdict(plain))


def test_containers_of_the_class_in_machine_parameters_are_written_as_plain_ones():
    class Machines(Frozen):
        IDS = [0, 0]
        VARIABLES = {"A": "b"}

        def machine_params(self, mode="train", **kwargs):
            if mode != "train":
                raise NotImplementedError
            return {"nprocesses": 2, "gpu_ids": self.IDS, "env": self.VARIABLES}

    spec = ExperimentSpec(config="a:B", code_version="label:1", machine_params=machines_of(Machines()))
    resource = to_resource("a", spec)
    block = yaml.safe_load(yaml.safe_dump(resource))["spec"]["machineParams"]["train"]
    assert block == {"nprocesses": 2, "gpuIds": [0, 0], "env": {"A": "b"}}


def test_what_is_made_of_a_container_of_the_class_is_plain():
    for frozen, kind in ((Frozen.LIST, list), (Frozen.TABLE, dict), (Frozen.NAMES, set)):
        assert type(frozen) is not kind
        assert type(type(frozen)(frozen)) is kind
        assert type(frozen.copy()) is kind
    assert type(Frozen.LIST[:1]) is type(Frozen.LIST * 2) is list
    assert type(Frozen.TABLE | {}) is dict
    assert type(Frozen.NAMES | {"b"}) is set
