"""submit and the words of `cluster`, and Python's submit, as a user has them: against a real API server, with a controller."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from control_plane import wait_for

from runonce import submit
from runonce.errors import InputError, RunFailed


def test_what_is_submitted_is_complete_and_is_followed_to_its_end(place, runonce):
    place.cluster_changes["worker_image"] = "example.org/tiny:1"
    place.start()
    with place.working():
        done = runonce("submit", "tiny:Tiny", "-p", "lr=0.5", "--wait", "-o", "json")
    assert done.returncode == 0, done.stderr
    (told,) = json.loads(done.stdout)
    assert (told["phase"], told["modes"]["train"]["cacheHit"]) == ("Succeeded", False)
    spec = place.get(told["name"])["spec"]
    assert (spec["params"], spec["codeVersion"][:7]) == ({"lr": 0.5}, "source:")
    assert f"{told['name']}  train  Succeeded" in done.stderr
    again = runonce("submit", "tiny:Tiny", "-p", "lr=0.5", "--wait")
    assert again.returncode == 0
    assert again.stdout.startswith(f"{told['name']}  succeeded")
    head, row = runonce("cluster", "ls").stdout.splitlines()
    assert head.split() == ["NAME", "MODE", "PHASE", "KEY", "MESSAGE"]
    assert row.split()[:3] == [told["name"], "train", "succeeded"]
    everywhere = json.loads(runonce("cluster", "ls", "-A", "-o", "json").stdout)
    assert [one for one in everywhere if one["namespace"] == place.namespace] == [told | {"namespace": place.namespace}]


def test_a_failure_is_told_with_its_end_and_ends_with_1(place, runonce):
    place.cluster_changes["worker_image"] = "example.org/tiny:1"
    place.start()
    submitted = runonce("submit", "tiny:Tiny", "-o", "json")
    (name,) = json.loads(submitted.stdout)
    (pod,) = place.pods(1)
    place.kubelet.start(pod)
    place.kubelet.end(pod, 78, message="no such data set")
    wait_for("its failure", lambda: place.phase(name) == "Failed")
    done = runonce("submit", "tiny:Tiny", "--wait")
    assert done.returncode == 1
    shown = runonce("cluster", "show", name)
    assert "process 0 ConfigurationError, exit code 78" in shown.stdout
    assert "no such data set" in shown.stdout


def test_logs_follow_a_process_while_it_runs_and_of_a_lost_pod_the_end_is_kept(place, runonce, node, write, tmp_path):
    place.start()
    script = "echo first line; while [ ! -e go ]; do sleep 0.05; done; echo last line; exit 3"
    with node.playing(place.namespace, node.run_pod):
        runonce("submit", write("slow", script))
        wait_for("it to run", lambda: place.phase("slow") == "Running")
        assert runonce("cluster", "logs", "slow", "--index", "7").returncode == 2
        wait_for("its line", lambda: runonce("cluster", "logs", "slow").stdout == "first line\n")
        (tmp_path / "go").touch()
        followed = runonce("cluster", "logs", "slow", "--follow")
        assert followed.stdout == "first line\nlast line\n"
        place.until("slow", "Failed")
        for pod in place.kubelet.pods(place.namespace):
            place.api.request("DELETE", f"/api/v1/namespaces/{place.namespace}/pods/{pod['metadata']['name']}")
        wait_for("no pod", lambda: not place.kubelet.pods(place.namespace))
    assert runonce("cluster", "logs", "slow").stdout == "first line\nlast line\n"


def test_the_log_of_a_pod_that_does_not_run_yet_is_an_answer_in_words_and_follow_waits_for_it(
    place, runonce, node, write
):
    place.start()
    runonce("submit", write("late", "echo hello"))
    wait_for("its Job", lambda: place.status("late").get("modes", {}).get("train", {}).get("jobUid"))
    wait_for("its pod", lambda: place.kubelet.pods(place.namespace))
    told = runonce("cluster", "logs", "late")
    assert (told.returncode, told.stdout) == (2, "")
    assert "process 0 has written nothing yet" in told.stderr
    with node.playing(place.namespace, node.run_pod):
        assert runonce("cluster", "logs", "late", "--follow").stdout == "hello\n"


def test_wait_and_follow_tell_every_change_and_end_with_the_experiment(place, runonce, write):
    place.start()
    path = write("told", "true")
    assert runonce("submit", path).returncode == 0
    early = runonce("submit", path, "--wait", "--timeout", "0.5")
    assert (early.returncode, early.stdout.split()[:2]) == (75, ["told", "pending"])
    with place.working():
        done = runonce("cluster", "show", "told", "--follow", "-o", "json")
    assert (done.returncode, json.loads(done.stdout)["phase"]) == (0, "Succeeded"), done.stderr
    assert "told  train  Succeeded" in done.stderr


def test_what_an_earlier_spec_has_come_to_is_not_told_of_the_one_that_is_waited_for(place, runonce, write):
    place.start()
    with place.working():
        assert runonce("submit", write("told", "true"), "--wait").returncode == 0
        again = runonce("submit", write("told", "exit"), "--wait")
    assert again.returncode == 0
    assert again.stderr.count("Succeeded") == 1, again.stderr


def test_an_experiment_that_is_deleted_while_it_is_waited_for_ends_the_waiting(place, runonce, write):
    place.start()
    runonce("submit", write("gone", "true"))
    place.until("gone", "Pending")
    position = place.plane.audit_position()
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(runonce, "cluster", "show", "gone", "--follow")
        wait_for(
            "its watch", lambda: any(call["verb"] == "watch" for call in place.plane.calls("admin", since=position))
        )
        place.delete("gone")
        done = waiting.result()
    assert done.returncode == 1
    assert "was deleted before it ended" in done.stdout


def test_a_grid_is_submitted_point_by_point_and_each_is_named(place, runonce, write):
    done = runonce("submit", write("sweep", "true"), "--grid", "word=[a, b]")
    names = [line.split()[0].partition("/")[2] for line in done.stdout.splitlines()]
    assert [place.get(name)["spec"]["params"]["word"] for name in names] == ["a", "b"]
    assert 'word="a"' in done.stdout or "word=a" in done.stdout


def test_the_namespace_labels_and_annotations_of_a_file_are_its_experiments(place, runonce, write):
    metadata = (
        f"name: there, namespace: {place.namespace}, labels: {{team: a}}, annotations: {{runonce.dev/rerun: '1e3'}}"
    )
    path = write("there", "true", change=("name: there", metadata))
    assert runonce("submit", path).returncode == 0
    found = place.get("there")["metadata"]
    assert (found["labels"], found["annotations"]) == ({"team": "a"}, {"runonce.dev/rerun": "1e3"})
    other = runonce("submit", path, "-n", "default")
    assert other.returncode == 2
    assert f"metadata.namespace: is {place.namespace} in" in other.stderr
    assert json.loads(runonce("render", path, "-o", "json").stdout)["metadata"]["namespace"] == place.namespace


def test_python_submits_waits_and_reads_the_result(place, runonce, node, write, monkeypatch):
    monkeypatch.setenv("RUNONCE_HOME", str(place.folder.parent / "home"))
    place.start()
    options = {"namespace": place.namespace, "kubeconfig": str(place.plane.kubeconfig())}
    script = '[ "$1" = bad ] && { echo no such word; exit 3; }; echo "$1" > "$RUNONCE_OUTPUT/word"'
    good, bad = submit(write("words", script), grid={"word": ["good", "bad"]}, **options)
    assert (good.namespace, good.point, bad.point) == (place.namespace, {"word": "good"}, {"word": "bad"})
    with node.playing(place.namespace, node.run_pod):
        assert [good.wait(), bad.wait()] == ["Succeeded", "Failed"]
    assert (good.phase, good.is_hit) == ("Succeeded", False)
    assert good.result("train").path("word").read_text() == "good\n"
    with pytest.raises(RunFailed, match="no such word"):
        bad.result("train")
    with pytest.raises(InputError, match="no mode test"):
        good.result("test")
    (again,) = submit(write("again", script, change=("hello", "good")), **options)
    assert (again.wait(60), again.is_hit) == ("Succeeded", True)
    (waiting,) = submit(write("waits", script), **options)
    assert waiting.wait(0.2) == "Pending"
    with pytest.raises(InputError, match="has no result of train"):
        waiting.result("train")


def test_every_document_is_checked_before_the_first_is_sent(place, runonce, write, tmp_path):
    good, bad = (
        write("good", "true"),
        write("bad", "true", change=("nprocesses: 1", "nprocesses: 2, gpuIds: [0], coupled: true")),
    )
    both = tmp_path / "both.yaml"
    both.write_text("---".join(Path(path).read_text() for path in (good, bad)))
    done = runonce("submit", str(both))
    assert done.returncode == 2
    line = both.read_text().partition("gpuIds")[0].count("\n") + 1
    assert f"both.yaml, line {line}: spec.machineParams.train.gpuIds" in done.stderr
    assert place.api.must("GET", place.experiments)["items"] == []


def test_a_user_without_rights_is_told_which_are_missing(place, runonce, write):
    config = str(place.plane.kubeconfig("nobody"))
    for arguments in (
        ("submit", write("mine", "true")),
        ("cluster", "ls"),
        ("cluster", "show", "mine"),
        ("cluster", "logs", "mine"),
        ("cluster", "pull", "mine"),
        ("cluster", "explain", "mine"),
    ):
        done = runonce(*arguments, "--kubeconfig", config, "-n", place.namespace)
        assert done.returncode == 2, done
        assert 'User "nobody" cannot' in done.stderr
        assert "Ask for the right to" in done.stderr


def test_contexts_and_namespaces_are_those_of_kubectl(place, runonce, write, tmp_path):
    """One file with two contexts, of which the current one has no server."""
    found = json.loads(place.plane.kubeconfig(namespace=place.namespace).read_text())
    found["clusters"].append({"name": "away", "cluster": {"server": "https://127.0.0.1:1"}})
    found["contexts"].append({"name": "away", "context": {"cluster": "away", "user": "admin"}})
    config = tmp_path / "config"
    config.write_text(json.dumps(found | {"current-context": "away"}))
    chosen = ("--kubeconfig", str(config), "--context", "local")
    assert runonce("submit", write("here", "true"), *chosen).stdout == f"{place.namespace}/here  submitted\n"
    assert "here" in runonce("cluster", "ls", *chosen).stdout
    assert "no Experiments in namespace default" in runonce("cluster", "ls", *chosen, "-n", "default").stderr
    away = runonce("cluster", "ls", "--kubeconfig", str(config))
    assert away.returncode == 1
    assert "does not answer" in away.stderr
    assert "Traceback" not in away.stderr


def test_what_cannot_be_is_told_in_words(place, runonce):
    for arguments, words in (
        (("cluster", "show", "nobody"), "no Experiment nobody is in namespace"),
        (("cluster", "ls", "--context", "nowhere"), "no cluster can be found"),
        (("submit", "tiny:Nothing"), "Nothing"),
        (("submit", "tiny:Tiny", "--with-source"), "no pod of a cluster reaches"),
        (("cluster", "pull", "nobody"), "no Experiment nobody is in namespace"),
        (("cluster", "explain", "nobody"), "no Experiment nobody is in namespace"),
        (("cluster", "logs", "nobody"), "no Experiment nobody is in namespace"),
    ):
        done = runonce(*arguments)
        assert done.returncode == 2, done
        assert words in done.stderr
        assert "Traceback" not in done.stderr


def test_a_variable_that_another_tool_left_on_the_cluster_is_told_before_anything_is_changed(place, runonce, write):
    """Server-side apply keeps what others set, so that the key would not be the one that was rendered."""
    left = ("params:", "env: {OURS: a, LEFT: b}\n  params:")
    path = write("shared", "true", change=left)
    assert place.plane.kubectl("apply", "-f", path, namespace=place.namespace).returncode == 0
    before = place.get("shared")["metadata"]["resourceVersion"]
    done = runonce("submit", write("shared", "true", change=("params:", "env: {OURS: a}\n  params:")))
    assert done.returncode == 2, done
    assert "kubectl-client-side-apply has set spec.env.LEFT: it would have another key" in done.stderr
    assert place.get("shared")["metadata"]["resourceVersion"] == before
    same = runonce("submit", write("shared", "true", change=left))
    assert same.returncode == 0, same.stderr
    place.plane.kubectl(
        "patch", "rexp", "shared", "--type=merge", "-p", '{"spec": {"suspend": true}}', namespace=place.namespace
    )
    again = runonce("submit", path)
    assert again.returncode == 0, again.stderr  # what another sets and no key counts is theirs


def test_parameters_are_one_whole_so_that_none_is_left_that_another_tool_set(place, runonce, write):
    path = write("whole", "true", change=("word: hello", "word: hello, left: 1"))
    assert place.plane.kubectl("apply", "-f", path, namespace=place.namespace).returncode == 0
    assert runonce("submit", write("whole", "true")).returncode == 0
    assert place.get("whole")["spec"]["params"] == {"word": "hello"}


def test_what_the_server_refuses_of_one_leaves_all_as_it_was(place, runonce, write, tmp_path):
    """Here by an administrator's own policy, of which nobody knows outside."""
    policy = {
        "metadata": {"name": place.namespace},
        "spec": {
            "matchConstraints": {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": place.namespace}},
                "resourceRules": [
                    {"apiGroups": ["runonce.dev"], "apiVersions": ["*"], "operations": ["CREATE"], "resources": ["*"]}
                ],
            },
            "validations": [{"expression": "object.metadata.name != 'second'", "message": "no second ones here"}],
        },
    }
    binding = {
        "metadata": {"name": place.namespace},
        "spec": {"policyName": place.namespace, "validationActions": ["Deny"]},
    }
    group = "/apis/admissionregistration.k8s.io/v1"
    place.api.must("POST", f"{group}/validatingadmissionpolicies", policy)
    place.api.must("POST", f"{group}/validatingadmissionpolicybindings", binding)
    second = write("second", "true")
    try:
        wait_for("the policy", lambda: "no second" in place.plane.kubectl(
            "apply", "--dry-run=server", "-f", second, namespace=place.namespace).stderr)  # fmt: skip
        both = tmp_path / "both.yaml"
        both.write_text("---".join(Path(path).read_text() for path in (write("first", "true"), second)))
        done = runonce("submit", str(both))
    finally:
        for kind in ("validatingadmissionpolicybindings", "validatingadmissionpolicies"):
            place.api.must("DELETE", f"{group}/{kind}/{place.namespace}")
    assert done.returncode == 2, done
    assert "no second ones here" in done.stderr
    assert place.api.must("GET", place.experiments)["items"] == []
