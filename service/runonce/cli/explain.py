"""`runonce explain`: why two keys differ, or why there was no hit; and how a difference is shown anywhere."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any

import click

from runonce.api.outlook import Outlook, outlook
from runonce.api.target import Located, locate
from runonce.cli.options import json_option, open_given, store_option
from runonce.experiment.key import Difference
from runonce.experiment.manifest import Commit
from runonce.experiment.spec import ExperimentSpec
from runonce.store.backend import Backend
from runonce.store.commit import probe
from runonce.store.earlier import compare, nearest_earlier, shown_difference
from runonce.store.failures import FailedAttempt, newest_failure
from runonce.store.find import find_commit, is_prefix
from runonce.store.restore import read_manifest

Keyed = Mapping[str, Mapping[str, Any]]  # mode to {name, cacheKey, parts, params}


@click.command()
@click.argument("first", metavar="A")
@click.argument("second", metavar="B", required=False)
@store_option
@json_option
def explain(first: str, second: str | None, store: str | None, output: str) -> None:
    """Which parts make the keys of A and B differ; of A alone: who made it and when, or why it is no hit.

    A that was tried and failed is no hit either: who ended how, and the end of each log.

    A and B are each a file, module:Class, or the cache key of a result.
    """
    backend = open_given(store)
    given = _given(first, backend)
    ones = _keyed(given, backend)
    if second is not None:
        tell_differences(ones, _keyed(_given(second, backend), backend), output, "no mode is in both")
        return
    looks = outlook(given, backend) if isinstance(given, Located) else {given.mode: Outlook(hit=given)}
    hits = {mode: look.hit for mode, look in looks.items() if look.hit is not None}
    misses = {mode: one for mode, one in ones.items() if mode not in hits}
    if output == "text":
        _tell_looks(looks, ones)
        if not misses:
            return
    nothing = "no earlier result to compare with"
    near = earlier({mode: one for mode, one in misses.items() if not looks[mode].message}, backend)
    tell_differences(misses, near, output, nothing, failed=_failed(misses, backend), hits=hits)


def _tell_looks(looks: Mapping[str, Outlook], ones: Keyed) -> None:
    for mode, look in looks.items():
        key_ = ones[mode]["cacheKey"][:12]
        if look.hit is not None:
            made = datetime.fromtimestamp(look.hit.created).strftime("%Y-%m-%d %H:%M")
            click.echo(f"{mode}  {key_} is a hit: {look.hit.name} made it, {made}, with nprocesses={look.hit.total}")
        elif look.message:
            click.echo(f"{mode}  {key_} is no hit{' yet' if look.awaits else ''}: {look.message}")


def tell_differences(
    ones: Keyed,
    others: Keyed,
    output: str,
    nothing: str,
    *,
    failed: Mapping[str, FailedAttempt] = MappingProxyType({}),
    hits: Mapping[str, Commit] = MappingProxyType({}),
) -> None:
    """Print mode by mode who failed and what differs; `nothing` where no mode is in both. hits: of -o json alone."""
    modes = {
        mode: {
            "cacheKeys": [one["cacheKey"], others[mode]["cacheKey"]],
            "differences": differences_json(_compare(one, others[mode])),
        }
        for mode, one in ones.items()
        if mode in others
    }
    if output == "json":
        failures = {mode: attempt.to_json() for mode, attempt in failed.items()}
        made = {mode: {"cacheKey": c.cache_key, "name": c.name, "created": c.created} for mode, c in hits.items()}
        shown = {"modes": modes, "failures": failures} | ({"hits": made} if hits else {})
        click.echo(json.dumps(shown, indent=2))
        return
    for mode, attempt in failed.items():
        click.echo("\n".join(f"{mode}  {line}" for line in attempt.lines()))
    if not modes:
        click.echo(nothing)
    for mode, entry in modes.items():
        one_key, other_key = (key_[:12] for key_ in entry["cacheKeys"])
        same = entry["cacheKeys"][0] == entry["cacheKeys"][1]
        click.echo(f"{mode}  {one_key} {'is' if same else 'is not'} {other_key}")
        for difference in entry["differences"]:
            click.echo(f"  {difference_text(difference)}")


def keyed(name: str, spec: ExperimentSpec) -> Keyed:
    return {
        mode: {"name": name, "cacheKey": key_, "parts": parts.to_json(), "params": dict(spec.hash_form(mode))}
        for mode, (parts, key_) in spec.keys().items()
    }


def _given(what: str, backend: Backend) -> Located | Commit:
    if is_prefix(what):
        return find_commit(backend, what)
    found = locate(what)
    if len(found) > 1:
        raise click.UsageError(f"{what} holds {len(found)} experiments; explain takes one.")
    return found[0]


def _keyed(given: Located | Commit, backend: Backend) -> Keyed:
    if isinstance(given, Located):
        return keyed(given.name, given.spec)
    manifest = read_manifest(backend, given.manifest)
    parts, params = manifest.parts, manifest.params
    return {given.mode: {"name": manifest.name, "cacheKey": given.cache_key, "parts": parts, "params": params}}


def earlier(ones: Keyed, backend: Backend) -> Keyed:
    """Of each mode the nearest earlier result in the store, where there is one."""
    found = {}
    for mode, one in ones.items():
        nearest = nearest_earlier(backend, one["name"], one["parts"], one["params"], cache_key=one["cacheKey"])
        other = probe(backend, nearest.cache_key) if nearest is not None else None
        if other is not None:
            manifest = read_manifest(backend, other[0].manifest)
            found[mode] = {"cacheKey": other[0].cache_key, "parts": manifest.parts, "params": manifest.params}
    return found


def _failed(misses: Keyed, backend: Backend) -> dict[str, FailedAttempt]:
    """By mode, of those that were tried."""
    found = {mode: newest_failure(backend, one["cacheKey"]) for mode, one in misses.items()}
    return {mode: attempt for mode, attempt in found.items() if attempt is not None}


def _compare(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[Difference]:
    return compare(other["parts"], other["params"], one["parts"], one["params"])


def differences_json(found: Iterable[Difference]) -> list[dict[str, Any]]:
    return [{"path": d.path, "first": d.first, "second": d.second} for d in found]


def difference_text(entry: Mapping[str, Any]) -> str:
    return shown_difference(Difference(entry["path"], entry["first"], entry["second"]))
