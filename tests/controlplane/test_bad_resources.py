"""What a user gets wrong, by the real kubectl: the answer names the field, what is wrong, and the way out."""

from __future__ import annotations

import json
import re

import pytest
import resource_cases
import resource_change
import resource_ties
import yaml
from control_plane import wait_for
from kubelet import Kubelet
from place import Place, condition, grant, spec

from runonce.author.document import read_documents
from runonce.controller.size import clip
from runonce.errors import InputError, SpecError
from runonce.experiment.canonical import parse
from runonce.experiment.spec import LAST_APPLIED, parse_experiment
from runonce.kube.objects import shallow
from runonce.kube.transport import encoded

GOOD = """
apiVersion: runonce.dev/v1alpha1
kind: Experiment
metadata: {name: digits}
spec:
  config: digits:Digits
  codeVersion: label:1
  params: {lr: 0.1}
  machineParams: {train: {nprocesses: 2}}
"""

# What is put in the place of what, and what the answer has to say.
REFUSED = [
    ("config: digits:Digits", "config: digits.py", ["spec.config", '"digits.py"', "module:Class is meant"]),
    ("config: digits:Digits", "confg: digits:Digits", ['unknown field "spec.confg"']),
    ("config: digits:Digits", "seed: 1", ["config and command are both missing", "Give config: module:Class"]),
    ("label:1", "v1", ["spec.codeVersion", '"v1"', "source:<64 hex digits>, image, or label:", "runonce render"]),
    ("nprocesses: 2", "nprocesses: two", ["spec.machineParams.train.nprocesses", "must be of type int"]),
    ("nprocesses: 2", "nprocesses: 1.5", ["spec.machineParams.train.nprocesses", "must be of type int"]),
    ("nprocesses: 2", "nprocesses: -1", ["spec.machineParams.train.nprocesses", "-1", "greater than or equal to 0"]),
    ("nprocesses: 2", "nprocesses: 100001", ["100001", "less than or equal to 100000"]),
    ("nprocesses: 2", "gpuIds: [0]", ["spec.machineParams.train.nprocesses", "is missing. Give nprocesses, or"]),
    ("nprocesses: 2", "nprocesses: 2, gpuIds: [0, 1, 2]", ["gpuIds", "Give 2 or 4 ids, or a number of processes"]),
    ("nprocesses: 2", "nprocesses: 2, gpuIds: [0]", ["gpuIds", "Give 2 ids; or coupled: false; or a gpuResource"]),
    ("nprocesses: 2", "nprocesses: 2, gpuIds: [-1, 0]", ["gpuIds", "Give ids of GPUs alone, or [] for the CPU"]),
    ("nprocesses: 2", "nprocesses: 2, gpuIds: [-2]", ["gpuIds[0]", "-2", "greater than or equal to -1"]),
    ("{train: {nprocesses: 2}}", "{}", ["spec.machineParams", "Give train, valid or test"]),
    ("{train: {nprocesses: 2}}", "{tran: {nprocesses: 2}}", ['unknown field "spec.machineParams.tran"']),
    ("params: {lr: 0.1}", "params: [0.1]", ["spec.params", "must be of type object"]),
    ("params: {lr: 0.1}", "env: {RUNONCE_MODE: x}", ["spec.env", "RUNONCE_MODE: is set by Runonce itself"]),
    ("params: {lr: 0.1}", "env: {A-b=: x}", ["spec.env", "A-b=: the name of a variable is letters"]),
    ("params: {lr: 0.1}", "env: {A: 1}", ["spec.env.A", "must be of type string"]),
    ("params: {lr: 0.1}", "retries: 101", ["spec.retries", "101", "less than or equal to 100"]),
    ("params: {lr: 0.1}", "ttlSecondsAfterFinished: 60", ["spec.ttlSecondsAfterFinished", "60", "equal to 3600"]),
    ("params: {lr: 0.1}", "resources: {memory: 4 GB}", ["spec.resources.memory", '"4 GB"', "as 500m, 2 or 4Gi"]),
    ("params: {lr: 0.1}", "volumes: [{name: d, mountPath: /d}]", ["spec.volumes[0]", "has none of", "Give one of them"]),
    ("params: {lr: 0.1}", "volumes: [{name: d, mountPath: d, secret: s}]", ["mountPath", "as /data"]),
    ("params: {lr: 0.1}", "tolerations: [{effect: NoSchedule}]", ["spec.tolerations[0]", "Give the key of the taint"]),
    ("params: {lr: 0.1}", "hash: a b", ["spec.hash", '"a b"', "leave hash out to have it computed"]),
    ("params: {lr: 0.1}", "suspend: 'yes'", ["spec.suspend", "must be of type boolean"]),
    ("name: digits", "name: Digits_1", ["metadata.name", "Digits_1", "lower case alphanumeric"]),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "said"), REFUSED, ids=[new for _, new, _ in REFUSED])
