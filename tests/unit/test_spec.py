"""The resource as a value: what it says, what it refuses, and that it comes back from its own JSON."""

from __future__ import annotations

import copy
import json

import pytest

from runonce.errors import InputError, SpecError
from runonce.experiment.spec import LAST_APPLIED, parse_experiment, to_resource

SPEC = {
    "config": "m:C",
    "params": {"lr": 0.1, "layers": [1, 2]},
    "codeVersion": "source:" + "0" * 64,
    "machineParams": {"train": {"nprocesses": 2}, "test": {"nprocesses": 1}},
}

FULL = SPEC | {
    "hashExclude": ["lr"], "hashAs": {"layers": "two"}, "paramsOnlyIn": {"beams": "test"}, "hash": "pin", "codePackages": ["m"],
    "cacheKeyExtra": ["data-1"], "keyMachine": False, "env": {"A": "1"}, "seed": 7, "image": "repo/x:1", "overwrite": True,
    "suspend": True, "retries": 5, "startDeadlineSeconds": 10, "activeDeadlineSeconds": 20, "ttlSecondsAfterFinished": 3600,
    "queueName": "q", "priorityClassName": "high", "profile": "a100", "store": "team", "serviceAccountName": "sa",
    "resources": {"cpu": "2", "memory": "4Gi", "ephemeralStorage": "1Gi", "shm": "1Gi"}, "nodeSelector": {"a/b": "c"},
    "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}],
    "envFrom": [{"secret": "s", "prefix": "P_"}, {"configMap": "c"}], "imagePullSecrets": ["pull"],
    "volumes": [{"name": "data", "mountPath": "/data", "persistentVolumeClaim": "claim", "readOnly": False}],
    "machineParams": {
        "train": {"nprocessesPerDevice": [2, 1], "gpuIds": [0, 1], "coupled": False, "gpuResource": "x/y", "env": {"OMP": "1"}},
        "valid": {"nprocesses": 0},
        "test": {"nprocesses": 1},
    },
}  # fmt: skip


def resource(spec=None, **metadata):
    return {
        "apiVersion": "runonce.dev/v1alpha1",
        "kind": "Experiment",
        "metadata": {"name": "x"} | metadata,
        "spec": SPEC if spec is None else spec,
    }


def parse(**changes):
    return parse_experiment(resource(SPEC | changes)).spec


@pytest.mark.parametrize("spec", [SPEC, FULL], ids=["small", "full"])
def test_a_spec_comes_back_from_its_own_json(spec):
    parsed = parse_experiment(resource(copy.deepcopy(spec)))
    again = parse_experiment(json.loads(json.dumps(to_resource(parsed.name, parsed.spec))))
    assert again == parsed
    assert parsed.spec.to_json() == spec
    assert again.spec.digest() == parsed.spec.digest()


def test_what_the_api_server_adds_is_let_through():
    given = resource(namespace="team", uid="u", generation=3, creationTimestamp="t", managedFields=[{}])
    assert parse_experiment(given | {"status": {"phase": "x"}}).metadata.namespace == "team"


def test_modes_run_in_their_order_and_read_what_train_left():
    spec = parse(machineParams={"test": {"nprocesses": 1}, "valid": {"nprocesses": 1}, "train": {"nprocesses": 1}})
    keys = spec.keys()
    assert list(keys) == ["train", "valid", "test"]
    assert keys["train"][0].inputs == {}
    assert keys["test"][0].inputs == keys["valid"][0].inputs == {"train": keys["train"][1]}


def test_without_a_train_block_there_is_no_input():
    assert parse(machineParams={"test": {"nprocesses": 1}}).keys()["test"][0].inputs == {}


OPERATIONAL = [
    {"machineParams": {"train": {"nprocesses": 5, "env": {"OMP_NUM_THREADS": "1"}}, "test": {"nprocesses": 1}}},
    {"image": "other:2"}, {"resources": {"cpu": "4"}}, {"profile": "p"}, {"nodeSelector": {"a": "b"}},
    {"tolerations": [{"operator": "Exists"}]}, {"envFrom": [{"secret": "s"}]}, {"retries": 9}, {"store": "s"},
    {"volumes": [{"name": "d", "mountPath": "/d", "hostPath": "/d"}]}, {"activeDeadlineSeconds": 5},
    {"startDeadlineSeconds": 5}, {"ttlSecondsAfterFinished": 4000}, {"queueName": "q"}, {"priorityClassName": "p"},
    {"overwrite": True}, {"suspend": True}, {"codePackages": ["m"]}, {"keyMachine": False},
]  # fmt: skip

