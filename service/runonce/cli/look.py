"""Commands that run nothing: what an experiment's keys are, why, and what would be done."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

from runonce import __version__
from runonce.cli.target import Located, completed, locate, modules_here, target_options
from runonce.errors import InputError
from runonce.experiment.key import Difference, params_hash
from runonce.settings import Settings
from runonce.store.backend import Backend
from runonce.store.commit import probe
from runonce.store.url import open_store

json_option = click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
store_option = click.option("--store", metavar="STORE", help="Folder of results, as for run.")


def _backend(store: str | None) -> Backend:
    return open_store(store or Settings.from_env().store)


def _dump(values: Sequence[Any]) -> None:
    click.echo(json.dumps(values[0] if len(values) == 1 else values, indent=2))


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
    click.echo(f"{located.name}  ({located.where})")
    pinned = "  (pinned: no field counts)" if located.spec.hash is not None else ""
    click.echo(f"  paramsHash  {_params_hash(located)}{pinned}")
    for name, rule, value in _rules(located):
        click.echo(f"    {name}: {value}{'  # ' + rule if rule else ''}")
    for mode, (parts, key_) in located.keys.items():
        click.echo(f"  {mode}  {key_}")
        for name, value in parts.to_json().items():
            click.echo(f"    {name}: {_text(value)}")


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
@store_option
@json_option
def plan(target: str, params: Sequence[str], store: str | None, output: str) -> None:
    """What `run` would do: hits, misses and why, processes and GPUs."""
    backend = _backend(store)
    plans: list[dict[str, Any]] = []
    for located in locate(target, params):
        modules_here(located, Settings.from_env().sources)
        plans.append({"name": located.name, "modes": {mode: _plan(located, mode, backend) for mode in located.keys}})
    if output == "json":
        _dump(plans)
        return
    for entry in plans:
        click.echo(entry["name"])
        for mode, planned in entry["modes"].items():
            click.echo(f"  {mode:5}  {_plan_text(planned)}")
    counts = [planned["cached"] for entry in plans for planned in entry["modes"].values()]
    click.echo(f"{len(counts)} results: {sum(counts)} cached, {len(counts) - sum(counts)} to be made")


def _plan(located: Located, mode: str, backend: Backend) -> dict[str, Any]:
    from runonce.store.earlier import nearest_earlier

    parts, key_ = located.keys[mode]
    shape = located.spec.shape(mode, local=True)
    found = probe(backend, key_)
    planned: dict[str, Any] = {
        "cacheKey": key_,
        "cached": found is not None,
        "completions": shape.completions,
        "parallelism": shape.parallelism,
        "gpus": shape.gpus,
        "coupled": shape.coupled,
    }
    if shape.reason:
        planned["message"] = shape.reason
    if found is None:
        form = dict(located.spec.hash_form(mode))
        earlier = nearest_earlier(backend, located.name, parts.to_json(), form, cache_key=key_)
        if earlier is not None:
            planned["nearest"] = {"cacheKey": earlier.cache_key, "differences": _differences_json(earlier.found)}
    try:
        located.spec.shape(mode)
    except InputError as error:
        planned["onACluster"] = str(error)
    return planned


def _plan_text(planned: Mapping[str, Any]) -> str:
    word = "hit " if planned["cached"] else "miss"
    n = planned["completions"]
    text = f"{word}  {planned['cacheKey'][:12]}  {n} process{'' if n == 1 else 'es'}"
    if planned["gpus"]:
        text += f", {planned['gpus']} GPUs at once"
    if planned["parallelism"] < n:
        text += f", {planned['parallelism']} at a time"
    if "message" in planned:
        text += f"  ({planned['message']})"
    if "nearest" in planned:
        shown = "; ".join(_difference_text(entry) for entry in planned["nearest"]["differences"])
        text += f"\n         nearest earlier result {planned['nearest']['cacheKey'][:12]}: {shown}"
    if "onACluster" in planned:
        text += f"\n         refused on a cluster: {planned['onACluster']}"
    return text


# --- render -------------------------------------------------------------------------------------------------


@click.command()
@click.argument("target", metavar="TARGET", required=False)
@click.option("-f", "--file", "file", metavar="FILE", help="The file to complete; the same as TARGET.")
@click.option("-p", "--param", "params", multiple=True, metavar="NAME=VALUE", help="Change a parameter.")
@click.option("-o", "--output", type=click.Choice(["yaml", "json"]), default="yaml", show_default=True)
def render(target: str | None, file: str | None, params: Sequence[str], output: str) -> None:
    """Write experiments as YAML, every field and the code version filled in."""
    from runonce.author.agree import keep_modules
    from runonce.author.document import write_documents
    from runonce.author.version import source_version
    from runonce.experiment.spec import to_resource

    if (target is None) == (file is None):
        raise click.UsageError("Give TARGET, or -f FILE.")
    resources = []
    for located in locate(target or file or "", params):
        spec = completed(located)
        if (spec.code_version or "").startswith("source:"):
            _, modules = source_version(spec, located.workdir)
            if modules is not None:
                keep_modules(Settings.from_env().sources, modules)
        resources.append(to_resource(located.name, spec))
    if output == "json":
        _dump(resources)
    else:
        click.echo(write_documents(resources), nl=False)


# --- explain ------------------------------------------------------------------------------------------------


@click.command()
@click.argument("first", metavar="A")
@click.argument("second", metavar="B", required=False)
@store_option
@json_option
def explain(first: str, second: str | None, store: str | None, output: str) -> None:
    """Which parts make the keys of A and B differ; of A alone: why it is no hit.

    A and B are each a file, module:Class, or the cache key of a result.
    """
    backend = _backend(store)
    ones = _keyed(first, backend)
    others = _keyed(second, backend) if second is not None else _earlier(ones, backend, first)
    modes = {
        mode: {
            "cacheKeys": [one["cacheKey"], others[mode]["cacheKey"]],
            "differences": _differences_json(_compare(one, others[mode])),
        }
        for mode, one in ones.items()
        if mode in others
    }
    if output == "json":
        click.echo(json.dumps({"modes": modes}, indent=2))
        return
    if not modes:
        click.echo("no earlier result to compare with" if second is None else "no mode is in both")
    for mode, entry in modes.items():
        one_key, other_key = (key_[:12] for key_ in entry["cacheKeys"])
        same = entry["cacheKeys"][0] == entry["cacheKeys"][1]
        click.echo(f"{mode}  {one_key} {'is' if same else 'is not'} {other_key}")
        for difference in entry["differences"]:
            click.echo(f"  {_difference_text(difference)}")


def _keyed(what: str, backend: Backend) -> dict[str, dict[str, Any]]:
    """Mode to {name, cacheKey, parts, params}."""
    from runonce.store.find import find_commit, is_prefix
    from runonce.store.restore import read_manifest

    if is_prefix(what):
        commit = find_commit(backend, what)
        manifest = read_manifest(backend, commit.manifest)
        entry = {
            "name": manifest.name,
            "cacheKey": commit.cache_key,
            "parts": manifest.parts,
            "params": manifest.params,
        }
        return {commit.mode: entry}
    found = locate(what)
    if len(found) > 1:
        raise click.UsageError(f"{what} holds {len(found)} experiments; explain takes one.")
    located = found[0]
    return {
        mode: {
            "name": located.name,
            "cacheKey": key_,
            "parts": parts.to_json(),
            "params": dict(located.spec.hash_form(mode)),
        }
        for mode, (parts, key_) in located.keys.items()
    }


def _earlier(ones: Mapping[str, dict[str, Any]], backend: Backend, what: str) -> dict[str, dict[str, Any]]:
    from runonce.store.earlier import nearest_earlier
    from runonce.store.restore import read_manifest

    found = {}
    for mode, one in ones.items():
        own = probe(backend, one["cacheKey"])
        if own is not None:
            click.echo(f"{mode}: {what} is a hit", err=True)
            continue
        earlier = nearest_earlier(backend, one["name"], one["parts"], one["params"], cache_key=one["cacheKey"])
        other = probe(backend, earlier.cache_key) if earlier is not None else None
        if other is not None:
            manifest = read_manifest(backend, other[0].manifest)
            found[mode] = {"cacheKey": other[0].cache_key, "parts": manifest.parts, "params": manifest.params}
    return found


def _compare(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[Difference]:
    from runonce.store.earlier import compare

    return compare(other["parts"], other["params"], one["parts"], one["params"])


def _differences_json(found: Iterable[Difference]) -> list[dict[str, Any]]:
    return [{"path": d.path, "first": d.first, "second": d.second} for d in found]


def _difference_text(entry: Mapping[str, Any]) -> str:
    return shown_difference(Difference(entry["path"], entry["first"], entry["second"]))


def shown_difference(difference: Difference) -> str:
    first, second = (
        "nothing" if value is None else text if len(text := _text(value)) <= 60 else text[:57] + "…"
        for value in (difference.first, difference.second)
    )
    return f"{difference.path.removeprefix('/').replace('/', '.')} was {first}, is {second}"


# --- version ------------------------------------------------------------------------------------------------


@click.command()
@json_option
def version(output: str) -> None:
    """Versions of the package, of its formats, of the engine and of the contract with pods."""
    from runonce.author.version import ENGINE
    from runonce.experiment import contract, key, manifest

    versions = {
        "runonce": __version__,
        "keyFormat": key.FORMAT,
        "recordFormat": manifest.FORMAT,
        "engine": ENGINE,
        "contract": contract.CONTRACT,
    }
    if output == "json":
        click.echo(json.dumps(versions, indent=2))
        return
    for name, value in versions.items():
        click.echo(f"{name} {value}")