def test_a_mistake_is_refused_with_the_field_and_the_way_out(control_plane, namespace, old, new, said):
    assert old in GOOD
    done = control_plane.kubectl("apply", "-f", "-", stdin=GOOD.replace(old, new), namespace=namespace)
    assert done.returncode == 1
    assert [text for text in said if text not in done.stderr] == [], done.stderr
    assert not control_plane.kubectl("get", "rexp", "-o", "name", namespace=namespace).stdout


def answers(text: str) -> list[str]:
    """What kubectl says of each object of a list, in the order of the list."""
    starts = [
        found.start() for found in re.finditer(r"^(The Experiment |Error from server|error: )", text, re.MULTILINE)
    ]
    return [text[start:end] for start, end in zip(starts, [*starts[1:], None], strict=True)]


def test_kubectl_is_told_field_value_and_bound_of_all_that_the_schema_refuses(control_plane, namespace):
    """Every bound of every field and every rule that ties fields together; hundreds of objects in one call."""
    refused = [change for change in resource_cases.changes() if not change.good]
    ties = {change.label for change in resource_ties.ties()}
    specs = list(map(resource_cases.alone, refused))
    items = [encoded(resource_cases.resource(value, f"x-{number}")).decode() for number, value in enumerate(specs)]
    # A List would be checked by kubectl itself, in other words.
    done = control_plane.kubectl("apply", "-f", "-", stdin="\n---\n".join(items), namespace=namespace)
    assert done.returncode == 1
    assert not control_plane.kubectl("get", "rexp", "-o", "name", namespace=namespace).stdout
    told = answers(done.stderr)
    assert len(told) == len(items)
    silent = []
    for change, spec_, answer in zip(refused, specs, told, strict=True):
        said = tie_says(spec_) if change.label in ties else (resource_change.field(change.label), *change.says)
        assert len(said) > 1, change
        silent += [(change.label, text, answer) for text in said if text not in answer.replace("[N]", ".N")]
    assert silent == []


def tie_says(spec_: dict) -> tuple[str, ...]:
    """Of what is wrong with several fields: the block in which it is, and the words of the reader, values among them."""
    fault = resource_cases.read(spec_)[0]
    if fault.what == "is missing." and fault.path == "spec.machineParams":
        return "spec.machineParams", "Required value"
    block = re.match(r"spec(\.machineParams\.\w+)?", fault.path)
    return block[0], resource_cases.words(fault)


def apply_and_get(control_plane, namespace: str, text: str, *arguments: str) -> dict:
    done = control_plane.kubectl("apply", *arguments, "-f", "-", stdin=text, namespace=namespace)
    assert done.returncode == 0, done.stderr
    stored = control_plane.kubectl("get", "rexp", "digits", "-o", "json", namespace=namespace).stdout
    return parse(shallow(stored.encode()))


def test_a_null_that_apply_dropped_is_found_by_the_reader(control_plane, namespace):
    stored = apply_and_get(control_plane, namespace, GOOD.replace("{lr: 0.1}", "{lr: 0.1, warmup: null}"))
    assert stored["spec"]["params"] == {"lr": 0.1}
    assert LAST_APPLIED in stored["metadata"]["annotations"]
    with pytest.raises(SpecError, match=r"spec\.params\.warmup: was null .* kubectl apply dropped it"):
        parse_experiment(stored)


# Without U+007F to U+009F, which kubectl itself refuses when it applies on the server side.
ODD = {
    "NFC é": "NFC é",
    "NFD e\u0301": "NFD e\u0301",
    "": "empty",
    "a.b/c~d[0]": "\u2028\u2029\ufeff",
    "emoji 🧪": "\U0010ffff",
    "nul": "a\0b",
    "a$(HOME)": "$(HOME) $$",
    "lines": "a\nb\r\nc\t",
    "deep": {"list": [1, [2, [3, {"x": []}]]], "map": {}},
    "numbers": [0.1, 1e-7, 5e-324, 1.7976931348623157e308, 2**53 - 1, -(2**53) + 1, 1e21, -0.0],
}


