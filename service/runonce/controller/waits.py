"""Why processes that are due do not run, and when to look again: what a Job does not say, its pods and events may."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from runonce.controller.decide import Wait
from runonce.controller.size import clip
from runonce.experiment.job import JobState, Owner
from runonce.kube.jobs import KubeJobs

PODS_AFTER_S = 5.0  # pods that are not there by then were refused, and those that do not run by then are asked why
ASK_EVERY_S = 10.0
ENDING_AFTER_S = 5.0  # a Job that takes longer to go is spoken of
HELD_AFTER_S = 30.0  # and the pods by name that keep it from that
POLL_S = 30.0  # where nothing that is watched would tell
MOMENT_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """What a pass that waits makes of it. passing: it lasts a moment, and is not worth a write. refused: with back-off.

    why: what to say, the decision itself where nothing more is known. again_s: when to look again at the latest.
    """

    why: Wait
    again_s: float | None = None
    passing: bool = False
    refused: bool = False

    def by(self, seconds: float) -> Waiting:
        return replace(self, again_s=seconds if self.again_s is None else min(self.again_s, seconds))


class Waits:
    """What is waited for, over all passes: since when, and what was found when it was last asked for."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: dict[str, float] = {}  # uid of a Job, or its name
        self._asked: dict[str, tuple[float, Wait | None]] = {}  # uid of a Job

    def seconds(self, what: str) -> float:
        """Since this was first asked of it, or since `over`."""
        now = self._clock()
        return now - self._since.setdefault(what, now)

    def for_start_s(self, job: JobState, *, now: float, ran: bool) -> float:
        """How long its pods have been due, and none runs. now: Unix time by the clock that dates Jobs.

        ran: some did before. Since when they do not is told by nobody, so it is what was seen of it here.
        """
        if not job.started or job.ready or job.succeeded or job.suspended:
            self._over(f"start {job.uid}")
            return 0.0
        seen_s, due_s = self.seconds(f"start {job.uid}"), now - datetime.fromisoformat(job.started).timestamp()
        return min(seen_s, due_s) if ran else due_s

    def over(self, uid: str, *names: str) -> None:
        """Nothing of this Job is waited for any more."""
        self._over(uid, f"start {uid}", f"held {uid}", *names)

    def _over(self, *what: str) -> None:
        for one in what:
            self._since.pop(one, None)
            self._asked.pop(one, None)

    def look(
        self,
        jobs: KubeJobs,
        owner: Owner,
        decision: Wait,
        job: JobState | None,
        there: JobState | None,
        *,
        name: str,
        deadline_s: int | None,
        ran: bool,
    ) -> Waiting:
        """job: where this owner has a part in it. there: whoever's it is. name: of the Job, there or not, with its
        namespace. deadline_s: how long its processes may take to start. ran: the status says that they run.
        """
        found = self._held(Waiting(why=decision), jobs, there)
        if decision.cause == "Ending":
            found = replace(found, passing=self.seconds(name) < ENDING_AFTER_S)
        else:
            self._over(name)
        if decision.cause == "Moved":
            found = replace(found, passing=True)
        if job is not None and job.phase == "active" and len(job.succeeded) == job.completions:
            return replace(found, passing=self.seconds(job.uid) < ENDING_AFTER_S).by(ENDING_AFTER_S)  # ends in a moment
        if job is None or job.phase != "active":
            moment = decision.cause in ("Ending", "Moved", "Running")
            poll_s = ENDING_AFTER_S if decision.cause == "WaitingForPods" else POLL_S  # no pods are watched
            return replace(found, refused=decision.cause == "JobRefused").by(MOMENT_S if moment else poll_s)
        if decision.cause == "OtherCluster":
            found = found.by(POLL_S)  # whose result nothing here would tell of
        if deadline_s is not None and not job.ready:
            found = found.by(min(POLL_S, deadline_s))
        return self._idle(found, jobs, owner, job, ran=ran)

    def _idle(self, found: Waiting, jobs: KubeJobs, owner: Owner, job: JobState, *, ran: bool) -> Waiting:
        """Nothing more where processes run, or are still given time; those that have ended are counted in a moment."""
        if job.failing or job.suspended or not (job.missing or job.ready < job.active):
            self._over(job.uid)
            return found
        found = replace(
            found, passing=found.passing or (ran and not job.ready and self.seconds(job.uid) < PODS_AFTER_S)
        )
        return self._ask(found, job.uid, PODS_AFTER_S, lambda since_s: _stuck(jobs, owner, job, since_s))

    def _held(self, found: Waiting, jobs: KubeJobs, job: JobState | None) -> Waiting:
        """Nothing more where no pod keeps the Job from its end, or from another pod, or not for long."""
        if job is None:
            return found
        if not (job.failing or job.terminating or job.phase == "ending"):
            self._over(f"held {job.uid}")
            return found
        return self._ask(found, f"held {job.uid}", HELD_AFTER_S, lambda _: _who(jobs, job))

    def _ask(self, found: Waiting, what: str, after_s: float, ask: Callable[[float], Wait | None]) -> Waiting:
        since_s = self.seconds(what)
        if since_s < after_s:
            return found.by(after_s)
        now = self._clock()
        when, known = self._asked.get(what, (None, None))
        if when is None or now - when >= ASK_EVERY_S:
            known = ask(since_s)
            self._asked[what] = now, known
        return (found if known is None else replace(found, why=known)).by(POLL_S)


def _who(jobs: KubeJobs, job: JobState) -> Wait | None:
    """A node that went away without a word keeps its pods, and they their Job."""
    pods = jobs.held_by(job)
    more = f" (and {len(pods) - 1} more)" if len(pods) > 1 else ""
    return Wait(clip(f"waits for pod {pods[0]}{more}"), "WaitingForPods") if pods else None


def _stuck(jobs: KubeJobs, owner: Owner, job: JobState, since_s: float) -> Wait | None:
    """Why pods are not there, or do not run; they may run slowly, and then nobody says anything."""
    if job.missing:
        return _refused(jobs, owner, job, since_s)
    waiting = jobs.waiting(job)
    return Wait(clip(waiting[1]), waiting[0]) if waiting is not None else None


def _refused(jobs: KubeJobs, owner: Owner, job: JobState, since_s: float) -> Wait | None:
    why = jobs.refusal(job)
    if why:
        return Wait(clip(why), "PodsRefused")
    if since_s < POLL_S or not jobs.is_closing():
        return None
    # A namespace ends its pods before its Jobs (Kubernetes 1.34), and a Job with retries for each index holds its
    # last pod until there is another, which there can never be: both would wait for ever.
    jobs.leave(job.name, owner, uid=job.uid)
    return Wait("its namespace is being deleted", "NamespaceEnding")
