"""What an administrator settles: one file, refused with every fault, and what an Experiment may ask of it."""

from __future__ import annotations

import pytest

from runonce.cli.controller import controller
from runonce.errors import InputError, SpecError
from runonce.experiment.spec import parse_experiment
from runonce.kube.cluster import Cluster, Signing, parse_cluster

TEXT = """
cluster: north
namespaces: [team-a]
stores: {default: {url: "s3://b/{namespace}", secretName: s}}
profiles:
  mig: {gpuResource: nvidia.com/mig-1g.10gb, tolerations: [{key: gpu, operator: Exists}], nodeSelector: {a: b}}
workerImage: worker:1
port: 9090
workers: 4
logLevel: debug
signing: {keyFile: /key, required: true}
"""


def spec(**changes):
    fields = {"config": "m:C", "codeVersion": "label:x", "machineParams": {"train": {"nprocesses": 1}}} | changes
    metadata = {"name": "x"}
    return parse_experiment(
        {"apiVersion": "runonce.dev/v1alpha1", "kind": "Experiment", "metadata": metadata, "spec": fields}
    ).spec


def test_a_file_says_all_of_it():
    settled = parse_cluster(TEXT)
    assert (settled.cluster, settled.namespaces, settled.port, settled.workers) == ("north", ("team-a",), 9090, 4)
    assert settled.store(spec()).url_for("team-a") == "s3://b/team-a"
    assert settled.profile(spec(profile="mig")).node_selector == {"a": "b"}
    assert settled.signing is not None
    assert settled.signing.required


def test_a_controller_without_the_keys_it_is_told_of_does_not_start(tmp_path):
    """Who asks for signatures must not run without them and believe that they are checked."""
    (tmp_path / "config.yaml").write_text(TEXT)
    with pytest.raises(InputError, match="signing: /key cannot be read: No such file"):
        controller.main(["--config", str(tmp_path / "config.yaml")], standalone_mode=False)


def test_the_keys_of_a_cluster_are_those_of_its_file(tmp_path):
    (tmp_path / "key").write_text(f"one {'6e' * 32}")
    for required in (True, False):
        keyring = Cluster(signing=Signing(key_file=str(tmp_path / "key"), required=required)).keyring()
        assert (keyring.keys[0].id, keyring.required) == ("one", required)
    assert Cluster().keyring().keys == ()


@pytest.mark.parametrize("text", ["", "{}", "stores: {}"])
def test_a_file_may_leave_everything_to_the_defaults(text):
    assert parse_cluster(text) == Cluster()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("store: {}", "store: is no field here. Did you mean stores?"),
        ("stores: {default: {uri: x}}", "stores.default.url: is missing. Give it."),
        ("stores: {default: {url: http://x}}", "stores.default.url: is 'http://x'; the form ^(s3|file):// is meant"),
        ("port: 0", "port: is 0; input should be greater than or equal to 1."),
        ("[1]", "is [1]; a mapping is meant."),
        ("a: [", "the configuration is no YAML"),
    ],
)
def test_a_file_that_cannot_be_is_refused_with_the_place(text, fault):
    with pytest.raises(SpecError) as caught:
        parse_cluster(text)
    assert fault in str(caught.value)


def test_what_a_cluster_does_not_have_is_told_all_at_once_with_what_it_has():
    with pytest.raises(SpecError) as caught:
        Cluster(stores={"team": parse_cluster(TEXT).stores["default"]}).check(spec(profile="a100"))
    assert [str(fault) for fault in caught.value.faults] == [
        "spec.profile: is 'a100', which this cluster does not have. It has no profiles.",
        "spec.store: is 'default', which this cluster does not have. It has team.",
        "spec.image: is missing, and this cluster has no image for Experiments that name none. "
        "Name the image that has your code.",
    ]
    assert caught.value.reason == "UnknownProfile"


def test_a_misspelled_profile_gets_a_suggestion():
    with pytest.raises(SpecError, match="Did you mean mig"):
        parse_cluster(TEXT).check(spec(profile="mih"))


def test_a_profile_of_shared_units_allows_what_whole_gpus_do_not():
    coupled = {"machineParams": {"train": {"nprocesses": 2, "gpuIds": [0]}}}
    parse_cluster(TEXT).check(spec(profile="mig", **coupled))
    with pytest.raises(InputError, match="2 coupled processes"):
        parse_cluster(TEXT).check(spec(**coupled))


def test_a_spec_that_the_cluster_can_serve_passes():
    parse_cluster(TEXT).check(spec())
