"""The documentation says what the code does: its examples are evaluated, its fields compared, its links followed."""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime
import decimal
import fractions
import functools
import json
import math
import pathlib
import re
import sys
import tomllib
import types
import typing
import uuid
import zoneinfo
from collections import OrderedDict
from pathlib import Path

import click
import numpy as np
import pydantic
import pytest
import resource_reference
import yaml

from runonce import ExperimentParameters, load, render
from runonce.author.document import read_documents, read_value
from runonce.cli import runonce
from runonce.errors import InputError, RenderError
from runonce.experiment import spec as resource
from runonce.experiment.canonical import digest
from runonce.experiment.form import check_form
from runonce.experiment.key import params_hash, pointer
from runonce.experiment.machine import MachineParams, plan_job
from runonce.experiment.params import find_imported

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))


def text_of(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def rows(page: str, *header: str) -> list[list[str]]:
    """The cells of every row below this header, in all tables of the page that have it."""
    found: list[list[str]] = []
    inside = False
    for line in text_of(page).splitlines():
        if not line.startswith("|"):
            inside = False
            continue
        cells = [cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if inside and not set(line) <= set("|-"):
            found.append(cells)
        inside = inside or cells == list(header)
    assert found, f"{page} has no table {header}"
    return found


def codes(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


# --- files --------------------------------------------------------------------------------------------------

FILES = [(path, block) for path in [ROOT / "README.md", *PAGES] for block in blocks(path, "yaml")]


@pytest.mark.parametrize(
    ("path", "block"), [(p, b) for p, b in FILES if "kind: Experiment" in b], ids=lambda value: str(value)[-20:]
)
def test_an_experiment_that_is_shown_is_one(path, block):
    for document in read_documents(block.encode(), name=path.name):
        resource.parse_experiment(document.value)


# --- forms --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def names():
    """What the examples of docs/forms.md may name: its own module `optim`, and these of the library."""
    (source,) = (block for block in blocks(DOCS / "forms.md", "python") if block.startswith("# optim.py"))
    module = types.ModuleType("optim")
    sys.modules["optim"] = module
    exec(compile(source, "optim.py", "exec", dont_inherit=True), vars(module))
    yield {
        **vars(typing), **vars(collections.abc), "math": math, "np": np, "datetime": datetime, "re": re, "sys": sys,
        "Path": pathlib.Path, "Decimal": decimal.Decimal, "Fraction": fractions.Fraction, "UUID": uuid.UUID,
        "ZoneInfo": zoneinfo.ZoneInfo, "OrderedDict": OrderedDict, "partial": functools.partial, **vars(module),
    }  # fmt: skip
    del sys.modules["optim"]


def holder(annotation: object) -> type[ExperimentParameters]:
    """Parameters with one field, `x`, whose default is none of the examples."""
    field = ("x", annotation, dataclasses.field(default_factory=object))
    return dataclasses.make_dataclass("Holder", [field], bases=(ExperimentParameters,), namespace={"__module__": "m"})


def check_example(annotation: object, value: object, form: object) -> None:
    cls = holder(annotation)
    assert render(cls(x=value)) == {"x": form}
    again = load(cls, {"x": form}, find_imported)
    assert render(again) == {"x": form}
    if not isinstance(value, functools.partial | np.ndarray | float):
        assert again.x == value


@pytest.mark.parametrize("row", rows("forms.md", "Python", "JSON"), ids=lambda row: row[0])
def test_a_value_without_a_declared_type_is_written_as_the_table_says(row, names):
    (value,), (form,) = map(codes, row)
    check_example(typing.Any, eval(value, names), json.loads(form))


@pytest.mark.parametrize("row", rows("forms.md", "Annotation", "Python", "JSON"), ids=lambda row: f"{row[0]} {row[1]}")
def test_a_value_of_a_declared_type_is_written_as_the_table_says(row, names):
    (annotation,), (value,), (form,) = map(codes, row)
    check_example(eval(annotation, names), eval(value, names), json.loads(form))


@pytest.mark.parametrize("row", rows("forms.md", "Python", "Why", "Instead"), ids=lambda row: row[0])
def test_a_value_that_has_no_form_is_refused(row, names):
    (value,) = codes(row[0])
    with pytest.raises(RenderError):
        render(holder(typing.Any)(x=eval(value, names)))


@pytest.mark.parametrize("row", rows("forms.md", "In a file", "Why", "Write"), ids=lambda row: row[0])
def test_what_a_file_may_not_say_is_refused_and_what_it_may_is_taken(row):
    (refused,) = codes(row[0])
    with pytest.raises(InputError):
        check_form({"x": read_value(refused)}, "params")
    for written in codes(row[2]):
        check_form({"x": read_value(written)}, "params")


def test_the_names_of_fields_are_spelled_as_the_table_says():
    for name, meaning in rows("forms.md", "Name", "Means"):
        if meaning.startswith("refused"):
            with pytest.raises(InputError, match=codes(meaning)[0]):
                pointer(codes(name)[0])
        else:
            pointer(codes(name)[0])


@pytest.mark.parametrize("row", rows("resource.md", "Written", "Read as"), ids=lambda row: row[0])
def test_a_plain_scalar_is_read_as_the_table_says(row):
    (written,) = codes(row[0])
    if row[1].startswith("refused"):
        with pytest.raises(InputError):
            check_form({"x": read_value(written)}, "params")
    else:
        value, wanted = read_value(written), json.loads(codes(row[1])[0])
        assert (value, type(value)) == (wanted, type(wanted))


def test_a_digest_that_is_shown_is_that_of_the_object_above_it():
    pages = text_of("forms.md") + text_of("resource.md")
    shown = re.findall(r"```json\n(.*?)```[^`]*`([0-9a-f]{64})`", pages, re.DOTALL)
    assert len(shown) == 2
    for source, wanted in shown:
        value = json.loads(source)
        assert wanted == (digest(value) if "format" in value else params_hash(value))
    (document,) = read_documents(blocks(DOCS / "resource.md", "yaml")[0].encode(), name="resource.md")
    parts, key = resource.parse_experiment(document.value).spec.keys()["train"]
    assert (parts.to_json(), key) == (value, wanted)


# --- the resource -------------------------------------------------------------------------------------------

MODELS = {
    "spec": resource.ExperimentSpec,
    "machineParams.<mode>": resource.MachineBlock,
    "resources": resource.Resources,
    "tolerations[]": resource.Toleration,
    "envFrom[]": resource.EnvFrom,
    "volumes[]": resource.Volume,
}


def section(title: str) -> str:
    return text_of("resource.md").split(f"\n## {title}\n", 1)[1].split("\n## ")[0]


def fields_of(model: type[pydantic.BaseModel]) -> dict[str, str]:
    """Name in a file to the default as the page writes it; empty for none."""
    out = {}
    for name, field in model.model_fields.items():
        default = None if field.is_required() else field.get_default(call_default_factory=True)
        if isinstance(default, pydantic.BaseModel):
            default = default.model_dump(exclude_defaults=True)
        out[field.alias or name] = "" if default is None else f"`{json.dumps(default)}`"
    return out


@pytest.mark.parametrize("where", MODELS)
def test_every_field_of_the_resource_is_described_with_its_default(where):
    shown = {}
    title = "Fields" if where == "spec" else f"`{where}`"
    for line in section(title).splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if cells and cells[0].startswith("`"):
            shown[codes(cells[0])[0]] = cells[2]
    assert shown == fields_of(MODELS[where])


@pytest.mark.parametrize("where", MODELS)
def test_no_field_of_the_resource_is_without_a_meaning(where):
    """`make generate` writes a row for a field that is new; what it means only a person can say."""
    title = "Fields" if where == "spec" else f"`{where}`"
    for line in section(title).splitlines():
        if line.startswith("| `"):
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            assert cells[1], line
            assert all(cells[3:]), line


def test_types_and_bounds_of_the_resources_fields_are_those_of_the_model():
    assert text_of("resource.md") == resource_reference.page()


SPEC = resource.parse_experiment(
    {
        "apiVersion": resource.API_VERSION,
        "kind": resource.KIND,
        "metadata": {"name": "x"},
        "spec": {
            "config": "m:C",
            "params": {"x": 1},
            "codeVersion": "label:x",
            "machineParams": {"train": {"nprocesses": 1}},
        },
    }
).spec


def edited(name: str) -> resource.ExperimentSpec:
    """The spec with another value of one field."""
    changes: dict[str, object] = {"hash_exclude": ("x",), "hash_as": {"x": 2}, "params_only_in": {"x": "test"}}
    if name == "command":
        return SPEC.model_copy(update={"config": None, "command": ("./run",), "key_machine": False})
    if name == "machine_params":
        changes[name] = resource.Machines(train=resource.MachineBlock(nprocesses=2))
    if name not in changes:
        value = getattr(SPEC, name)
        other = {bool: True, int: 5, str: "label:y", tuple: ("y",), dict: {"y": "z"}, type(None): "y"}
        changes[name] = other.get(type(value), "y")
    return SPEC.model_copy(update={name: changes[name]})


@pytest.mark.parametrize(
    "row", rows("resource.md", "Field", "Type", "Default", "In the key", "Meaning"), ids=lambda row: row[0]
)
def test_a_field_is_in_the_key_if_the_page_says_so(row):
    (alias,) = codes(row[0])
    name = next(name for name, field in resource.ExperimentSpec.model_fields.items() if field.alias == alias)
    assert (edited(name).keys()["train"][1] != SPEC.keys()["train"][1]) is row[3].startswith("yes")


# --- machines -----------------------------------------------------------------------------------------------

PLAN = ("Machine parameters", "Processes", "At once", "Cluster: GPUs a pod", "One machine: devices of each")


@pytest.mark.parametrize("row", rows("machines.md", *PLAN), ids=lambda row: row[0])
def test_a_machine_that_is_shown_has_the_job_that_is_shown(row):
    machine = MachineParams(**eval(f"dict({codes(row[0])[0]})", {}))
    local = plan_job(machine, mode="test", local=True)
    assert (str(local.completions), [list(slot) for slot in local.device_slots]) == (
        row[1],
        json.loads(codes(row[4])[0]),
    )
    if row[3].startswith("refused"):
        assert row[2] == f"{local.parallelism}, on one machine"
        with pytest.raises(InputError):
            plan_job(machine, mode="test")
    else:
        cluster = plan_job(machine, mode="test")
        assert [str(cluster.parallelism), str(cluster.gpus_per_process)] == row[2:4]
        assert local.parallelism == cluster.parallelism


# --- the command line ---------------------------------------------------------------------------------------


def commands(group: click.Group = runonce, path: str = "") -> dict[str, click.Command]:
    """Every command that --help lists, by its words."""
    found: dict[str, click.Command] = {}
    with click.Context(group) as ctx:
        for name in group.list_commands(ctx):
            command = group.get_command(ctx, name)
            if isinstance(command, click.Group):
                found |= commands(command, f"{path}{name} ")
            elif not command.hidden:
                found[path + name] = command
    return found


COMMANDS = commands()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_described_with_its_options(name):
    page = text_of("command-line.md")
    shared, _, _ = page.partition("\n## ")
    described = re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    assert described, f"docs/command-line.md has no heading `## {name}`"
    assert f"`runonce {name}" in described[1]
    for option in COMMANDS[name].params:
        if isinstance(option, click.Option) and not set(option.opts) & {"--help", "-h"}:
            spelled = "|".join(re.escape(text) for text in option.opts)
            assert re.search(rf"(?<![\w-])({spelled})(?![\w-])", described[1] + shared), option.opts


def test_no_command_is_described_that_there_is_not():
    described = re.findall(r"^## ([a-z]+(?: [a-z]+)?)$", text_of("command-line.md"), re.MULTILINE)
    assert sorted(described) == sorted(COMMANDS)


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.name)
def test_a_command_that_is_shown_is_one(page):
    first = {name.split()[0] for name in COMMANDS} | {"worker", "cluster", "store"}
    for word in re.findall(r"(?:^|[`$(])runonce ([a-z]+)", page.read_text(encoding="utf-8"), re.MULTILINE):
        assert word in first, word


# --- what to install and to build ----------------------------------------------------------------------------

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.mark.parametrize("page", [*sorted(ROOT.glob("*.md")), *PAGES], ids=lambda page: page.name)
def test_extras_and_words_of_make_that_are_shown_are_there(page):
    text = page.read_text(encoding="utf-8")
    for extras in re.findall(r"pip install '(?:\.|runonce)\[([\w,]+)\]'", text):
        assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"]), extras
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for words in re.findall(r"(?:^|`)make ((?:[a-z-]+ ?)+)", text, re.MULTILINE):
        for word in words.split():
            assert re.search(rf"^{word}:.*## ", makefile, re.MULTILINE), word


def test_images_of_the_first_five_minutes_are_built_by_docker_alone():
    """No environment of Python stands before them, and the page loads those that they are."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for word in ("images", "built"):
        assert re.search(rf"^{word}:(?: built)? ##", makefile, re.MULTILINE), word
    page = text_of("get-started.md")
    assert "make setup" not in page
    assert f"runonce-dev/controller:{PROJECT['version']} runonce-dev/worker:{PROJECT['version']}" in page


# --- what a GitOps tool is told -------------------------------------------------------------------------------


def test_what_a_gitops_tool_is_told_prunes_and_does_not_wait_for_a_training():
    argo, flux = map(yaml.safe_load, blocks(DOCS / "gitops.md", "yaml"))
    assert (argo["apiVersion"], argo["kind"]) == ("argoproj.io/v1alpha1", "Application")
    assert argo["spec"]["syncPolicy"]["automated"] == {"prune": True, "selfHeal": True}
    assert argo["spec"]["syncPolicy"]["syncOptions"] == ["ServerSideApply=true"]
    assert argo["metadata"]["annotations"] == {"argocd.argoproj.io/compare-options": "ServerSideDiff=true"}
    assert set(argo["spec"]) == {"project", "source", "destination", "syncPolicy"}
    assert set(argo["spec"]["source"]) == {"repoURL", "targetRevision", "path"}
    assert (flux["apiVersion"], flux["kind"]) == ("kustomize.toolkit.fluxcd.io/v1", "Kustomization")
    assert (flux["spec"]["prune"], flux["spec"]["wait"]) == (True, False)
    assert flux["spec"]["sourceRef"]["kind"] == "GitRepository"
    assert {"interval", "path"} <= set(flux["spec"])  # the first of them has no default


# --- links --------------------------------------------------------------------------------------------------


def anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*sorted(ROOT.glob("*.md")), *PAGES], ids=lambda page: page.name)
def test_every_link_of_the_documentation_leads_somewhere(page):
    prose = re.sub(r"```.*?```|`[^`]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), target
        if anchor:
            assert anchor in anchors(path), target


def test_decisions_are_numbered_once_and_say_their_number():
    pages = sorted((DOCS / "decisions").glob("*.md"))
    assert [int(page.name[:4]) for page in pages] == list(range(1, len(pages) + 1))
    for page in pages:
        assert page.read_text(encoding="utf-8").startswith(f"# {int(page.name[:4])}. "), page.name
