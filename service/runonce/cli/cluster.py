"""Commands on Experiments of a cluster, by name; `-n` and `--context` mean what they mean to kubectl."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runonce.cli.chosen import mode_option
from runonce.cli.context import Place, cluster_options
from runonce.cli.options import json_option
from runonce.cli.text import part_text, table
from runonce.errors import InputError, StoreError
from runonce.experiment.key import MODES
from runonce.experiment.status import ModeStatus, Status

if TYPE_CHECKING:
    from runonce.cli.explain import Keyed
    from runonce.kube.objects import ExperimentObject
    from runonce.kube.transport import Api

store_option = click.option("--store", metavar="STORE", help="URL; the store that the cluster names, if not given.")


@click.group()
def cluster() -> None:
    """What is on a cluster: ls, show, explain, logs, pull."""


@cluster.command("ls")
@click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="Those of all namespaces.")
@cluster_options
@json_option
def list_(everywhere: bool, place: Place, output: str) -> None:
    """The Experiments of a namespace."""
    api, where = place.connect()

    from runonce.api.cluster import list_all, status_of

    found = [(one, status_of(one)) for one in list_all(api, "" if everywhere else where)]
    if output == "json":
        listed = [status_json(one.metadata.name, status, one.metadata.namespace) for one, status in found]
        click.echo(json.dumps(listed, indent=2))
        return
    rows = [_row(one, status, everywhere) for one, status in found]
    if rows:
        head = ("NAME", "MODE", "PHASE", "KEY", "MESSAGE")
        click.echo(table(("NAMESPACE", *head) if everywhere else head, rows))
    else:
        click.echo(f"no Experiments in {'the cluster' if everywhere else f'namespace {where}'}", err=True)


def _row(one: ExperimentObject, status: Status, everywhere: bool) -> tuple[str, ...]:
    row = one.metadata.name, status.mode, word(status), status.key, status.message
    return (one.metadata.namespace, *row) if everywhere else row


@cluster.command()
@click.argument("name")
@click.option("--follow", "following", is_flag=True, help="Go on until it has ended.")
@cluster_options
@json_option
def show(name: str, following: bool, place: Place, output: str) -> int:
    """Where an Experiment stands, mode by mode, and why.

    Exit code with --follow: 0 succeeded or cached, 1 failed.
    """
    api, where = place.connect()

    from runonce.api.cluster import find_one, follow, status_of

    found = find_one(api, where, name)
    status = follow(api, where, [found], tell)[name] if following else status_of(found)
    if output == "json":
        click.echo(json.dumps(status_json(name, status, where), indent=2))
    else:
        _show(name, status)
        _show_code(found)
    return exit_code([status]) if following else 0


def _show_code(found: ExperimentObject) -> None:
    version = found.document()["spec"].get("codeVersion")
    if version is not None:
        click.echo(f"  code: {part_text('codeVersion', version)}")


def _show(name: str, status: Status) -> None:
    click.echo(f"{name}  {status.phase}  {status.message}".rstrip())
    for mode in MODES:
        one = getattr(status.modes, mode)
        if one is not None:
            _show_mode(mode, one)
    for condition in status.conditions:
        click.echo(f"  {condition.type}={condition.status}  {condition.reason}  {condition.message}".rstrip())
    for entry in status.history:
        click.echo(f"  earlier: {entry.mode}  {entry.phase.lower()}  {entry.cache_key[:12]}  {entry.end_time}")


@cluster.command()
@click.argument("name")
@click.argument("other", required=False)
@store_option
@cluster_options
@json_option
def explain(
    name: str,
    other: str | None,
    store: str | None,
    place: Place,
    output: str,
) -> None:
    """Which parts make the keys of two Experiments differ; of one alone: why it was no hit.

    Alone it is compared with the nearest earlier result in the store. What was tried and failed: who ended how, and
    the end of each log.
    """
    api, where = place.connect()

    from runonce.api.cluster import find_one
    from runonce.cli.explain import keyed, tell_differences
    from runonce.experiment.spec import parse_experiment

    def read(one: str) -> tuple[ExperimentObject, Keyed]:
        found = find_one(api, where, one)
        return found, keyed(one, parse_experiment(found.document()).spec)

    found, ones = read(name)
    if other is not None:
        tell_differences(ones, read(other)[1], output, "no mode is in both")
    else:
        _explain_misses(api, found, ones, store, output)


def _explain_misses(api: Api, found: ExperimentObject, ones: Keyed, store: str | None, output: str) -> None:
    from runonce.api.cluster import failed_modes, list_all, status_of, store_url
    from runonce.cli.explain import earlier, tell_differences
    from runonce.settings import Settings
    from runonce.store.url import open_yours

    name, where, status = found.metadata.name, found.metadata.namespace, status_of(found)
    hits = {mode for mode in ones if _was_hit(getattr(status.modes, mode))}
    for mode in hits:
        click.echo(f"{mode}: {name} is a hit", err=True)
    misses = {mode: one for mode, one in ones.items() if mode not in hits}
    url = store or store_url(status, (status_of(one) for one in list_all(api, where)))
    unknown = f"no Experiment in namespace {where} has a result, so it is not known where the store is."
    if url:
        try:
            backend = open_yours(Settings.from_env(), url)
            near, failed = earlier(misses, backend), failed_modes(name, status, backend)
        except StoreError as error:
            unknown = str(error)  # a name that only pods can resolve, say
        else:
            tell_differences(misses, near, output, "no earlier result to compare with", failed=failed)
            return
    failed = failed_modes(name, status, None)
    if not failed:
        raise InputError.of("", unknown, "Give --store URL, or a second Experiment to compare with.")
    tell_differences(misses, {}, output, f"{unknown} Give --store URL to compare with others.", failed=failed)


def _was_hit(one: ModeStatus | None) -> bool:
    return one is not None and bool(one.cache_hit)


@cluster.command()
@click.argument("name")
@click.argument("folder", required=False, type=click.Path(file_okay=False, path_type=Path))
@mode_option
@store_option
@cluster_options
@json_option
def pull(
    name: str,
    folder: Path | None,
    modes: Sequence[str],
    store: str | None,
    place: Place,
    output: str,
) -> None:
    """Write the results of an Experiment into FOLDER, every byte verified.

    Without FOLDER each mode gets one of its own here, <name>-<mode>-<digits of the key>.
    """
    api, where = place.connect()

    from runonce.api.cluster import commit_of, find_one, status_of
    from runonce.cli.keep import write_files

    status = status_of(find_one(api, where, name))
    there = {mode: one for mode in MODES if (one := getattr(status.modes, mode)) is not None and one.artifacts}
    chosen = list(modes) or list(there)
    if not chosen:
        said = f": {status.message}" if status.message else "."
        raise InputError.of(
            "", f"{name} has no result, it is {status.phase}{said}", f"See `runonce cluster show {name}`."
        )
    results = [commit_of(name, mode, getattr(status.modes, mode), store or "") for mode in chosen]
    write_files(results, name, folder, output)


@cluster.command()
@click.argument("name")
@click.option("--mode", type=click.Choice(MODES), help="The mode that the status speaks of, if not given.")
@click.option("--index", type=int, default=0, show_default=True, help="Which process.")
@click.option("-f", "--follow", "following", is_flag=True, help="Go on as lines come.")
@cluster_options
def logs(
    name: str,
    mode: str | None,
    index: int,
    following: bool,
    place: Place,
) -> None:
    """What a process of an Experiment writes; of one whose pod is gone, the end that its failure kept."""
    api, where = place.connect()

    from runonce.api.cluster import find_one, log_lines, status_of

    status = status_of(find_one(api, where, name))
    one = getattr(status.modes, mode or status.mode or "train")
    if one is None or not one.job_uid:
        raise InputError.of("", f"{name} has no Job: {status.phase}.", f"See `runonce cluster show {name}`.")
    for line in log_lines(api, where, one, index, following=following):
        click.echo(line)


def _show_mode(mode: str, one: ModeStatus) -> None:
    word = "hit" if one.cache_hit else one.phase.lower()
    click.echo(f"  {mode:5}  {word:9}  {one.cache_key[:12]}  {one.message}".rstrip())
    if one.job:
        click.echo(f"    Job {one.job}, attempt {one.attempt}, {one.succeeded} of {one.total} processes done")
    if one.failure is not None:
        code = "" if one.failure.exit_code is None else f", exit code {one.failure.exit_code}"
        who = f"process {one.failure.index}" if one.failure.index >= 0 else "the Job"
        click.echo(f"    attempt {one.failure.attempt}: {who} {one.failure.reason}{code}")
        for line in one.failure.log_tail.strip().splitlines()[-20:]:
            click.echo(f"      {line}")
    if one.artifacts:
        click.echo(f"    artifacts: {one.artifacts}")


def tell(name: str, status: Status) -> None:
    mode = f"  {status.mode}" if status.mode else ""
    click.echo(f"{name}{mode}  {status.phase}  {status.message}".rstrip(), err=True)


def word(status: Status) -> str:
    return "hit" if status.cached else status.phase.lower()


def exit_code(ended: Iterable[Status]) -> int:
    """0: all succeeded, 1: one did not, 75: one has not ended."""
    phases = {status.phase for status in ended}
    if phases & {"Failed", "Blocked"}:
        return 1
    return 0 if phases <= {"Succeeded"} else 75


def status_json(name: str, status: Status, namespace: str) -> dict[str, Any]:
    """As `run -o json` gives it, and the namespace: of each mode cacheKey, cacheHit, phase, artifacts."""
    modes = {}
    for mode in MODES:
        one = getattr(status.modes, mode)
        if one is not None:
            modes[mode] = {
                "cacheKey": one.cache_key,
                "cacheHit": bool(one.cache_hit),
                "phase": one.phase,
                "artifacts": one.artifacts,
            } | ({"message": one.message} if one.message else {})
    return {"name": name, "namespace": namespace, "phase": status.phase, "modes": modes}