COUNTING = [
    {"config": "m:D"}, {"params": {"lr": 0.2, "layers": [1, 2]}}, {"env": {"A": "1"}}, {"seed": 1},
    {"codeVersion": "label:x"}, {"cacheKeyExtra": ["x"]}, {"hash": "pin"}, {"hashExclude": ["lr"]},
    {"hashAs": {"lr": "x"}}, {"keyMachine": True},
]  # fmt: skip


@pytest.mark.parametrize("change", OPERATIONAL, ids=lambda change: next(iter(change)))
def test_an_operational_field_is_not_in_the_key(change):
    assert {m: k for m, (_, k) in parse(**change).keys().items()} == {m: k for m, (_, k) in parse().keys().items()}


@pytest.mark.parametrize("change", COUNTING, ids=lambda change: next(iter(change)))
def test_what_can_change_the_result_is_in_the_key(change):
    ours, other = parse().keys(), parse(**change).keys()
    assert all(ours[mode][1] != other[mode][1] for mode in ours)


def test_every_field_of_the_spec_is_in_one_of_the_two_lists():
    fields = set(type(parse()).model_fields)
    listed = {name for change in OPERATIONAL + COUNTING for name in change}
    snake = {"".join("_" + c.lower() if c.isupper() else c for c in name) for name in listed}
    others = {"command", "code", "params_only_in", "service_account_name", "image_pull_secrets"}
    assert fields - snake == others


def test_the_order_and_spelling_of_a_file_do_not_count():
    turned = json.loads(json.dumps({"seed": 0.0, **dict(reversed(SPEC.items()))}))
    assert parse_experiment(resource(turned)).spec.keys() == parse().keys()


def test_a_field_of_one_mode_changes_that_modes_key_alone():
    def keys(beams):
        spec = parse(params={"lr": 1, "beams": beams}, paramsOnlyIn={"beams": "test"})
        return {mode: key for mode, (_, key) in spec.keys().items()}

    first, second = keys(1), keys(2)
    assert first["train"] == second["train"]
    assert first["test"] != second["test"]


def test_an_image_counts_by_its_digest_without_its_repository():
    digest = "sha256:" + "a" * 64
    one = parse(codeVersion="image", image=f"one.example/x@{digest}")
    other = parse(codeVersion="image", image=f"two.example/y:tag@{digest}")
    assert one.keys() == other.keys()
    assert one.keys()["train"][0].code_version == f"image:{digest}"


def test_without_a_code_version_there_is_no_key():
    spec = parse_experiment(resource({k: v for k, v in SPEC.items() if k != "codeVersion"})).spec
    with pytest.raises(SpecError) as caught:
        spec.keys()
    assert caught.value.reason == "CodeVersionMissing"


def test_a_commands_processes_count_unless_it_says_otherwise():
    base = {
        "command": ["./run.sh"],
        "code": ["*.sh"],
        "codeVersion": "label:x",
        "machineParams": {"train": {"nprocesses": 3}},
    }
    assert parse_experiment(resource(base)).spec.keys()["train"][0].completions == 3
    assert parse_experiment(resource(base | {"keyMachine": False})).spec.keys()["train"][0].completions is None


