"""One pass over one Experiment of the cluster: read it, reconcile its modes in order, write its status once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from runonce.controller import decide as rules
from runonce.controller.modes import Modes
from runonce.controller.reconcile import DAMAGED, ModeOf, machine_digest
from runonce.controller.size import clip
from runonce.controller.status import Subject, View, mode_phase, rejection
from runonce.controller.world import Next, World
from runonce.controller.written import Written
from runonce.errors import InputError, JobGone, NotFound, StoreError
from runonce.experiment.contract import DAMAGED_INPUT, Input
from runonce.experiment.job import Owner, job_name
from runonce.experiment.phase import Phase
from runonce.experiment.spec import RERUN, ExperimentSpec, parse_experiment
from runonce.experiment.status import ModeStatus
from runonce.kube.objects import ExperimentObject


def look(key: str, world: World) -> Next:
    """Whatever there is to do for `namespace/name`."""
    found = world.experiments.get(key)
    if found is None or found.metadata.deletion_timestamp:
        return Next()  # owner references take the Job along
    world.count("passes")
    try:
        return _Pass(found, world).run()
    except NotFound:
        return Next()  # it went meanwhile


class _Pass:
    def __init__(self, found: ExperimentObject, world: World) -> None:
        self._found, self._world = found, world
        meta = found.metadata
        self._owner = Owner(uid=meta.uid, name=meta.name)
        self._jobs = world.jobs(meta.namespace)
        self._written = Written(found, world)
        self._modes = Modes(found, self._owner, world, self._written)

    def run(self) -> Next:
        if self._settled():
            return Next()
        try:
            spec = parse_experiment(self._found.document()).spec
            self._world.cluster.check(spec)
            keys = spec.keys()
        except InputError as error:
            self._leave_all_but(())
            self._write(self._written.subject("", rejection(error), rejected=True), ())
            return Next(failed=self._modes.failed)
        subject = self._written.subject(spec.digest(), modes=tuple(keys))
        views: list[View] = []
        trouble, why = "", ""
        try:
            self._leave_all_but({job_name(spec.config or "command", mode, key) for mode, (_, key) in keys.items()})
            views = self._in_order(spec, keys)
        except (StoreError, InputError) as error:  # the latter where its URL leads to no store
            why = error.reason if isinstance(error, StoreError) else "StoreError"
            trouble, self._modes.failed = clip(str(error)), True
        subject = replace(subject, trouble=trouble, trouble_reason=why, accepted=self._accepted(spec, keys, views))
        self._write(subject, views)
        return Next(after_s=self._modes.after_s, failed=self._modes.failed)

    def _settled(self) -> bool:
        """Done, and nothing that was asked for or read has changed since."""
        status, meta = self._written.before, self._found.metadata
        if status.phase not in ("Succeeded", "Failed") or status.observed_generation != meta.generation:
            return False
        accepted = next((condition for condition in status.conditions if condition.type == "Accepted"), None)
        if status.rerun != clip(meta.annotations.get(RERUN, ""), 256) or accepted is None or accepted.status != "True":
            return False  # what was refused may be allowed by another configuration
        if any(condition.type == "Reconciling" for condition in status.conditions):
            return False  # the store did not answer
        train = status.modes.train
        return train is None or not train.manifest or self._newest(train) == train.manifest

    def _newest(self, train: ModeStatus) -> str:
        return self._world.manifests.get(train.cache_key, train.manifest)

    def _leave_all_but(self, names: Collection[str]) -> None:
        """Jobs of an earlier spec lose this owner; the last one out ends them."""
        for state in self._jobs.owned(self._owner):
            if state.name not in names and state.phase != "ending":
                try:
                    self._jobs.leave(state.name, self._owner, uid=state.uid)
                except JobGone:
                    self._modes.failed = True

    def _in_order(self, spec: ExperimentSpec, keys: dict[str, tuple[Any, str]]) -> list[View]:
        """In their order, up to the first that is not done."""
        views: list[View] = []
        made: dict[str, Input] = {}
        for mode, (parts, key) in keys.items():
            inputs = {name: made[name] for name in parts.inputs if name in made}
            wanted = self._modes.wanted(spec, mode, parts, key, inputs if len(inputs) == len(parts.inputs) else None)
            view = self._modes.look(wanted)
            if views and _can_heal(view, views[0]):
                return self._heal(spec, keys, view, wanted, views)
            views.append(view)
            if isinstance(view.decision, rules.Hit):
                made[mode] = Input(cache_key=key, manifest=view.decision.commit.manifest)
            elif mode_phase(view) is not Phase.SKIPPED:
                break
        return views

    def _heal(
        self, spec: ExperimentSpec, keys: dict[str, tuple[Any, str]], view: View, wanted: ModeOf, views: Sequence[View]
    ) -> list[View]:
        """A worker found its input damaged: train is made anew, once for the Job that says so, then its own mode."""
        parts, key = keys["train"]
        token = f"{DAMAGED}{view.job.uid}" if view.job is not None else ""
        train = self._modes.wanted(spec, "train", parts, key, {})
        healed = self._modes.look(replace(train, tokens=(*train.tokens, token)))
        if not isinstance(healed.decision, rules.Hit):
            return [healed]
        inputs = {**(wanted.inputs or {}), "train": Input(cache_key=key, manifest=healed.decision.commit.manifest)}
        again = self._modes.look(replace(wanted, inputs=inputs, tokens=(*wanted.tokens, token)))
        return [healed, *views[1:], again]

    def _accepted(
        self, spec: ExperimentSpec, keys: dict[str, tuple[Any, str]], views: Sequence[View]
    ) -> tuple[str, str]:
        """What to say of a spec that is accepted: what of it does not hold yet, and for whom."""
        for view in views:
            job = view.job
            if job is None or job.phase != "active" or not job.owners:
                continue
            if job.owners[0].uid != self._owner.uid:
                return "SharedJob", f"the Job of {job.owners[0].name} is shared, with its machine parameters and image"
            if job.round.machine != machine_digest(spec, view.mode):
                return "PendingChange", "machine parameters that are not those of the Job apply to the next attempt"
        before = self._written.before
        for mode, (_, key) in keys.items():
            old: ModeStatus | None = getattr(before.modes, mode)
            if old is not None and old.cache_key not in ("", key):
                return "KeyChanged", f"the edit changed the key of {mode}; the Job of the old key was let go"
        old_reason = next((c for c in before.conditions if c.type == "Accepted" and c.reason == "KeyChanged"), None)
        if old_reason is not None and old_reason.observed_generation == self._found.metadata.generation:
            return old_reason.reason, old_reason.message
        return "Accepted", ""

    def _write(self, subject: Subject, views: Sequence[View]) -> None:
        again_s = self._written.write(subject, views, passing=self._modes.passing)
        if again_s is not None:
            self._modes.again(again_s)


def _can_heal(view: View, train: View) -> bool:
    """Whether its input was found damaged, and was not just made anew for another Job that said so."""
    if not isinstance(view.decision, rules.Fail) or view.job is None or not isinstance(train.decision, rules.Hit):
        return False
    tokens = train.decision.commit.tokens
    anew = tokens[-1].startswith(DAMAGED) and tokens[-1] != f"{DAMAGED}{view.job.uid}" if tokens else False
    return not anew and any(failure.exit_code == DAMAGED_INPUT for failure in view.decision.failures)
