"""The door to Jobs, on a real API server: the part of its contract that has no process behind it, and the races."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from control_plane import CONTROLLER, wait_for
from place import spec

from runonce.errors import JobExists, JobGone, JobRefused, StillEnding
from runonce.experiment.job import JobPlan, Owner, Round
from runonce.experiment.machine import MachineParams, plan_job
from runonce.experiment.spec import parse_experiment
from runonce.kube import jobs as jobs_module
from runonce.kube.caches import Caches
from runonce.kube.informer import Informer
from runonce.kube.jobs import OURS, KubeJobs
from runonce.kube.objects import JobObject
from runonce.kube.resources import MANAGED_BY, build_job
from runonce.kube.transport import Api

KEY = "ab" * 32


@pytest.fixture
def owners(place) -> tuple[Owner, Owner]:
    """Two Experiments that nobody reconciles: the garbage collector wants owners that are there."""
    made = [place.apply(name)["metadata"]["uid"] for name in ("mine", "theirs")]
    return Owner(uid=made[0], name="mine"), Owner(uid=made[1], name="theirs")


@pytest.fixture
def make(place):
    """A door of its own connection and cache, as another controller has it."""
    started = []

    def door() -> KubeJobs:
        api = Api.connect(kubeconfig=str(place.plane.kubeconfig(CONTROLLER)))
        selector = f"{MANAGED_BY}={OURS}"

        def informer(_: str) -> Informer[JobObject]:
            return Informer(
                api,
                place.jobs_path,
                JobObject,
                selector=selector,
                index=lambda job: [owner.uid for owner in job.metadata.owner_references],
            )

        cache: Caches[JobObject] = Caches((place.namespace,), informer)
        for one in cache.informers:
            one.start()
            started.append(one)
            assert one.synced.wait(30)
        cluster = place.cluster()
        return KubeJobs(
            api, place.namespace, cache, build=lambda plan: build_job(plan, namespace=place.namespace, cluster=cluster)
        )

    yield door
    for one in started:
        one.stop()


@pytest.fixture
def planned(owners) -> Callable[..., JobPlan]:
    def plan(n: int = 1, *, coupled: bool = False, **changes: Any) -> JobPlan:
        body = {"apiVersion": "runonce.dev/v1alpha1", "kind": "Experiment", "metadata": {"name": "mine"}}
        experiment = parse_experiment(body | {"spec": spec()}).spec
        given: dict[str, Any] = {
            "name": "job",
            "cache_key": KEY,
            "shape": plan_job(MachineParams(n, coupled=coupled), mode="train"),
            "spec": "{}",
            "env": {},
            "owner": owners[0],
            "round": Round(round="r"),
            "experiment": experiment,
        }
        return JobPlan(**(given | changes))

    return plan


def fail(place, count: int = 1) -> None:
    for pod in place.pods(count)[-count:]:
        place.kubelet.start(pod)
        place.kubelet.end(pod, 3)


def test_a_name_is_taken_until_it_is_replaced(make, planned, place):
    jobs = make()
    first = jobs.create(planned(coupled=True))
    with pytest.raises(JobExists):
        jobs.create(planned())
    with pytest.raises(JobGone):
        jobs.replace(planned(), uid="another")
    fail(place)
    wait_for("its failure", lambda: jobs.get("job").phase == "failed")
    plan = planned(round=Round(round="r", attempt=2))

    def replaced():
        try:
            return jobs.replace(plan, uid=first.uid)
        except StillEnding:
            return jobs.get("job") is None and jobs.create(plan)
        except JobGone:
            return None

    second = wait_for("the next attempt", replaced)
    assert (second.uid != first.uid, second.round.attempt) == (True, 2)


def test_what_was_written_is_read_at_once(make, planned):
    jobs = make()
    made = jobs.create(planned())
    assert jobs.get("job").uid == made.uid
    data = replace(made.round, verdict="charged", charges={"me": 1}, tokens=("t",))
    jobs.record("job", uid=made.uid, data=data)
    assert jobs.get("job").round == data
    jobs.expire("job", uid=made.uid, seconds=3600)
    assert jobs.get("job").ttl_s == 3600
    jobs.suspend("job", uid=made.uid, value=True)
    assert jobs.get("job").suspended


def test_every_write_is_for_one_job_alone(make, planned, owners):
    jobs = make()
    made = jobs.create(planned())
    writes = [
        lambda: jobs.record("job", uid="another", data=made.round),
        lambda: jobs.expire("job", uid="another", seconds=3600),
        lambda: jobs.suspend("job", uid="another", value=True),
        lambda: jobs.join("job", owners[1], uid="another", cache_key=KEY),
        lambda: jobs.join("job", owners[1], uid=made.uid, cache_key="other"),
        lambda: jobs.join("nothing", owners[1], uid=made.uid, cache_key=KEY),
    ]
    for write in writes:
        with pytest.raises(JobGone):
            write()
    jobs.leave("job", owners[0], uid="another")
    now = jobs.get("job")
    assert (now.uid, now.owners, now.round, now.suspended, now.ttl_s) == (
        made.uid,
        (owners[0],),
        made.round,
        False,
        None,
    )


def test_another_sees_the_job_joins_it_and_leaves_it(make, planned, owners):
    mine, theirs = owners
    jobs, others = make(), make()
    made = jobs.create(planned())
    wait_for("the Job", lambda: others.get("job"))
    others.join("job", theirs, uid=made.uid, cache_key=KEY)
    assert [one.name for one in others.owned(theirs)] == ["job"]
    wait_for("both", lambda: jobs.get("job").owners == (mine, theirs))
    jobs.leave("job", mine, uid=made.uid)
    wait_for("one", lambda: others.get("job").owners == (theirs,))
    others.leave("job", theirs, uid=made.uid)
    wait_for("its end", lambda: (state := jobs.get("job")) is None or state.phase == "ending")


def test_who_leaves_last_does_not_end_what_another_has_just_joined(make, planned, owners):
    """The owner that leaves believes to be the last one: the version of what it saw is a precondition."""
    mine, theirs = owners
    jobs, others = make(), make()
    made = jobs.create(planned())
    wait_for("the Job", lambda: others.get("job"))
    for informer in jobs._cache.informers:
        informer.stop()  # it does not see the one who joins
    others.join("job", theirs, uid=made.uid, cache_key=KEY)
    with pytest.raises(JobGone):
        jobs.leave("job", mine, uid=made.uid)
    assert others.get("job").owners == (mine, theirs)


def test_two_verdicts_do_not_overwrite_one_another(make, planned):
    jobs, others = make(), make()
    made = jobs.create(planned())
    wait_for("the Job", lambda: others.get("job"))
    for informer in others._cache.informers:
        informer.stop()
    jobs.record("job", uid=made.uid, data=replace(made.round, verdict="charged", charges={"a": 1}))
    with pytest.raises(JobGone):
        others.record("job", uid=made.uid, data=replace(made.round, verdict="charged", charges={"b": 1}))


def test_of_twenty_that_replace_a_failed_job_one_wins(make, planned, place):
    doors = [make() for _ in range(4)]
    first = doors[0].create(planned(coupled=True))
    fail(place)
    wait_for("its failure", lambda: all((s := door.get("job")) and s.phase == "failed" for door in doors))
    made, errors, together = [], [], threading.Barrier(20)

    def race(number: int) -> None:
        together.wait()
        plan = planned(round=Round(round="r", attempt=2, tokens=(str(number),)))
        try:
            made.append(doors[number % 4].replace(plan, uid=first.uid))
        except (StillEnding, JobExists, JobGone) as error:
            errors.append(error)

    threads = [threading.Thread(target=race, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) + len(errors) == 20

    def settled():
        state = doors[0].get("job")
        if state is None:
            try:
                return doors[0].create(planned(round=Round(round="r", attempt=2)))
            except (StillEnding, JobExists):
                return None
        return state if state.phase == "active" and state.round.attempt == 2 else None

    wait_for("attempt 2", settled)
    assert (len(made) <= 1, len(place.jobs())) == (True, 1)


def test_a_label_that_someone_took_off_is_put_back(make, planned, place):
    jobs = make()
    made = jobs.create(planned())
    patch = {"metadata": {"labels": {MANAGED_BY: None}}}
    place.api.must("PATCH", f"{place.jobs_path}/job", patch, content="application/merge-patch+json")
    wait_for("its loss", lambda: jobs.get("job") is None)
    with pytest.raises(JobExists):
        jobs.create(planned())
    assert wait_for("its return", lambda: jobs.get("job")).uid == made.uid


def test_pods_of_a_job_that_was_deleted_alone_are_still_seen(make, planned, place):
    jobs = make()
    jobs.create(planned(2))
    for pod in place.pods(2):
        place.kubelet.start(pod)
    place.api.must("DELETE", f"{place.jobs_path}/job", {"propagationPolicy": "Background"})
    wait_for("its end", lambda: jobs.get("job") is None)
    assert jobs.living(KEY) == []  # nobody told
    jobs.suspect(KEY)
    assert len(jobs.living(KEY)) == 2
    other = make()
    other.survey()
    assert len(other.living(KEY)) == 2


def test_what_the_server_does_not_allow_is_told(make, planned, place):
    quota = {"metadata": {"name": "q"}, "spec": {"hard": {"count/jobs.batch": "0"}}}
    place.api.must("POST", f"/api/v1/namespaces/{place.namespace}/resourcequotas", quota)
    wait_for(
        "the quota",
        lambda: place.api.get(f"/api/v1/namespaces/{place.namespace}/resourcequotas/q").get("status", {}).get("hard"),
    )
    with pytest.raises(JobRefused, match="exceeded quota"):
        make().create(planned())


def test_a_service_that_went_is_made_again(make, planned, place, monkeypatch):
    """Without it no process finds another, whatever it ends with then."""
    monkeypatch.setattr(jobs_module, "SERVICE_S", 0.0)
    jobs, services = make(), f"/api/v1/namespaces/{place.namespace}/services"
    jobs.create(planned(name="first", coupled=True))
    place.api.must("DELETE", f"{services}/runonce-pods")
    jobs.create(planned(name="second", coupled=True))
    assert place.api.get(f"{services}/runonce-pods")


def test_a_service_of_the_name_that_is_not_ours_is_an_error(make, planned, place):
    body = {"metadata": {"name": "runonce-pods"}, "spec": {"clusterIP": "None", "selector": {"a": "b"}}}
    place.api.must("POST", f"/api/v1/namespaces/{place.namespace}/services", body)
    with pytest.raises(JobRefused, match="not of Runonce"):
        make().create(planned(coupled=True))


def test_what_is_not_there_is_none(make, owners):
    jobs = make()
    assert jobs.get("nothing") is None
    assert jobs.owned(owners[0]) == []
    assert jobs.living(KEY) == []
    jobs.leave("nothing", owners[0], uid="u")
