"""One experiment that is not wholly in the store, up to its results.

The loop is the controller's own, with processes in the place of pods.
"""

from __future__ import annotations

import os
import sys
import time
import uuid
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

from runonce.api.changes import point_text
from runonce.api.outcome import STOPPED_MESSAGE, Context, Outcome, Outcomes, hit
from runonce.api.progress import Progress, Screen
from runonce.api.target import Located, placed
from runonce.author.agree import check_class
from runonce.author.entry import find_class
from runonce.controller import decide as rules
from runonce.controller.reconcile import DAMAGED, ModeOf, reconcile
from runonce.errors import Damaged, InputError
from runonce.experiment.contract import CONFIGURATION, DAMAGED_INPUT, STOPPED, Input
from runonce.experiment.job import Failure, Owner, Round
from runonce.experiment.phase import Phase
from runonce.local.processes import LocalJobs
from runonce.store.backend import shard_prefix
from runonce.store.commit import DamagedCommit
from runonce.store.earlier import nearest_earlier
from runonce.store.failures import newest_failure
from runonce.store.lease import Leases

STORE_POLL_S = 1.0  # between two looks into the store while a Job runs


class Session:
    """The way of one experiment, in steps, so that several can be on their way at once. Raises InputError at once
    where its class and its spec do not agree.

    asked: the modes to run, in order. several: other experiments run in the same call, so each line says whose it is.
    """

    def __init__(
        self, located: Located, asked: Sequence[str], context: Context, screen: Screen, *, several: bool = False
    ) -> None:
        self._located, self._asked, self._context = located, asked, context
        _check(located)
        self._owner = Owner(uid=uuid.uuid4().hex, name=located.name)
        self._jobs = LocalJobs(context.settings.jobs(context.backend.url), workdir=located.workdir)
        self._leases = Leases(context.backend, self._jobs.place())
        self._progress = Progress(self._jobs, screen, located.name if several else "")
        self._anew: dict[str, str] = {}  # modes whose damaged result is made anew, with the token of the request
        self._distrusted: set[str] = set()
        self.outcomes: Outcomes = {}

    def steps(self) -> Generator[None]:
        """Every mode in its order, up to the first that fails; yields while nothing is to be done but to wait."""
        for mode in self._asked:
            outcome = yield from self._run_mode(mode)
            self.outcomes[mode] = outcome
            if outcome.phase is Phase.FAILED:
                break

    def say(self, text: str) -> None:
        self._progress.say(text)

    def stop(self) -> None:
        """Let the processes save a checkpoint; returns when they have ended."""
        self._jobs.close()
        for outcome in self.outcomes.values():
            if outcome.phase is Phase.PENDING:
                outcome.message, outcome.exit_code = STOPPED_MESSAGE, STOPPED

    def close(self) -> None:
        """End at once what still runs."""
        self._progress.close()
        self._jobs.close(hurry=True)
        self._leases.close()

    def _run_mode(self, mode: str) -> Generator[None, None, Outcome]:
        wanted = self._mode_of(mode)
        self._progress.begin(mode, wanted.job_name)
        self.outcomes[mode] = Outcome(cache_key=wanted.cache_key, phase=Phase.PENDING)
        if self._located.spec.suspend:
            message = "spec.suspend is true"
            return Outcome(cache_key=wanted.cache_key, phase=Phase.SUSPENDED, message=message, exit_code=STOPPED)
        joined = False
        while True:
            decision = reconcile(wanted, self._jobs, self._context.backend, self._leases, told=self._distrust)
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
                        self.outcomes[name] = yield from self._run_mode(name)
                    self._anew[mode] = uuid.uuid4().hex
                    return (yield from self._run_mode(mode))
                case rules.Wait(reason):
                    yield from self._wait(wanted.job_name, reason)
                case rules.Create() | rules.Replace():
                    joined = False
                    self._progress.say(self._why(wanted, decision.round))
                case rules.Join():
                    joined = True
                    self._progress.say("another run makes this result already: waiting for it")

    def _wait(self, job: str, reason: str) -> Generator[None]:
        """Until there may be something to do. While the Job runs its own record says that, and the store is spared."""
        until = time.monotonic() + STORE_POLL_S
        while True:
            self._progress.wait(reason)
            yield
            state = self._jobs.get(job)
            if state is None or state.phase != "active" or time.monotonic() >= until:
                return

    def _distrust(self, error: DamagedCommit) -> None:
        if (text := str(error)) not in self._distrusted:
            self._distrusted.add(text)
            self._progress.say(text)

    def _heal(self, mode: str, why: str) -> ModeOf:
        """Ask for the result anew, as an overwrite does: what is damaged is replaced, never served."""
        if mode in self._anew:
            raise Damaged(f"{why} It was just made anew; the store loses what it is given.")
        self._progress.say(f"the result of {mode} is damaged and is made anew: {why}")
        self._anew[mode] = f"{DAMAGED}{uuid.uuid4().hex}"
        return self._mode_of(mode)

    def _mode_of(self, mode: str) -> ModeOf:
        parts, key = self._located.keys[mode]
        inputs: dict[str, Input] | None = {}
        for name, input_key in parts.inputs.items():
            made = self.outcomes[name].commit
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
            tokens=() if token is None else (token,),
            extra_env=self._env(mode),
            quick=self._context.quick,
        )

    def _env(self, mode: str) -> dict[str, str]:
        """The worker finds the code where this process found it; what runs at once shares the cores."""
        folders = [*_own_folders(), *filter(None, [os.environ.get("PYTHONPATH")])]
        env = {"PYTHONPATH": os.pathsep.join(dict.fromkeys(folders))}
        if self._context.at_once > 1 and "OMP_NUM_THREADS" not in os.environ:
            processes = self._context.at_once * max(1, self._located.spec.shape(mode, local=True).parallelism)
            env["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // processes))
        return env

    def _why(self, wanted: ModeOf, round_: Round) -> str:
        total = wanted.wanted().total
        text = f"{total} process{'es' if total > 1 else ''}, key {wanted.cache_key[:12]}"
        if round_.attempt > 1 and self._was_tried(wanted.cache_key, round_):
            return f"attempt {round_.attempt}: {text}"
        if self._located.point:
            return f"{text}; {point_text(self._located.point)}"
        params = dict(wanted.spec.hash_form(wanted.mode))
        earlier = nearest_earlier(
            self._context.backend, wanted.name, wanted.parts.to_json(), params, cache_key=wanted.cache_key
        )
        return text if earlier is None else f"{text}; {earlier}"

    def _was_tried(self, key: str, round_: Round) -> bool:
        """Whether the store has anything of the round: the Job of a result that was removed is there still."""
        left = self._context.backend.list(shard_prefix(key, round_.round))
        return next(iter(left), None) is not None or newest_failure(self._context.backend, key) is not None

    def _failed(self, wanted: ModeOf, reason: str, failures: Sequence[Failure]) -> Outcome:
        first = failures[0]
        rank = f"process {first.index}" if first.index >= 0 else "the Job"
        code = "" if first.exit_code is None else f" (exit code {first.exit_code})"
        tail = "".join(f"\n    {line}" for line in first.log_tail.strip().splitlines()[-20:])
        self._progress.fail(f"{rank} ended with {reason}{code}{':' if tail else ''}{tail}")
        return Outcome(
            cache_key=wanted.cache_key,
            phase=Phase.FAILED,
            message=reason,
            exit_code=2 if first.exit_code == CONFIGURATION else 1,
            log_tail=first.log_tail,
        )


def _own_folders() -> Iterator[str]:
    """Where this process looks for modules before it looks among those of Python and those that are installed."""
    for folder in sys.path:
        if Path(folder).is_relative_to(sys.base_prefix):
            return
        if not Path(folder).is_relative_to(sys.prefix):
            yield os.path.abspath(folder)


def _check(located: Located) -> None:
    """What a miss needs to hold before a process is started."""
    if located.spec.config is None or located.complete:
        return
    try:
        check_class(find_class(located.spec.config), located.spec)
    except InputError as error:
        raise placed(error, located.where) from error
