"""Commands that run nothing: what an experiment's keys are, why, and what would be done."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

from runonce import __version__
from runonce.api.changes import point_text
from runonce.api.outlook import Outlook, outlook
from runonce.api.target import Located, completed, locate, prove_all
from runonce.cli.explain import difference_text, differences_json
from runonce.cli.options import grid_option, json_option, open_given, store_option, target_options
from runonce.errors import InputError
from runonce.experiment.key import params_hash
from runonce.settings import Settings
from runonce.store.backend import Backend


def _single(values: Sequence[Any]) -> Any:
    return values[0] if len(values) == 1 else values


def _dump(values: Sequence[Any]) -> None:
    click.echo(json.dumps(_single(values), indent=2))


# --- key ----------------------------------------------------------------------------------------------------


@click.command()
@target_options
@json_option
def key(target: str, params: Sequence[str], output: str) -> None:
    """Every part of the cache keys, and the rule behind it."""
    found = locate(target, params)
    if output == "json":
        _dump([_key_json(located) for located in found])
        return
    for located in found:
        _print_key(located)


def _key_json(located: Located) -> dict[str, Any]:
    modes = {mode: {"cacheKey": key_, "parts": parts.to_json()} for mode, (parts, key_) in located.keys.items()}
    return {"name": located.name, "paramsHash": _params_hash(located), "modes": modes}


def _params_hash(located: Located) -> str:
    spec = located.spec
    return spec.hash if spec.hash is not None else params_hash(spec.hash_form())


def _print_key(located: Located) -> None:
    click.echo(f"{located.name}  ({located.where()})")
    pinned = "  (pinned: no field counts)" if located.spec.hash is not None else ""
    click.echo(f"  paramsHash  {_params_hash(located)}{pinned}")
    for name, rule, value in _rules(located):
        click.echo(f"    {name}: {value}{'  # ' + rule if rule else ''}")
    for mode, (parts, key_) in located.keys.items():
        click.echo(f"  {mode}  {key_}")
        for name, value in parts.to_json().items():
            promised = "  # the user's promise" if name == "codeVersion" and value.startswith("label:") else ""
            click.echo(f"    {name}: {_text(value)}{promised}")


def _rules(located: Located) -> Iterable[tuple[str, str, str]]:
    spec = located.spec
    for name, form in spec.params.items():
        if name in spec.hash_exclude:
            yield name, "hashExclude: does not count", _text(form)
        elif name in spec.hash_as:
            yield name, f"hashAs: counts as {_text(spec.hash_as[name])}", _text(form)
        elif name in spec.params_only_in:
            yield name, f"counts in {spec.params_only_in[name]} alone", _text(form)
        else:
            yield name, "", _text(form)
    for name, form in spec.hash_as.items():
        if name not in spec.params:
            yield name, "hashAs: the value itself has no form", _text(form)
    for name in (name for name in spec.hash_exclude if name.startswith("/")):
        yield name, "hashExclude: does not count", ""


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


# --- plan ---------------------------------------------------------------------------------------------------


@click.command()
@target_options
@grid_option
@store_option
@json_option
def plan(target: str, params: Sequence[str], grid: Sequence[str], store: str | None, output: str) -> None:
    """What `run` would do: hits, misses and why, processes and GPUs."""
    backend = open_given(store)
    found = locate(target, params, grid)
    prove_all(found, Settings.from_env().sources)
    plans = [_plan_all(located, backend) for located in found]
    if output == "json":
        click.echo(json.dumps(plans if grid else _single(plans), indent=2))
        return
    for located, entry in zip(found, plans, strict=True):
        promised = f"{located.spec.code_version}, the user's promise" if _is_label(located) else ""
        click.echo("  ".join(filter(None, (entry["name"], point_text(located.point), promised))))
        for mode, planned in entry["modes"].items():
            click.echo(f"  {mode:5}  {_plan_text(planned)}")
    words = [_word(planned) for entry in plans for planned in entry["modes"].values()]
    many = f"{len(plans)} experiments, " if len(plans) > 1 or grid else ""
    counts = f"{words.count('hit')} cached, {words.count('miss')} to be made"
    later = f", {words.count('open')} known later" if "open" in words else ""
    click.echo(f"{many}{len(words)} results: {counts}{later}")


# What the engine's batches over all processes do not make the same for any number of them.
NOT_KEYED = (
    "the number of processes is not in the key; batch norm, dropout, losses within a batch and samplers of one's own "
    "see it all the same: set keyMachine if that matters"
)


def _is_label(located: Located) -> bool:
    return (located.spec.code_version or "").startswith("label:")


def _plan_all(located: Located, backend: Backend) -> dict[str, Any]:
    point = {"point": dict(located.point)} if located.point else {}
    modes = {mode: _plan(located, mode, found, backend) for mode, found in outlook(located, backend).items()}
    return {"name": located.name, **point, "modes": modes}


def _plan(located: Located, mode: str, found: Outlook, backend: Backend) -> dict[str, Any]:
    from runonce.store.earlier import nearest_earlier

    parts, key_ = located.keys[mode]
    shape = located.spec.shape(mode, local=True)
    planned: dict[str, Any] = {
        "cacheKey": key_,
        "cached": found.hit is not None,
        "completions": shape.completions,
        "parallelism": shape.parallelism,
        "gpus": shape.gpus,
        "coupled": shape.coupled,
    }
    if found.awaits:
        planned["awaits"] = list(found.awaits)
    if message := "; ".join(filter(None, (shape.reason, found.message))):
        planned["message"] = message
    if shape.coupled and shape.completions > 1 and not located.spec.keyed_machine():
        planned["notKeyed"] = NOT_KEYED
    if not (found.hit or found.message or located.point):  # of a grid the points are each other's nearest
        form = dict(located.spec.hash_form(mode))
        earlier = nearest_earlier(backend, located.name, parts.to_json(), form, cache_key=key_)
        if earlier is not None:
            planned["nearest"] = {"cacheKey": earlier.cache_key, "differences": differences_json(earlier.found)}
    try:
        located.spec.shape(mode)
    except InputError as error:
        planned["onACluster"] = str(error)
    return planned


def _word(planned: Mapping[str, Any]) -> str:
    return "hit" if planned["cached"] else "open" if "awaits" in planned else "miss"


def _plan_text(planned: Mapping[str, Any]) -> str:
    n = planned["completions"]
    text = f"{_word(planned):4}  {planned['cacheKey'][:12]}  {n} process{'' if n == 1 else 'es'}"
    if planned["gpus"]:
        text += f", {planned['gpus']} GPUs at once"
    if planned["parallelism"] < n:
        text += f", {planned['parallelism']} at a time"
    if "message" in planned:
        text += f"  ({planned['message']})"
    if "nearest" in planned:
        shown = "; ".join(difference_text(entry) for entry in planned["nearest"]["differences"])
        text += f"\n         nearest earlier result {planned['nearest']['cacheKey'][:12]}: {shown}"
    if "notKeyed" in planned:
        text += f"\n         {planned['notKeyed']}"
    if "onACluster" in planned:
        text += f"\n         refused on a cluster: {planned['onACluster']}"
    return text


# --- render -------------------------------------------------------------------------------------------------


@click.command()
@click.argument("target", metavar="TARGET", required=False)
@click.option("-f", "--file", "file", metavar="FILE", help="The file to complete; the same as TARGET.")
@click.option("-p", "--param", "params", multiple=True, metavar="NAME=VALUE", help="Change a parameter.")
@grid_option
@click.option("-o", "--output", type=click.Choice(["yaml", "json"]), default="yaml", show_default=True)
def render(target: str | None, file: str | None, params: Sequence[str], grid: Sequence[str], output: str) -> None:
    """Write experiments as YAML, every field and the code version filled in."""
    from runonce.author.agree import keep_modules
    from runonce.author.version import source_version
    from runonce.author.writing import write_documents

    if (target is None) == (file is None):
        raise click.UsageError("Give TARGET, or -f FILE.")
    resources = []
    for located in locate(target or file or "", params, grid):
        spec = completed(located)
        if (spec.code_version or "").startswith("source:"):
            _, modules = source_version(spec, located.workdir)
            if modules is not None:
                keep_modules(Settings.from_env().sources, modules)
        resources.append(located.resource(spec))
    if output == "json":
        click.echo(json.dumps(resources if grid else _single(resources), indent=2))
    else:
        click.echo(write_documents(resources).encode(), nl=False)  # a file of YAML is UTF-8, whatever a terminal speaks


# --- version ------------------------------------------------------------------------------------------------


@click.command()
@json_option
def version(output: str) -> None:
    """Versions of the package, of its formats, of the engine and of the contract with pods."""
    from runonce.author.version import ENGINE
    from runonce.experiment import contract, key, seal

    versions = {
        "runonce": __version__,
        "keyFormat": key.FORMAT,
        "recordFormat": seal.FORMAT,
        "engine": ENGINE,
        "contract": contract.CONTRACT,
    }
    if output == "json":
        click.echo(json.dumps(versions, indent=2))
        return
    for name, value in versions.items():
        click.echo(f"{name} {value}")