@pytest.mark.parametrize("way", [(), ("--server-side",)], ids=["client side", "server side"])
def test_odd_characters_and_numbers_have_one_key_in_a_file_and_from_the_server(control_plane, namespace, way):
    text = json.dumps(yaml.safe_load(GOOD) | {"spec": yaml.safe_load(GOOD)["spec"] | {"params": ODD}})
    (document,) = read_documents(text.encode(), name="odd.json")
    stored = parse_experiment(apply_and_get(control_plane, namespace, text, *way))
    assert stored.spec.keys() == parse_experiment(document.value).spec.keys()


# Beside those of ODD what YAML, as which a server reads what is applied, has no place for or reads otherwise.
ODDER = "🧪 \x01\x1b\x7f\x85\x9f \u2028 \ufeff\ufffe\uffff\U0010ffff"


def test_odd_characters_go_through_submit_and_the_end_of_a_log_into_the_status(place, runonce, write):
    place.start()
    word = "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in ODDER)
    done = runonce("submit", write("odd", "exit 3", change=("hello", f'"{word}"')))
    assert done.returncode == 0, done.stderr
    assert place.get("odd")["spec"]["params"] == {"word": ODDER}
    (pod,) = place.pods(1)
    place.kubelet.start(pod)
    place.kubelet.end(pod, 3, message=f"{ODDER} <&> no such file\n")
    failure = place.until("odd", "Failed")["modes"]["train"]["failure"]
    assert failure["logTail"] == f"{ODDER} <&> no such file\n"


def test_the_largest_params_pass_and_one_byte_more_is_the_readers_to_refuse(control_plane, namespace):
    room = 64 * 1024 - len('{"x":""}')
    stored = apply_and_get(control_plane, namespace, GOOD.replace("{lr: 0.1}", f"{{x: {'a' * room}}}"))
    parse_experiment(stored)
    stored = apply_and_get(control_plane, namespace, GOOD.replace("{lr: 0.1}", f"{{x: {'a' * (room + 1)}}}"))
    with pytest.raises(SpecError, match=r"spec\.params: is 65,537 bytes as JSON"):
        parse_experiment(stored)


def test_more_than_a_pod_can_be_told_is_the_readers_to_refuse(control_plane, namespace):
    env = json.dumps({f"N{number}": "a" * 4000 for number in range(60)})
    stored = apply_and_get(control_plane, namespace, GOOD.replace("params: {lr: 0.1}", f"env: {env}"), "--server-side")
    with pytest.raises(SpecError, match=r"spec: is 2\d\d,\d\d\d bytes as JSON; pods are told up to 196,608"):
        parse_experiment(stored)


# What the schema lets through: in the place of what, what is put, and the reason of the condition.
BEYOND = [
    ("codeVersion: label:1", "seed: 1", "CodeVersionMissing"),
    ("{lr: 0.1}", "{lr: {$int: '07'}}", "SpecError"),
    ("{lr: 0.1}", "{lr: 9007199254740993}", "SpecError"),
    ("{lr: 0.1}", "{$lr: 0.1}", "SpecError"),
    ("{lr: 0.1}", "{lr: 0.1, warmup: null}", "NullLost"),
    ("params: {lr: 0.1}", "params: {lr: 0.1}\n  hashExclude: [/lr]", "SpecError"),
    ("params: {lr: 0.1}", "hashAs: {lr: {$odd: 1}}", "SpecError"),
    ("params: {lr: 0.1}", f"hashAs: {{{'l' * 254}: 1}}", "SpecError"),
    ("params: {lr: 0.1}", "params: {lr: 0.1}\n  paramsOnlyIn: {/l~r: train}", "SpecError"),
    ("params: {lr: 0.1}", f"params: {{x: {'a' * 2**16}}}", "SpecError"),
    ("params: {lr: 0.1}", f"params: {{x: {'[' * 101 + ']' * 101}}}", "SpecError"),
    ("params: {lr: 0.1}", f"params: {{x: {'[' * 300 + ']' * 300}}}", "SpecError"),
    ("params: {lr: 0.1}", f"params: {{x: {'{a: ' * 300 + '1' + '}' * 300}}}", "SpecError"),
    ("params: {lr: 0.1}", f"params: {{x: {'[' * 2_000 + ']' * 2_000}}}", "SpecError"),
    ("nprocesses: 2", f"nprocesses: 3, gpuIds: {list(range(514))}", "SpecError"),
    ("params: {lr: 0.1}", f"env: {json.dumps({f'N{number}': 'a' * 4_000 for number in range(50)})}", "SpecError"),
    ("params: {lr: 0.1}", r'env: {A: "a\0b"}', "SpecError"),
    ("config: digits:Digits", r'command: [sh, "a\0b"]', "SpecError"),
    ("params: {lr: 0.1}", "profile: none", "UnknownProfile"),
    ("params: {lr: 0.1}", "store: none", "UnknownStore"),
]


