"""A plan as objects of the Kubernetes API: what the golden files do not show by themselves."""

from __future__ import annotations

import copy
import dataclasses
import json
import re

import golden_jobs
import pytest
import yaml

from runonce.errors import SpecError
from runonce.experiment.contract import Contract
from runonce.experiment.spec import parse_experiment
from runonce.kube.resources import SERVICE, build_job, build_service, is_ours, owner_reference

SETTLED = golden_jobs.cluster()
ROWS = {path.stem: path for path in golden_jobs.FILES}


def experiment(row: str) -> dict:
    return yaml.safe_load(golden_jobs.experiment_of(ROWS[row]))


def job_of(resource: dict) -> dict:
    return build_job(golden_jobs.plan_of(resource, SETTLED), namespace="team-a", cluster=SETTLED)


def edited(row: str, **changes) -> dict:
    resource = experiment(row)
    resource["spec"] |= changes
    return job_of(resource)


def pod_of(job: dict) -> dict:
    return job["spec"]["template"]["spec"]


def env_of(job: dict) -> dict[str, str]:
    """As the process sees it: what Kubernetes makes of `$$` and of `$(NAME)` that names nothing set before."""
    entries = pod_of(job)["containers"][0]["env"]
    return {entry["name"]: entry["value"].replace("$$", "$") for entry in entries if "value" in entry}


@pytest.mark.parametrize("row", ROWS)
def test_a_golden_file_is_what_the_code_makes(row):
    """`make generate` writes it anew; look at the difference before you commit it."""
    assert ROWS[row].read_text(encoding="utf-8") == golden_jobs.made(ROWS[row])


@pytest.mark.parametrize("row", ROWS)
def test_what_the_pod_is_told_is_what_was_wanted(row):
    resource = experiment(row)
    plan = golden_jobs.plan_of(resource, SETTLED)
    job = job_of(resource)
    env = env_of(job)
    assert {name: env[name] for name in plan.env} == dict(plan.env)
    assert Contract.from_env(env).total == job["spec"]["completions"]
    annotations = job["spec"]["template"]["metadata"]["annotations"]
    spec = parse_experiment(resource | {"spec": json.loads(annotations["runonce.dev/spec"])}).spec
    assert spec == parse_experiment(resource).spec


@pytest.mark.parametrize("row", ROWS)
def test_every_dollar_is_doubled(row):
    """One that is not could name a variable, which Kubernetes would put in its place."""
    for entry in pod_of(job_of(experiment(row)))["containers"][0]["env"]:
        assert not re.sub(r"\$\$", "", entry.get("value", "")).count("$")


@pytest.mark.parametrize("row", ROWS)
def test_names_and_labels_fit(row):
    job = job_of(experiment(row))
    host = f"{job['metadata']['name']}-{job['spec']['completions'] - 1}"
    assert len(host) <= 63
    for value in (*job["metadata"]["labels"].values(), *job["spec"]["template"]["metadata"]["labels"].values()):
        assert re.fullmatch(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?", value)


@pytest.mark.parametrize("row", ROWS)
def test_a_job_has_no_time_to_live_when_it_is_made(row):
    """It would vanish with its result when the controller is away for longer than that."""
    assert "ttlSecondsAfterFinished" not in edited(row, ttlSecondsAfterFinished=3600)["spec"]


def test_gpus_are_asked_for_as_limits_too_and_not_at_all_on_the_cpu():
    resources = pod_of(job_of(experiment("gpus-multiple")))["containers"][0]["resources"]
    assert resources == {"requests": {"nvidia.com/gpu": "2"}, "limits": {"nvidia.com/gpu": "2"}}
    assert "gpu" not in json.dumps(pod_of(job_of(experiment("cpu")))["containers"][0].get("resources", {}))


def test_a_profile_says_what_a_gpu_is_called_and_a_mode_may_say_otherwise():
    def asked(row):
        return set(pod_of(job_of(experiment(row)))["containers"][0]["resources"].get("limits", {}))

    assert asked("profile-amd") == {"amd.com/gpu"}
    assert asked("profile-claim") == set()
    assert asked("profile-claim-own") == {"gpu.intel.com/xe"}


def test_with_a_queue_the_job_is_made_suspended_and_kueue_sees_its_name():
    job = job_of(experiment("queue"))
    assert job["spec"]["suspend"] is True
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "research"
    assert "kueue.x-k8s.io/queue-name" not in job["spec"]["template"]["metadata"]["labels"]


def test_only_an_account_that_was_asked_for_gets_a_token():
    assert "automountServiceAccountToken" not in pod_of(job_of(experiment("accounts")))
    assert pod_of(job_of(experiment("store-identity")))["automountServiceAccountToken"] is False
    assert pod_of(job_of(experiment("store-identity")))["serviceAccountName"] == "store"


def test_the_last_source_of_variables_is_the_stores_so_that_no_other_hides_it():
    sources = pod_of(job_of(experiment("places")))["containers"][0]["envFrom"]
    assert sources[-1] == {"secretRef": {"name": "store-access"}}
    assert len(sources) == 3


def test_variables_of_ours_win_over_those_of_a_spec():
    env = env_of(edited("cpu", env={"CUDA_VISIBLE_DEVICES": "0,1", "PYTHONUNBUFFERED": ""}))
    assert (env["CUDA_VISIBLE_DEVICES"], env["PYTHONUNBUFFERED"]) == ("", "1")


def test_the_creator_alone_controls_the_job():
    (reference,) = job_of(experiment("cpu"))["metadata"]["ownerReferences"]
    assert reference["controller"] is True
    assert "controller" not in owner_reference("other", "uid")


def test_a_service_of_the_same_name_that_selects_otherwise_is_not_ours():
    ours = build_service("team-a")
    assert ours["metadata"]["name"] == SERVICE
    assert is_ours(ours)
    foreign = copy.deepcopy(ours)
    foreign["spec"]["selector"] = {"app": "web"}
    assert not is_ours(foreign)
    foreign = copy.deepcopy(ours)
    foreign["spec"]["publishNotReadyAddresses"] = False
    assert not is_ours(foreign)
    assert not is_ours({"spec": {}})


def test_a_plan_for_one_machine_makes_no_pod():
    plan = dataclasses.replace(golden_jobs.plan_of(experiment("cpu"), SETTLED), experiment=None)
    with pytest.raises(ValueError, match="has no experiment"):
        build_job(plan, namespace="n", cluster=SETTLED)


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"profile": "v100"}, "UnknownProfile"), ({"store": "nowhere"}, "UnknownStore")],
)
def test_what_the_cluster_does_not_have_is_told_before_a_job_is_made(change, reason):
    plan = golden_jobs.plan_of(experiment("cpu"), SETTLED)
    plan = dataclasses.replace(plan, experiment=plan.experiment.model_copy(update=change))
    with pytest.raises(SpecError) as caught:
        build_job(plan, namespace="n", cluster=SETTLED)
    assert caught.value.reason == reason
