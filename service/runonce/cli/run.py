"""`runonce run`: on a hit, a read of the file and of one small record; on a miss, the loop of the controller with
processes in the place of pods."""

from __future__ import annotations

import json
import os
import signal
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from runonce.cli.target import Located, locate, modules_here, target_options
from runonce.experiment.contract import CONFIGURATION, STOPPED
from runonce.experiment.key import MODES
from runonce.experiment.phase import Phase, phase_of
from runonce.settings import Settings
from runonce.store.backend import Backend
from runonce.store.commit import DamagedCommit, probe
from runonce.store.folder import FolderBackend
from runonce.store.url import open_store

if TYPE_CHECKING:
    from runonce.cli.progress import Progress
    from runonce.controller.reconcile import ModeOf
    from runonce.experiment.job import Failure
    from runonce.experiment.manifest import Commit
    from runonce.local.processes import LocalJobs

POLL_S = 0.1


@dataclass(kw_only=True)
class Outcome:
    """How one mode of one experiment ended. artifacts: folder or URL of the result."""

    cache_key: str
    phase: Phase
    cache_hit: bool = False
    artifacts: str = ""
    message: str = ""
    commit: Commit | None = None
    exit_code: int = 0

    def to_json(self) -> dict[str, Any]:
        out: dict[str, Any] = {
            "cacheKey": self.cache_key,
            "cacheHit": self.cache_hit,
            "phase": self.phase.value,
            "artifacts": self.artifacts,
        }
        if self.commit is not None:
            out["metrics"] = dict(self.commit.metrics)
        return out | ({"message": self.message} if self.message else {})


@dataclass(kw_only=True)
class Context:
    """What all experiments of one command share. overwrite: make the result anew, whatever is there."""

    settings: Settings
    backend: Backend
    overwrite: bool
    modes: Sequence[str]
    token: str = field(default_factory=lambda: uuid.uuid4().hex)


@click.command()
@target_options
@click.option("--mode", "modes", multiple=True, type=click.Choice(MODES), help="Only this mode, and what it needs.")
@click.option("--store", metavar="STORE", help="Folder of results; RUNONCE_STORE, or one of your own, if not given.")
@click.option("--overwrite", is_flag=True, help="Make the result anew.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def run(
    target: str, params: Sequence[str], modes: Sequence[str], store: str | None, overwrite: bool, output: str
) -> int:
    """Run experiments here, or take their results from the store.

    TARGET is a file, - for standard input, or module:Class. Exit code: 0 done or cached, 1 failed, 2 wrong input,
    75 stopped and resumable.
    """
    settings = Settings.from_env()
    backend = open_store(store or settings.store)
    context = Context(settings=settings, backend=backend, overwrite=overwrite, modes=modes)
    found = locate(target, params)
    for located in found:
        modules_here(located, settings.sources)
    results, code = [], 0
    for located in found:
        outcomes = run_experiment(located, context)
        code = code or max((outcome.exit_code for outcome in outcomes.values()), default=0)
        results.append(_result(located, outcomes))
        if output == "text":
            _print(located, outcomes)
        if code == STOPPED:
            break
    if output == "json":
        click.echo(json.dumps(results if len(found) > 1 else results[0], indent=2))
    return code


def run_experiment(located: Located, context: Context) -> dict[str, Outcome]:
    """Every mode in its order, up to the first that fails."""
    outcomes = cached(located, context)
    if all(mode in outcomes for mode in _asked(located, context)):
        return outcomes
    return _Session(located, context).run()


def cached(located: Located, context: Context) -> dict[str, Outcome]:
    """The modes whose results are in the store already: nothing of the author's code is needed to say so."""
    if context.overwrite or located.spec.overwrite:
        return {}
    outcomes: dict[str, Outcome] = {}
    for mode in _asked(located, context):
        parts, key = located.keys[mode]
        try:
            found = probe(context.backend, key)
        except DamagedCommit:
            break
        if found is None:
            break
        inputs = {name: made.commit.manifest for name, made in outcomes.items() if name in parts.inputs and made.commit}
        if dict(found[0].inputs) != inputs:
            break
        outcomes[mode] = hit(located, context, mode, found[0], cached=True)
    return outcomes


def _asked(located: Located, context: Context) -> list[str]:
    """The modes to run, with what they read, in order."""
    asked = set(context.modes) or set(located.spec.modes())
    unknown = asked - set(located.spec.modes())
    if unknown:
        raise click.UsageError(f"{located.name} has no mode {', '.join(sorted(unknown))}.")
    needed = {name for mode in asked for name in located.keys[mode][0].inputs}
    return [mode for mode in located.spec.modes() if mode in asked | needed]