@pytest.mark.parametrize(
    ("spec", "faults"),
    [
        ({"config": "m:C"}, ["spec.machineParams: is missing. Give it."]),
        (
            SPEC | {"machineParams": {}},
            ["spec.machineParams: has no mode. Give train, valid or test, as in train: {nprocesses: 1}."],
        ),
        (SPEC | {"params": [1]}, ["spec.params: is [1]; a mapping is meant."]),
        (SPEC | {"params": None}, ["spec.params: is null. Leave it out, or give a value."]),
        (
            SPEC | {"env": {"1A": "x"}},
            [
                "spec.env[\"1A\"]: is '1A'; the name of a variable is letters, digits, _ . and -, and begins with a letter or _."
            ],
        ),
        (SPEC | {"seed": True}, ["spec.seed: is True; a whole number is meant."]),
        (SPEC | {"seed": -1}, ["spec.seed: is -1; input should be greater than or equal to 0."]),
        (SPEC | {"retries": 101}, ["spec.retries: is 101; input should be less than or equal to 100."]),
        (
            SPEC | {"code": ["*.py"]},
            ["spec.code: goes with command; a config's code is found by its imports. Remove it."],
        ),
        (
            {"command": ["x"], "machineParams": {"train": {"nprocesses": 1}}},
            [
                "spec.code: is missing: nobody could tell which files the command's result depends on. "
                'Name them, as in code: ["*.sh", "src/**/*.c"], or give a codeVersion.'
            ],
        ),
        (SPEC | {"hashExclude": ["/lr"]}, ["spec.hashExclude: '/lr' names a field of params itself. Write lr."]),
        (
            SPEC | {"hashExclude": ["lr"], "hashAs": {"lr": 1}},
            ["spec.hashAs: names 'lr', which hashExclude names too. Drop one of them."],
        ),
    ],
)
def test_what_a_spec_cannot_say(spec, faults):
    with pytest.raises(InputError) as caught:
        parse_experiment(resource(spec))
    assert [str(fault) for fault in caught.value.faults] == faults


def test_a_name_that_no_resource_can_have_is_refused():
    with pytest.raises(SpecError, match=r"metadata\.name"):
        parse_experiment(resource(name="A_b"))


@pytest.mark.parametrize("other", [{}, {"kind": "Experiment"}, {"apiVersion": "runonce.dev/v1", "kind": "Experiment"}])
def test_another_kind_is_told(other):
    with pytest.raises(SpecError, match=r"Write apiVersion: runonce.dev/v1alpha1 and kind: Experiment"):
        parse_experiment(other)


def applied(params) -> dict:
    last = resource(SPEC | {"params": params})
    return resource(annotations={LAST_APPLIED: json.dumps(last)})


def test_nulls_that_apply_dropped_are_found_in_its_annotation():
    with pytest.raises(SpecError) as caught:
        parse_experiment(applied({"lr": 0.1, "layers": [1, 2], "warmup": None, "deep": None}))
    assert [fault.path for fault in caught.value.faults] == ["spec.params.warmup", "spec.params.deep"]
    assert "kubectl apply dropped it" in str(caught.value)


@pytest.mark.parametrize("params", [{"lr": 0.1, "layers": [1, 2]}, {"lr": 0.2, "warmup": None}])
def test_an_annotation_without_nulls_or_of_other_params_says_nothing(params):
    parse_experiment(applied(params))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"spec": []}'])
def test_an_annotation_that_cannot_be_read_says_nothing(text):
    parse_experiment(resource(annotations={LAST_APPLIED: text}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"env": {"RUNONCE_MODE": "x"}}, "spec.env.RUNONCE_MODE: is set by Runonce itself. Choose another name."),
        (
            {"env": {"A": "1"}, "machineParams": {"train": {"nprocesses": 1, "env": {"A": "2"}}}},
            "spec.machineParams.train.env.A: is given in spec.env too, where it is in the key.",
        ),
        ({"envFrom": [{"prefix": "P_"}]}, "spec.envFrom[0]: has none of configMap, secret. Give one of them."),
        (
            {"volumes": [{"name": "d", "mountPath": "/d", "secret": "s", "hostPath": "/h"}]},
            "spec.volumes[0]: has several of persistentVolumeClaim, configMap, secret, hostPath.",
        ),
    ],
)
def test_what_contradicts_itself_is_refused(change, message):
    with pytest.raises(SpecError) as caught:
        parse(**change)
    assert message in str(caught.value)


def test_a_command_excludes_only_what_it_has():
    base = {
        "command": ["x"],
        "codeVersion": "label:x",
        "params": {"a": 1},
        "machineParams": {"train": {"nprocesses": 1}},
    }
    with pytest.raises(SpecError, match="names 'b', which params does not have"):
        parse_experiment(resource(base | {"hashExclude": ["b"]}))


def test_what_changes_no_result_may_be_set_for_a_mode_alone():
    env = {"RUNONCE_PEER_TIMEOUT_S": "5", "RUNONCE_CHECKPOINT_S": "1"}
    block = {"train": {"nprocesses": 1, "env": env}}
    assert parse(machineParams=block).block("train").env == env
    with pytest.raises(SpecError, match="RUNONCE_PEER_TIMEOUT_S: is set by Runonce itself"):
        parse(env=env)
