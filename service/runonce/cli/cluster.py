"""Commands on Experiments of a cluster; `-n` and `--context` mean what they mean to kubectl."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from runonce.api.target import locate, prove_all
from runonce.cli.options import grid_option, json_option, target_options
from runonce.errors import CodeError, InputError
from runonce.experiment.key import MODES
from runonce.experiment.status import ModeStatus, Status
from runonce.settings import Settings

if TYPE_CHECKING:
    from runonce.kube.transport import Api


def cluster_options(command: Any) -> Any:
    """--context, --kubeconfig and -n, as kubectl has them."""
    for option in (
        click.option("-n", "--namespace", help="Namespace; that of the context, if not given."),
        click.option("--kubeconfig", type=click.Path(), help="File; KUBECONFIG, or ~/.kube/config, if not given."),
        click.option("--context", help="Context of the kubeconfig; the current one, if not given."),
    ):
        command = option(command)
    return command


@click.command()
@target_options
@grid_option
@cluster_options
@click.option("--with-source", is_flag=True, help="Send the code along, for images that do not have it; needs --store.")
@click.option(
    "--store", help="With --with-source: URL of the store that the cluster's pods use; RUNONCE_STORE, if not given."
)
@click.option("--wait", is_flag=True, help="Follow them until all have ended.")
@click.option("--timeout", type=float, metavar="SECONDS", help="With --wait: no longer than that.")
@json_option
def submit(
    target: str,
    params: Sequence[str],
    grid: Sequence[str],
    context: str | None,
    kubeconfig: str | None,
    namespace: str | None,
    with_source: bool,
    store: str | None,
    wait: bool,
    timeout: float | None,
    output: str,
) -> int:
    """Hand experiments to a cluster, by server-side apply.

    All fields and the version of the code that is here are written. Exit code with --wait: 0 succeeded or cached, 1
    failed, 75 not ended in time.
    """
    from runonce.api.cluster import follow, send_code, submit_all

    found = locate(target, params, grid)
    provable = [located for located in found if located.spec.code_version != "image"]
    prove_all(provable, Settings.from_env().sources)
    for located in found:
        if located.spec.code_version is None:  # filled in by `locate`, but for what has no code here
            raise CodeError.of("spec.codeVersion", "is missing.", "Give label:<text> or image.")
    if with_source:
        url = store or Settings.from_env().store
        if not url.startswith("s3://"):
            fix = "Give --store s3://bucket/prefix, as the administrator's file has it."
            raise InputError.of(
                "--with-source", f"would keep the code in {url}, which no pod of a cluster reaches.", fix
            )
        send_code(found, url)
    api, where = _connect(context, kubeconfig, namespace)
    submitted = submit_all(found, api, where)
    if output == "text":
        for one in submitted:
            click.echo(f"{one.metadata.namespace}/{one.metadata.name}  submitted", err=wait)
    if not wait:
        if output == "json":
            click.echo(json.dumps([one.metadata.name for one in submitted], indent=2))
        return 0
    last = follow(api, where, submitted, _tell, timeout_s=timeout)
    return _finish(last, [one.metadata.name for one in submitted], output)


@click.group()
def cluster() -> None:
    """What is on a cluster: ls, show, logs."""


@cluster.command("ls")
@cluster_options
@json_option
def list_(context: str | None, kubeconfig: str | None, namespace: str | None, output: str) -> None:
    """The Experiments of a namespace."""
    from runonce.api.cluster import list_all, status_of

    api, where = _connect(context, kubeconfig, namespace)
    found = {one.metadata.name: status_of(one) for one in list_all(api, where)}
    if output == "json":
        click.echo(json.dumps([status_json(name, status) for name, status in found.items()], indent=2))
        return
    width = max(map(len, found), default=0)
    for name, status in found.items():
        word = "hit" if status.cached else status.phase.lower()
        click.echo(f"{name:{width}}  {status.mode:5}  {word:9}  {status.key:12}  {status.message}".rstrip())


@cluster.command()
@click.argument("name")
@cluster_options
@json_option
def show(name: str, context: str | None, kubeconfig: str | None, namespace: str | None, output: str) -> None:
    """Where an Experiment stands, mode by mode, and why."""
    from runonce.api.cluster import find_one, status_of

    api, where = _connect(context, kubeconfig, namespace)
    status = status_of(find_one(api, where, name))
    if output == "json":
        click.echo(json.dumps(status_json(name, status), indent=2))
        return
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
@click.option("--mode", type=click.Choice(MODES), help="The mode that the status speaks of, if not given.")
@click.option("--index", type=int, default=0, show_default=True, help="Which process.")
@click.option("-f", "--follow", "following", is_flag=True, help="Go on as lines come.")
@cluster_options
def logs(
    name: str,
    mode: str | None,
    index: int,
    following: bool,
    context: str | None,
    kubeconfig: str | None,
    namespace: str | None,
) -> None:
    """What a process of an Experiment writes; of one whose pod is gone, the end that its failure kept."""
    from runonce.api.cluster import find_one, log_lines, status_of

    api, where = _connect(context, kubeconfig, namespace)
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
        click.echo(f"    attempt {one.failure.attempt}: process {one.failure.index} {one.failure.reason}{code}")
        for line in one.failure.log_tail.strip().splitlines()[-20:]:
            click.echo(f"      {line}")
    if one.artifacts:
        click.echo(f"    artifacts: {one.artifacts}")


def _connect(context: str | None, kubeconfig: str | None, namespace: str | None) -> tuple[Api, str]:
    from runonce.kube.transport import Api

    api = Api.connect(context=context, kubeconfig=kubeconfig)
    return api, namespace or api.namespace


def _tell(name: str, status: Status) -> None:
    mode = f"  {status.mode}" if status.mode else ""
    click.echo(f"{name}{mode}  {status.phase}  {status.message}".rstrip(), err=True)


def _finish(last: Mapping[str, Status], names: Sequence[str], output: str) -> int:
    ended = {name: last.get(name, Status()) for name in names}
    if output == "json":
        click.echo(json.dumps([status_json(name, status) for name, status in ended.items()], indent=2))
    else:
        for name, status in ended.items():
            word = "hit" if status.cached else status.phase.lower()
            click.echo(f"{name}  {word:9}  {status.key}  {status.message}".rstrip())
    if any(status.phase in ("Failed", "Blocked") for status in ended.values()):
        return 1
    return 0 if all(status.phase == "Succeeded" for status in ended.values()) else 75


def status_json(name: str, status: Status) -> dict[str, Any]:
    """As `run -o json` gives it: name, phase, and of each mode cacheKey, cacheHit, phase, artifacts."""
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
    return {"name": name, "phase": status.phase, "modes": modes}
