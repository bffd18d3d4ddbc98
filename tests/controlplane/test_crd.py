"""The resource on a real API server: what it takes and refuses is what the Python reader does, in the same words."""

from __future__ import annotations

import collections
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
import resource_cases
import resource_ties
from control_plane import Api
from resource_cases import resource

from runonce.experiment.status import (
    MAX_HISTORY,
    MAX_LOG_TAIL,
    MAX_MESSAGE,
    MAX_ROUND,
    Condition,
    FailureStatus,
    HistoryEntry,
    ModeStatus,
    ModeStatuses,
    Status,
    stored_bytes,
)
from runonce.kube.rules import RULES, Rule
from runonce.kube.transport import encoded

CASES = int(os.environ.get("RUNONCE_CASES", "5000"))
SEED = 7


def post(api: Api, namespace: str, body: dict, **query: str):
    path = f"/apis/runonce.dev/v1alpha1/namespaces/{namespace}/experiments"
    return api.request("POST", path, body, fieldValidation="Strict", **query)


# What is in them NOT_IN_RULES leaves to the controller.
_NAMES = ("hashExclude", "hashAs", "paramsOnlyIn")


def for_the_server(spec: dict) -> list[str]:
    """What the reader finds, without what NOT_IN_RULES leaves to the controller: names in mappings that a server does not
    look into, and how many of very many ids differ."""

    def left(fault: str) -> bool:
        mode = re.match(r"spec\.machineParams\.(\w+)\.gpuIds: has \d+ different ids for", fault)
        many = mode is not None and len(spec["machineParams"][mode[1]]["gpuIds"]) > 512
        return many or (fault.startswith(tuple(f"spec.{name}" for name in _NAMES)) and ": names " in fault)

    faults = list(map(str, resource_cases.read(spec)))
    if faults and all(map(left, faults)):  # of a whole spec alone it looks at what each mode asks for
        less = {name: value for name, value in spec.items() if name not in _NAMES}
        faults = list(map(str, resource_cases.read(less)))
    return [fault for fault in faults if not left(fault)]


def test_the_server_and_the_reader_agree_on_every_case_and_every_bound_is_met_from_both_sides(api, namespace, capsys):
    def judge(case):
        spec = case[0]
        return *case, post(api, namespace, resource(spec), dryRun="All"), for_the_server(spec)

    accepted, total, hits = 0, 0, collections.Counter()
    with ThreadPoolExecutor(8) as pool:
        for spec, chosen, alone, answer, faults in pool.map(judge, resource_cases.cases(SEED, CASES)):
            total += 1
            assert answer.status in (201, 400, 422), (answer, spec)
            taken = answer.status == 201
            assert taken == (not faults), (answer.message[:500], faults, chosen, spec)
            accepted += taken
            if alone:
                assert taken == chosen[0].good, (chosen[0], faults)
            for change in chosen:
                if taken == change.good:
                    hits[change.label, "accepted" if taken else "refused"] += 1
    sides = {change.label: set() for change in resource_cases.changes()}
    for change in resource_cases.changes():
        sides[change.label].add("accepted" if change.good else "refused")
    with capsys.disabled():
        print(f"\n{total} cases, {accepted} accepted\n\n{resource_cases.table(hits)}")
    assert all(sides[change.label] == {"accepted", "refused"} for change in resource_ties.ties())
    assert total >= 5000
    assert accepted >= 0.4 * total
    assert all(hits[label, side] for label in sides for side in sides[label])


# Where the server's own words, or pydantic's, tell of a bound.
_BOUNDS = re.compile(
    r" in body |must be of type|must have at most|Too (long|many)|Required value|Unsupported value|rules were not checked"
)


@pytest.mark.parametrize(
    "change",
    [change for change in resource_cases.changes() if not change.good and re.search(r" (form|names)$", change.label)][
        ::9
    ]
    # That machineParams are missing altogether is the server's own word.
    + [change for change in resource_ties.ties() if not change.good and change.label != "no modes"],
    ids=lambda change: change.label,
)
def test_a_rule_says_what_the_reader_says(api, namespace, change):
    spec = resource_cases.alone(change)
    answer = post(api, namespace, resource(spec), dryRun="All")
    found = [cause["message"] for cause in answer.body["details"]["causes"] if not _BOUNDS.search(cause["message"])]
    words = list(map(resource_cases.words, resource_cases.read(spec)))
    assert found
    for message in found:
        assert any(message.endswith(text) for text in words), (message, words)


def told(rule: Rule) -> str:
    """What a message of the rule has to contain: the longest piece that is no expression."""
    texts = re.findall(r"'([^']*)'", rule.message) if rule.computed else [rule.message]
    return max((piece for text in texts for piece in re.split(r"%[ds]", text)), key=len)


def test_every_rule_refuses_something_at_its_field_with_its_own_message(api, namespace):
    causes = set()
    for change in resource_ties.ties():
        if not change.good:
            answer = post(api, namespace, resource(resource_cases.alone(change)), dryRun="All")
            assert answer.status in (400, 422), change
            found = answer.body.get("details", {}).get("causes", ())
            causes |= {(cause["field"], cause["message"]) for cause in found}
    silent = [
        rule for rule in RULES if not any(rule.field in field and told(rule) in message for field, message in causes)
    ]
    assert silent == []


def test_a_fresh_status_has_observed_nothing_and_a_files_own_is_dropped(api, namespace):
    spec = resource_cases.BASES[0]
    made = post(api, namespace, resource(spec) | {"status": {"phase": "Succeeded"}}).body
    assert made["status"] == {"observedGeneration": -1}