def hit(located: Located, context: Context, mode: str, commit: Commit, *, cached: bool) -> Outcome:
    artifacts = f"{context.backend.url}#{commit.manifest}"
    if isinstance(context.backend, FolderBackend):
        from runonce.store.results import link_results

        artifacts = str(link_results(context.backend, located.name, commit))
    return Outcome(
        cache_key=commit.cache_key,
        phase=Phase.SUCCEEDED,
        cache_hit=cached,
        artifacts=artifacts,
        message=_made_with(located, mode, commit) if cached else "",
        commit=commit,
    )


def _made_with(located: Located, mode: str, commit: Commit) -> str:
    total = located.spec.shape(mode, local=True).completions
    return f"made with nprocesses={commit.total}" if total != commit.total else ""


def _result(located: Located, outcomes: dict[str, Outcome]) -> dict[str, Any]:
    phase = phase_of(outcome.phase for outcome in outcomes.values())
    modes = {mode: outcome.to_json() for mode, outcome in outcomes.items()}
    return {"name": located.name, "phase": phase.value, "modes": modes}


def _print(located: Located, outcomes: dict[str, Outcome]) -> None:
    for mode, outcome in outcomes.items():
        word = "hit" if outcome.cache_hit else outcome.phase.value.lower()
        note = f"  ({outcome.message})" if outcome.message else ""
        click.echo(f"{located.name}  {mode:5}  {word:9}  {outcome.cache_key[:12]}{note}")
        if outcome.commit is not None:
            for name, value in sorted(outcome.commit.metrics.items()):
                click.echo(f"    {name} = {value:.6g}")
            if outcome.commit.missing:
                click.echo(f"    left to the code's defaults: {', '.join(outcome.commit.missing)}")
        if outcome.artifacts:
            click.echo(f"    artifacts: {outcome.artifacts}")