@pytest.mark.parametrize(
    ("old", "new", "reason"), BEYOND, ids=[f"{new[:40]} {len(new)} {reason}" for _, new, reason in BEYOND]
)
def test_what_gets_past_the_schema_is_refused_in_the_words_of_the_command_line_and_heals(place, old, new, reason):
    good = GOOD.replace("label:1", "label:1\n  image: example.org/digits:1")
    assert old in good
    place.start()
    stored = apply_and_get(place.plane, place.namespace, good.replace(old, new))
    wait_for("a refusal", lambda: (condition(place.status("digits"), "Accepted") or {}).get("status") == "False")
    refused = condition(place.status("digits"), "Accepted")
    assert refused["reason"] == reason
    assert refused["message"] == clip(words(stored, place.cluster()))
    assert (place.phase("digits"), place.jobs()) == ("Failed", [])
    apply_and_get(place.plane, place.namespace, good)
    place.job()
    wait_for("its word", lambda: condition(place.status("digits"), "Accepted")["status"] == "True")


def test_as_large_as_the_server_takes_them_they_are_refused_and_others_go_on(place):
    """etcd takes 1.5 MiB, far more than an Experiment may have; of one that just fits the status has no room."""
    place.start()

    def post(name: str, size: int) -> int:
        body = resource_cases.resource(spec(params={"x": "a" * size}), name)
        return place.api.request("POST", place.experiments, body).status

    assert post("large", 1_400_000) == 201
    fits, beyond = 1_400_000, 1_600_000
    while beyond - fits > 64:
        size = (fits + beyond) // 2
        if post(f"x-{size}", size) == 201:
            fits = size
            place.delete(f"x-{size}")
        else:
            beyond = size
    assert post("brimful", fits) == 201
    place.apply("other")
    with place.working():
        place.until("other", "Succeeded")
    wait_for("a refusal", lambda: condition(place.status("large"), "Accepted"))
    refused = condition(place.status("large"), "Accepted")
    assert refused["message"].startswith(
        "spec.params: is 1,400,008 bytes as JSON; an API server takes up to 65,536 here."
    )
    assert [job["metadata"]["annotations"]["runonce.dev/experiment"] for job in place.jobs()] == ["other"]
    place.settle()
    assert "conditions" not in place.status("brimful")
    events = f"/api/v1/namespaces/{place.namespace}/events"
    told = place.api.must("GET", events, fieldSelector="involvedObject.name=brimful,reason=NotWritten")["items"]
    assert "too large" in told[0]["message"]
    place.apply("another", params={"lr": 0.2})
    with place.working():
        place.until("another", "Succeeded")


# The deepest that a server takes; with a record of who owns each level it could not read it again.
DEEPEST = 9_997


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")], ids=["lists", "mappings"])
@pytest.mark.parametrize("levels", [300, DEEPEST])
def test_one_that_is_nested_too_deeply_hides_no_other_from_a_controller_and_from_the_command_line(
    place, runonce, levels, opening, closing
):
    """Neither from one that lists it nor from one that is told of it."""

    def deep(name: str) -> bytes:  # Python's own encoder ends at 1,000
        text = json.dumps(resource_cases.resource(spec(params={"x": "deep"}), name))
        return text.replace('"deep"', opening * levels + "1" + closing * levels).encode()

    place.apply("other")
    place.api.must("POST", place.experiments, deep("listed"))
    place.start()
    place.api.must("POST", place.experiments, deep("told"))
    with place.working():
        place.until("other", "Succeeded")
    listed = runonce("cluster", "ls")
    assert (listed.returncode, "other" in listed.stdout) == (0, True), listed
    waited = runonce("submit", "tiny:Tiny", "--wait")  # it has no image, which it is told
    assert (waited.returncode, "spec.image" in waited.stdout) == (1, True), waited
    for name in ("listed", "told"):
        refused = wait_for("a refusal", lambda name=name: condition(place.status(name), "Accepted"))
        path = "spec.params.x" + ("[0][0][0]" if opening == "[" else ".a.a.a")
        said = f"{path}: is nested more than 128 levels deep. Flatten it."
        assert (refused["status"], refused["message"]) == ("False", said)