def apply_status(api, namespace: str, name: str, status: dict):
    body = {"apiVersion": "runonce.dev/v1alpha1", "kind": "Experiment", "metadata": {"name": name}, "status": status}
    path = f"/apis/runonce.dev/v1alpha1/namespaces/{namespace}/experiments/{name}/status"
    return api.request(
        "PATCH", path, encoded(body), content="application/apply-patch+yaml", fieldManager="runonce", force="true"
    )


def test_a_status_that_leaves_the_generation_out_reads_as_one_that_has_observed_nothing(api, namespace):
    post(api, namespace, resource(resource_cases.BASES[0]))
    apply_status(api, namespace, "x", {"observedGeneration": 1, "phase": "Pending"})
    answer = apply_status(api, namespace, "x", {"phase": "Running"})
    assert answer.body["status"] == {"observedGeneration": -1, "phase": "Running"}


def fullest() -> Status:
    """Every field, each text and list at its bound."""
    short, message = "s" * 256, "m" * MAX_MESSAGE
    failure = FailureStatus(index=1, exit_code=3, reason=short, log_tail="t" * MAX_LOG_TAIL, attempt=2)
    mode = ModeStatus(
        phase="Failed", reason=short, message=message, cache_key=short, cache_hit=True, job=short, job_uid=short, attempt=3,
        round="r" * MAX_ROUND, total=5, active=4, succeeded=1, deletions=1, start_time=short, end_time=short, artifacts=message,
        manifest=short, failure=failure,
    )  # fmt: skip
    conditions = tuple(
        Condition(type=f"C{n}", status="True", observed_generation=1, last_transition_time=short, reason=short, message=message)
        for n in range(16)
    )  # fmt: skip
    entry = HistoryEntry(mode=short, cache_key=short, phase="Failed", end_time=short)
    return Status(
        observed_generation=1, uid=short, spec_digest=short, rerun=short, phase="Failed", message=message, mode=short,
        cached=True, key=short, gpus=8, job=short, conditions=conditions, history=(entry,) * MAX_HISTORY,
        modes=ModeStatuses(train=mode, valid=mode, test=mode),
    )  # fmt: skip


def as_json(status: Status) -> dict:
    return status.model_dump(mode="json", by_alias=True, exclude_none=True)


def test_the_server_keeps_every_field_of_the_status_model(api, namespace):
    post(api, namespace, resource(resource_cases.BASES[0]))
    status = as_json(fullest())
    answer = apply_status(api, namespace, "x", status)
    assert answer.status == 200, answer.message
    assert answer.body["status"] == status


def test_no_character_takes_more_in_the_server_than_is_counted(api, control_plane, namespace):
    post(api, namespace, resource(resource_cases.BASES[0]))
    message = "".join(map(chr, range(1, 0x180))) + "\u2027\u2028\u2029\u202a\ufeff\uffff🧪"
    assert apply_status(api, namespace, "x", {"phase": "Pending", "message": message}).status == 200
    path = f"/apis/runonce.dev/v1alpha1/namespaces/{namespace}/experiments/x"
    told = re.search(r'"message":("(?:[^"\\]|\\.)*")', control_plane.kubectl("get", "--raw", path).stdout)[1]
    assert json.loads(told) == message
    assert stored_bytes(message) - 20 < len(told.encode()) <= stored_bytes(message)


@pytest.mark.parametrize(
    "change",
    [
        {"phase": "Odd"},
        {"message": "m" * (MAX_MESSAGE + 1)},
        {"modes": {"train": {"round": "r" * (MAX_ROUND + 1)}}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_status_beyond_a_bound_is_refused_whole(api, namespace, change):
    post(api, namespace, resource(resource_cases.BASES[0]))
    assert apply_status(api, namespace, "x", {"observedGeneration": 1} | change).status == 422


def test_kubectl_shows_where_an_experiment_stands_by_its_short_name_and_category(api, control_plane, namespace):
    post(api, namespace, resource(resource_cases.BASES[0] | {"image": "ghcr.io/x:1"}, "digits"))
    status = Status(
        observed_generation=1,
        phase="Running",
        mode="train",
        cached=False,
        key="0a1b2c3d",
        gpus=4,
        job="j",
        message="two",
    )
    apply_status(api, namespace, "digits", as_json(status))
    head, row = control_plane.kubectl("get", "rexp", namespace=namespace).stdout.splitlines()
    assert head.split() == ["NAME", "PHASE", "MODE", "CACHED", "KEY", "GPUS", "AGE"]
    assert row.split()[:6] == ["digits", "Running", "train", "false", "0a1b2c3d", "4"]
    head, row = control_plane.kubectl("get", "runonce", "-o", "wide", namespace=namespace).stdout.splitlines()
    assert head.split()[7:] == ["IMAGE", "JOB", "MESSAGE"]
    assert row.split()[7:] == ["ghcr.io/x:1", "j", "two"]


def test_experiments_are_found_by_what_is_asked_of_the_server(api, control_plane, namespace):
    for name, store in (("a", "team"), ("b", "other")):
        post(api, namespace, resource(resource_cases.BASES[0] | {"store": store}, name))
    apply_status(api, namespace, "a", {"phase": "Failed", "modes": {"train": {"cacheKey": "k"}}})

    def found(selector: str) -> list[str]:
        done = control_plane.kubectl("get", "rexp", "-o", "name", "--field-selector", selector, namespace=namespace)
        return [line.rpartition("/")[2] for line in done.stdout.split()]

    assert found("spec.store=team") == ["a"]
    assert found("status.phase=Failed,spec.config=m:C") == ["a"]
    assert found("status.phase!=Failed") == ["b"]
    assert found("status.modes.train.cacheKey=k") == ["a"]