class _Session:
    """The way of one experiment that is not wholly in the store."""

    def __init__(self, located: Located, context: Context) -> None:
        from runonce.cli.progress import Progress
        from runonce.experiment.job import Owner
        from runonce.local.processes import LocalJobs

        self._located, self._context = located, context
        self._missing = _check(located)
        self._owner = Owner(uid=uuid.uuid4().hex, name=located.name)
        self._jobs: LocalJobs = LocalJobs(context.settings.jobs, workdir=located.workdir)
        self._progress: Progress = Progress(self._jobs)
        self._outcomes: dict[str, Outcome] = {}

    def run(self) -> dict[str, Outcome]:
        with _Interruptible() as interrupt:
            try:
                for mode in _asked(self._located, self._context):
                    outcome = self._run_mode(mode)
                    self._outcomes[mode] = outcome
                    if outcome.phase is Phase.FAILED:
                        break
            except KeyboardInterrupt:
                self._stop(interrupt)
            finally:
                self._progress.close()
                self._jobs.close(hurry=True)
        return self._outcomes

    def _run_mode(self, mode: str) -> Outcome:
        from runonce.controller import decide as rules
        from runonce.controller.reconcile import reconcile

        wanted = self._mode_of(mode)
        self._progress.begin(mode, wanted.job_name)
        self._outcomes[mode] = Outcome(cache_key=wanted.cache_key, phase=Phase.PENDING)
        if self._located.spec.suspend:
            message = "spec.suspend is true"
            return Outcome(cache_key=wanted.cache_key, phase=Phase.SUSPENDED, message=message, exit_code=STOPPED)
        while True:
            decision = reconcile(wanted, self._jobs, self._context.backend, lambda: self._missing)
            match decision:
                case rules.Hit(commit, from_cache):
                    return hit(self._located, self._context, mode, commit, cached=from_cache)
                case rules.Skip(reason):
                    return Outcome(cache_key=wanted.cache_key, phase=Phase.SKIPPED, message=reason)
                case rules.Block(reason):
                    return Outcome(cache_key=wanted.cache_key, phase=Phase.BLOCKED, message=reason, exit_code=1)
                case rules.Fail(reason, failures):
                    return self._failed(wanted, reason, failures)
                case rules.Wait(reason):
                    self._progress.wait(reason)
                    time.sleep(POLL_S)
                case rules.Create() | rules.Replace():
                    self._progress.say(self._why(wanted, decision.round.attempt))
                case rules.Join():
                    self._progress.say("another run makes this result already: waiting for it")

    def _mode_of(self, mode: str) -> ModeOf:
        from runonce.controller.reconcile import ModeOf
        from runonce.experiment.contract import Input

        parts, key = self._located.keys[mode]
        inputs: dict[str, Input] | None = {}
        for name, input_key in parts.inputs.items():
            made = self._outcomes[name].commit
            if made is None or inputs is None:
                inputs = None
            else:
                inputs[name] = Input(cache_key=input_key, manifest=made.manifest)
        anew = self._context.overwrite or self._located.spec.overwrite
        return ModeOf(
            name=self._located.name,
            spec=self._located.spec,
            mode=mode,
            parts=parts,
            cache_key=key,
            owner=self._owner,
            store=self._context.backend.url,
            inputs=inputs,
            token=self._context.token if anew else None,
            extra_env={"PYTHONPATH": _python_path(self._located)},
        )

    def _why(self, wanted: ModeOf, attempt: int) -> str:
        from runonce.cli.look import shown_difference
        from runonce.store.earlier import nearest_earlier

        total = wanted.wanted().total
        text = f"{total} process{'es' if total > 1 else ''}, key {wanted.cache_key[:12]}"
        if attempt > 1:
            return f"attempt {attempt}: {text}"
        params = dict(wanted.spec.hash_form(wanted.mode))
        earlier = nearest_earlier(
            self._context.backend, wanted.name, wanted.parts.to_json(), params, cache_key=wanted.cache_key
        )
        if earlier is None:
            return text
        shown = "; ".join(shown_difference(difference) for difference in earlier.found[:3])
        more = f"; and {len(earlier.found) - 3} more" if len(earlier.found) > 3 else ""
        return f"{text}; nearest earlier result {earlier.cache_key[:12]}: {shown}{more}"

    def _failed(self, wanted: ModeOf, reason: str, failures: Sequence[Failure]) -> Outcome:
        first = failures[0]
        rank = f"process {first.index}" if first.index >= 0 else "the Job"
        code = "" if first.exit_code is None else f" (exit code {first.exit_code})"
        tail = "".join(f"\n    {line}" for line in first.log_tail.strip().splitlines()[-20:])
        click.echo(f"error: {wanted.mode}: {rank} ended with {reason}{code}{':' if tail else ''}{tail}", err=True)
        return Outcome(
            cache_key=wanted.cache_key,
            phase=Phase.FAILED,
            message=reason,
            exit_code=2 if first.exit_code == CONFIGURATION else 1,
        )

    def _stop(self, interrupt: _Interruptible) -> None:
        """Let the processes save a checkpoint; a second interrupt ends them at once."""
        self._progress.say("stopping after a checkpoint; once more to stop at once")
        try:
            self._jobs.close()
        except KeyboardInterrupt:
            interrupt.ignore()
            self._jobs.close(hurry=True)
        for outcome in self._outcomes.values():
            if outcome.phase is Phase.PENDING:
                outcome.message, outcome.exit_code = "stopped; run again to go on", STOPPED


def _check(located: Located) -> tuple[str, ...]:
    """What a miss needs to hold before a process is started; returns the fields left to the code's defaults."""
    if located.spec.config is None or located.complete:
        return ()
    from runonce.author.agree import check_class, missing_fields
    from runonce.author.entry import find_class
    from runonce.errors import Fault, InputError

    try:
        return missing_fields(check_class(find_class(located.spec.config), located.spec), located.spec)
    except InputError as error:
        faults = (Fault(f"{located.where}: {f.path}" if f.path else located.where, f.what, f.fix) for f in error.faults)
        raise type(error)(*faults, reason=error.reason) from error


def _python_path(located: Located) -> str:
    """The worker finds the code where this process found it."""
    import sys

    own = [sys.path[0], *([sys.path[1]] if Path(sys.path[1]).is_dir() else [])]
    return os.pathsep.join([*own, *filter(None, [os.environ.get("PYTHONPATH")])])


class _Interruptible:
    """SIGTERM as Ctrl-C: whoever stops a run wants its checkpoint."""

    def __enter__(self) -> _Interruptible:
        self._before: Callable[[int, FrameType | None], Any] | int | None = signal.getsignal(signal.SIGTERM)
        signal.signal(signal.SIGTERM, _interrupt)
        return self

    def ignore(self) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._before)


def _interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt
