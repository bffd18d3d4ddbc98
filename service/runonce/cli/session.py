"""The long way of `runonce run`: read the target in full, and run what is not in the store.

The loop is the controller's own, with processes in the place of pods.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import click

from runonce.author.agree import check_class, missing_fields
from runonce.author.entry import find_class
from runonce.cli import known
from runonce.cli.explain import shown_difference
from runonce.cli.options import read_target
from runonce.cli.progress import Progress
from runonce.cli.run import Context, Outcome, Outcomes, cached, hit
from runonce.cli.target import Located, locate, modules_here
from runonce.controller import decide as rules
from runonce.controller.reconcile import ModeOf, reconcile
from runonce.errors import Damaged, Fault, InputError
from runonce.experiment.contract import CONFIGURATION, DAMAGED_INPUT, STOPPED, Input
from runonce.experiment.job import Failure, Owner
from runonce.experiment.phase import Phase
from runonce.local.processes import LocalJobs
from runonce.store.earlier import nearest_earlier
from runonce.store.lease import Leases

POLL_S = 0.1


def run_target(target: str, params: Sequence[str], context: Context) -> list[tuple[str, Outcomes]]:
    """Every experiment of the target, in order, up to one that is stopped; all are checked before one is run."""
    found = locate(target, params)
    for located in found:
        modules_here(located, context.settings.sources)
        _asked(located, context)
    results = []
    for located in found:
        outcomes = run_experiment(located, context)
        results.append((located.name, outcomes))
        if any(outcome.exit_code == STOPPED for outcome in outcomes.values()):
            break
    if not params and Path(target).is_file():
        known.keep(context.settings.known, read_target(target)[0], found)
    return results


def run_experiment(located: Located, context: Context) -> Outcomes:
    """Every mode in its order, up to the first that fails."""
    asked = _asked(located, context)
    if not context.overwrite and not located.spec.overwrite:
        keys = {mode: (located.keys[mode][1], tuple(located.keys[mode][0].inputs)) for mode in asked}
        outcomes = cached(located.name, keys, _totals(located), context)
        if len(outcomes) == len(asked):
            return outcomes
    return _Session(located, context).run()


def _asked(located: Located, context: Context) -> list[str]:
    return context.asked(located.name, {mode: tuple(parts.inputs) for mode, (parts, _) in located.keys.items()})


def _totals(located: Located) -> dict[str, int]:
    return {mode: located.spec.shape(mode, local=True).completions for mode in located.spec.modes()}


class _Session:
    """The way of one experiment that is not wholly in the store."""

    def __init__(self, located: Located, context: Context) -> None:
        self._located, self._context = located, context
        self._missing = _check(located)
        self._owner = Owner(uid=uuid.uuid4().hex, name=located.name)
        self._jobs = LocalJobs(context.settings.jobs, workdir=located.workdir)
        self._leases = Leases(context.backend, self._jobs.place())
        self._progress = Progress(self._jobs)
        self._outcomes: Outcomes = {}
        self._anew: dict[str, str] = {}  # modes whose damaged result is made anew, with the token of the request

    def run(self) -> Outcomes:
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
                self._leases.close()
        return self._outcomes

    def _run_mode(self, mode: str) -> Outcome:
        wanted = self._mode_of(mode)
        self._progress.begin(mode, wanted.job_name)
        self._outcomes[mode] = Outcome(cache_key=wanted.cache_key, phase=Phase.PENDING)
        if self._located.spec.suspend:
            message = "spec.suspend is true"
            return Outcome(cache_key=wanted.cache_key, phase=Phase.SUSPENDED, message=message, exit_code=STOPPED)
        joined = False
        while True:
            decision = reconcile(wanted, self._jobs, self._context.backend, self._leases, lambda: self._missing)
            match decision:
                case rules.Hit(commit, from_cache):
                    try:
                        total = wanted.wanted().total
                        return hit(self._located.name, total, commit, self._context, cached=from_cache or joined)
                    except Damaged as error:
                        wanted = self._heal(mode, str(error))
                case rules.Skip(reason):
                    return Outcome(cache_key=wanted.cache_key, phase=Phase.SKIPPED, message=reason)
                case rules.Block(reason):
                    return Outcome(cache_key=wanted.cache_key, phase=Phase.BLOCKED, message=reason, exit_code=1)
                case rules.Fail(reason, failures):
                    if not any(failure.exit_code == DAMAGED_INPUT for failure in failures) or mode in self._anew:
                        return self._failed(wanted, reason, failures)
                    for name in wanted.parts.inputs:
                        self._heal(name, failures[0].log_tail.strip())
                        self._outcomes[name] = self._run_mode(name)
                    self._anew[mode] = uuid.uuid4().hex
                    return self._run_mode(mode)
                case rules.Wait(reason):
                    self._progress.wait(reason)
                    time.sleep(POLL_S)
                case rules.Create() | rules.Replace():
                    joined = False
                    self._progress.say(self._why(wanted, decision.round.attempt))
                case rules.Join():
                    joined = True
                    self._progress.say("another run makes this result already: waiting for it")

    def _heal(self, mode: str, why: str) -> ModeOf:
        """Ask for the result anew, as an overwrite does: what is damaged is replaced, never served."""
        if mode in self._anew:
            raise Damaged(f"{why} It was just made anew; the store loses what it is given.")
        self._progress.say(f"the result of {mode} is damaged and is made anew: {why}")
        self._anew[mode] = uuid.uuid4().hex
        return self._mode_of(mode)

    def _mode_of(self, mode: str) -> ModeOf:
        parts, key = self._located.keys[mode]
        inputs: dict[str, Input] | None = {}
        for name, input_key in parts.inputs.items():
            made = self._outcomes[name].commit
            if made is None or inputs is None:
                inputs = None
            else:
                inputs[name] = Input(cache_key=input_key, manifest=made.manifest)
        anew = self._context.overwrite or self._located.spec.overwrite
        token = self._anew.get(mode, self._context.token if anew else None)
        return ModeOf(
            name=self._located.name,
            spec=self._located.spec,
            mode=mode,
            parts=parts,
            cache_key=key,
            owner=self._owner,
            store=self._context.backend.url,
            inputs=inputs,
            token=token,
            extra_env={"PYTHONPATH": _python_path(self._located)},
        )

    def _why(self, wanted: ModeOf, attempt: int) -> str:
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
    try:
        return missing_fields(check_class(find_class(located.spec.config), located.spec), located.spec)
    except InputError as error:
        faults = (Fault(f"{located.where}: {f.path}" if f.path else located.where, f.what, f.fix) for f in error.faults)
        raise type(error)(*faults, reason=error.reason) from error


def _python_path(located: Located) -> str:
    """The worker finds the code where this process found it."""
    return os.pathsep.join([*sys.path[:2], *filter(None, [os.environ.get("PYTHONPATH")])])


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