@pytest.mark.parametrize("way", [(), ("--server-side",)], ids=["client side", "server side"])
def test_ten_thousand_levels_are_kubectls_own_to_refuse(control_plane, namespace, way):
    deep = GOOD.replace("{lr: 0.1}", f"{{x: {'[' * 10_000 + ']' * 10_000}}}")
    done = control_plane.kubectl("apply", *way, "-f", "-", stdin=deep, namespace=namespace)
    assert (done.returncode, "exceeded max depth" in done.stderr) == (1, True), done.stderr


def words(stored: dict, cluster) -> str:
    """What the reader of files says, and of a cluster's own things the cluster."""
    try:
        parsed = parse_experiment(stored).spec
        cluster.check(parsed)
        parsed.keys()
    except InputError as error:
        return str(error)
    raise AssertionError("nothing is wrong with it")


def test_an_edit_that_is_refused_lets_go_of_the_job_and_a_revert_goes_on(place):
    place.start()
    place.apply("edited")
    place.until("edited", "Pending")
    place.job()
    place.apply("edited", params={"lr": {"$int": "07"}})
    wait_for("a refusal", lambda: condition(place.status("edited"), "Accepted")["status"] == "False")
    with place.working(lambda _: None):
        wait_for("the old Job to go", lambda: not place.jobs())
    place.apply("edited")
    with place.working():
        place.until("edited", "Succeeded")


def test_a_field_that_there_is_not_is_dropped_where_kubectl_is_told_to_take_it_and_a_warning_names_it(place):
    place.start()
    text = GOOD.replace("label:1", "label:1\n  image: example.org/digits:1\n  sede: 1")
    done = place.plane.kubectl("apply", "--validate=warn", "-f", "-", stdin=text, namespace=place.namespace)
    assert (done.returncode, 'unknown field "spec.sede"' in done.stderr) == (0, True), done.stderr
    assert "sede" not in place.get("digits")["spec"]
    assert place.job()["metadata"]["annotations"]["runonce.dev/experiment"] == "digits"


def test_the_largest_experiment_runs_and_its_job_holds_all_of_it(place):
    """Nearly 192 KiB of spec, half of it odd characters, go through the annotation of the pods."""
    env = {f"N{number}": "é\u2028🧪$(X)" * 300 for number in range(35)}
    place.start()
    large = spec(params=ODD | {"x": "a" * 50_000}, env=env)
    body = {"apiVersion": "runonce.dev/v1alpha1", "kind": "Experiment", "metadata": {"name": "large"}, "spec": large}
    place.api.must("POST", place.experiments, body)
    told = place.job()["spec"]["template"]["metadata"]["annotations"]["runonce.dev/spec"]
    assert len(told.encode()) > 180_000
    assert json.loads(told)["env"] == env
    with place.working():
        place.until("large", "Succeeded")


def test_what_an_earlier_schema_let_in_is_refused_in_the_same_words_and_its_status_can_still_be_written(
    own_control_plane, tmp_path
):
    """An administrator who updates the CRD does not look through what is stored."""
    plane = own_control_plane
    api = plane.api()
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/experiments.runonce.dev"
    ours = api.get(path)
    free = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    loose = {"op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec", "value": free}
    fields = {"op": "remove", "path": "/spec/versions/0/selectableFields"}
    api.must("PATCH", path, [loose, fields], content="application/json-patch+json")
    body = {
        "apiVersion": "runonce.dev/v1alpha1",
        "kind": "Experiment",
        "metadata": {"name": "old"},
        "spec": resource_cases.BASES[0] | {"machineParams": {"train": {"nprocesses": 2, "gpuIds": [0, 1, 2]}}},
    }
    experiments = "/apis/runonce.dev/v1alpha1/namespaces/default/experiments"
    wait_for("the loose schema", lambda: api.request("POST", experiments, body).status in (201, 409))
    strict = {"op": "replace", "path": "/spec/versions/0", "value": ours["spec"]["versions"][0]}
    api.must("PATCH", path, [strict], content="application/json-patch+json")
    other = body | {"metadata": {"name": "new"}}
    wait_for("the strict schema", lambda: api.request("POST", experiments, other, dryRun="All").status == 422)
    grant(plane)
    place = Place(plane, "default", tmp_path, Kubelet(api))
    place.start()
    try:
        wait_for("a refusal", lambda: condition(place.status("old"), "Accepted"))
        refused = condition(place.status("old"), "Accepted")
    finally:
        place.stop()
    assert (refused["status"], place.jobs()) == ("False", [])
    assert "spec.machineParams.train.gpuIds: has 3 different ids for 2 processes" in refused["message"]
