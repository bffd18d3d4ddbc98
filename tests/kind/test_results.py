"""Results of a real cluster: made once, found again, by whatever way they are asked for."""

from __future__ import annotations

import json

import pytest
import yaml
from cluster import EXAMPLES, ROOT, SYSTEM
from laptop import BORROWED, SITE_VOLUME, Laptop
from stores import PLAIN
from story import SALT, condition, program, train


@pytest.fixture
def laptop(story, tmp_path):
    return Laptop(story, tmp_path)


def test_the_chart_is_healthy(cluster):
    cluster.call("helm", "test", "runonce", "--namespace", SYSTEM, "--timeout", "2m")


def test_two_coupled_processes_train_two_independent_ones_test_and_the_same_again_is_a_hit(story, laptop):
    laptop.submit(laptop.digits("cold"))
    done = story.succeeded("cold", seconds=420)
    assert condition(done, "CacheHit")["status"] == "False"
    jobs = {job["metadata"]["labels"]["runonce.dev/mode"]: job["spec"] for job in story.all("jobs")}
    assert {mode: (spec["completions"], spec["parallelism"]) for mode, spec in jobs.items()} == {
        "train": (2, 2),
        "test": (2, 2),
    }
    # A group fails as one; each index of independent processes has its own retries.
    assert {mode: spec.get("backoffLimitPerIndex") for mode, spec in jobs.items()} == {"train": None, "test": 2}
    with PLAIN.forwarded(story.cluster, story.namespace) as url:
        found = laptop.json("show", "cold", "--store", url)
        laptop.runonce("verify", "--store", url)
        at_home = laptop.json("key", "cold.yaml")["modes"]
        found_there = laptop.json("run", "cold.yaml", "--store", url)["modes"]
    assert [one["cacheHit"] for one in found_there.values()] == [True, True]
    results = {one["mode"]: one for one in found}
    assert "weights.pt" in {file["path"] for file in results["train"]["files"]}
    assert results["test"]["metrics"]["accuracy"] > 0.5
    before = story.pods_ever()
    laptop.submit(laptop.digits("again"))
    again = story.succeeded("again", seconds=60)
    assert condition(again, "CacheHit")["status"] == "True"
    assert story.pods_ever() == before
    keys = [{mode: one["cacheKey"] for mode, one in found["status"]["modes"].items()} for found in (done, again)]
    assert keys[0] == keys[1] == {mode: one["cacheKey"] for mode, one in at_home.items()}


def test_what_a_laptop_made_is_the_clusters_hit_and_the_other_way_round(story, laptop):
    first, second = (program(name, f"echo {name} > $RUNONCE_OUTPUT/x", nprocesses=2) for name in ("here", "there"))
    with PLAIN.forwarded(story.cluster, story.namespace) as url:
        made = laptop.json("run", laptop.write(first), "--store", url)
        story.apply(first)
        found = story.succeeded("here", seconds=60)
        assert condition(found, "CacheHit")["status"] == "True"
        assert story.all("jobs") == []
        assert train(found)["cacheKey"] == made["modes"]["train"]["cacheKey"]
        story.apply(second)
        done = story.succeeded("there")
        again = laptop.json("run", laptop.write(second), "--store", url)
        assert again["modes"]["train"]["cacheHit"] is True
        assert again["modes"]["train"]["cacheKey"] == train(done)["cacheKey"]


def test_a_command_in_another_language_proves_its_files_and_takes_its_parameters(story, laptop):
    """examples/commands: a shell script, and one that ends in awk."""
    for path in (ROOT / "examples" / "commands").iterdir():
        (laptop.folder / path.name).write_bytes(path.read_bytes())
        (laptop.folder / path.name).chmod(0o755)
    text = (laptop.folder / "root.yaml").read_text()
    (laptop.folder / "root.yaml").write_text(text.replace("\nspec:\n", f"\nspec:\n  image: {EXAMPLES}\n"))
    laptop.submit("root.yaml", "--wait", "--timeout", "240")
    with PLAIN.forwarded(story.cluster, story.namespace) as url:
        laptop.runonce("pull", "root", "out", "--store", url)
    assert (laptop.folder / "out" / "root.txt").read_text().startswith("1.41421356")


SOURCE = """
from dataclasses import dataclass
from runonce import ExperimentConfig, ExperimentParameters, MachineParams
from {package}.rule import answer

@dataclass
class P(ExperimentParameters):
    x: int = 1

class C(ExperimentConfig):
    Params = P
    def tag(self):
        return "lab"
    def machine_params(self, mode="train", **kwargs):
        if mode != "train":
            raise NotImplementedError
        return MachineParams(nprocesses=1)
    def train(self, run):
        run.log({{"answer": answer(self.params.x)}}, step=0)
"""


def test_code_is_edited_submitted_and_run_without_an_image_of_its_own(story, laptop):
    (laptop.folder / "lab").mkdir()
    (laptop.folder / "lab" / "__init__.py").write_text("")
    (laptop.folder / "lab" / "trial.py").write_text(SOURCE.format(package="lab"))
    experiment = {
        "apiVersion": "runonce.dev/v1alpha1",
        "kind": "Experiment",
        "metadata": {"name": "trial"},
        "spec": {
            "config": "lab.trial:C",
            "params": {"x": 20},
            "keyMachine": True,
            "cacheKeyExtra": [SALT],
            "image": EXAMPLES,
            "volumes": [SITE_VOLUME],
            "machineParams": {"train": {"nprocesses": 1, "env": BORROWED}},
        },
    }
    file = laptop.write(experiment)
    answers, keys = [], []
    with PLAIN.forwarded(story.cluster, story.namespace) as url:
        for rule in ("return x + 1", "return x * 2", "return x + 1"):
            (laptop.folder / "lab" / "rule.py").write_text(f"def answer(x):\n    {rule}\n")
            laptop.submit(file, "--with-source", "--store", url, "--wait", "--timeout", "240")
            keys.append(train(story.succeeded("trial"))["cacheKey"])
            (shown,) = laptop.json("show", keys[-1], "--store", url)
            answers.append(shown["metrics"]["answer"])
    assert answers == [21, 40, 21]
    assert keys[0] == keys[2] != keys[1]
    assert condition(story.experiment("trial"), "CacheHit")["status"] == "True"


def test_gpus_are_asked_for_by_name_and_what_no_node_has_waits_with_the_reason(story):
    story.cluster.fake_gpus("example.com/gpu", 2)
    experiment = program("some", "echo done > $RUNONCE_OUTPUT/x", nprocesses=4, profile="fake")
    experiment["spec"]["machineParams"]["train"]["gpuIds"] = [0, 1]
    story.apply(experiment)
    story.succeeded("some")
    spec = story.job()["spec"]
    container = spec["template"]["spec"]["containers"][0]
    assert container["resources"]["limits"]["example.com/gpu"] in (1, "1")
    assert (spec["completions"], spec["parallelism"]) == (4, 2)
    # A group runs all at once, each of its processes on a GPU of its own.
    meet = "touch $RUNONCE_CHECKPOINT/$JOB_COMPLETION_INDEX; echo up; sleep 600"
    group = program("group", meet, nprocesses=2, coupled=True, profile="fake")
    group["spec"]["machineParams"]["train"]["gpuIds"] = [0, 1]
    story.apply(group)
    pods = story.told("up", 2)
    asked = [pod["spec"]["containers"][0]["resources"]["limits"]["example.com/gpu"] for pod in pods]
    assert asked == ["1", "1"]
    story.kubectl("delete", "experiment", "group")
    story.wait("free GPUs", lambda: not story.all("pods", labelSelector="runonce.dev/experiment=group"))
    many = program("many", "echo never", profile="fake")
    many["spec"]["machineParams"]["train"]["gpuIds"] = [0, 1, 2]
    story.apply(many)
    waiting = story.wait("the reason", lambda: _ready(story, "many", "Unschedulable"))
    assert waiting["status"]["phase"] == "Pending"
    assert "Insufficient example.com/gpu" in waiting["status"]["message"]
    # More of them, and it goes on by itself.
    story.cluster.fake_gpus("example.com/gpu", 4)
    story.succeeded("many")
    (job,) = story.all("jobs", labelSelector="runonce.dev/experiment=many")
    limits = job["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits["example.com/gpu"] in (3, "3")
    story.apply(program("unknown", "echo never", profile="nothing"))
    refused = story.wait("a refusal", lambda: condition(story.experiment("unknown"), "Accepted"))
    assert (refused["status"], refused["reason"]) == ("False", "UnknownProfile")


def _ready(story, name, reason):
    found = story.experiment(name)
    return found if condition(found, "Ready").get("reason") == reason else None


def test_the_same_folder_applied_twice_with_pruning_changes_nothing_and_a_reverted_edit_is_a_hit(story):
    """As Argo CD and Flux do it."""

    def apply(seed: int) -> None:
        experiment = program("git", f"echo {seed} > $RUNONCE_OUTPUT/x")
        experiment["metadata"]["labels"] = {"part-of": "git"}
        story.apply(experiment, "--prune", "-l", "part-of=git", "--prune-allowlist=runonce.dev/v1alpha1/Experiment")

    apply(1)
    first = story.succeeded("git")
    apply(1)
    assert story.experiment("git")["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    apply(2)
    second = story.succeeded("git")
    assert condition(second, "CacheHit")["status"] == "False"
    apply(1)
    third = story.succeeded("git")
    assert condition(third, "CacheHit")["status"] == "True"
    assert train(third)["cacheKey"] == train(first)["cacheKey"]


def test_what_is_left_out_of_the_folder_goes_with_its_pods_and_comes_back_as_a_hit(story):
    prune = ("--prune", "-l", "part-of=git", "--prune-allowlist=runonce.dev/v1alpha1/Experiment")

    def apply(*names: str) -> None:
        folder = [program(name, f"echo {name} > $RUNONCE_OUTPUT/x") for name in names]
        for experiment in folder:
            experiment["metadata"]["labels"] = {"part-of": "git"}
        story.kubectl("apply", *prune, "-f", "-", stdin=yaml.safe_dump_all(folder))

    def owners(kind: str) -> set[str]:
        return {found["metadata"]["labels"]["runonce.dev/experiment"] for found in story.all(kind)}

    apply("kept", "pruned")
    kept, first = story.succeeded("kept"), story.succeeded("pruned")
    apply("kept")
    story.wait("the end of its Job and pods", lambda: owners("jobs") == owners("pods") == {"kept"}, seconds=150)
    assert [found["metadata"]["name"] for found in story.all("experiments")] == ["kept"]
    before = story.pods_ever()
    apply("kept", "pruned")
    back = story.succeeded("pruned", seconds=60)
    assert condition(back, "CacheHit")["status"] == "True"
    assert train(back)["cacheKey"] == train(first)["cacheKey"]
    assert story.pods_ever() == before
    assert story.experiment("kept")["metadata"]["resourceVersion"] == kept["metadata"]["resourceVersion"]


def test_pods_of_experiments_pass_the_restricted_standard_and_others_do_not(story):
    """Every namespace of these tests is under it."""
    refused = story.kubectl("run", "plain", "--image", EXAMPLES, "--dry-run=server", "-o", "name", check=False)
    assert refused == ""
    story.apply(program("fine", "id -u > $RUNONCE_OUTPUT/uid"))
    story.succeeded("fine")
    labels = story.cluster.get(f"/api/v1/namespaces/{story.namespace}")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert json.dumps(story.all("events")).count("violates PodSecurity") == 0


def test_what_a_process_writes_is_told_while_it_runs_when_it_has_failed_and_when_its_pod_is_gone(story, laptop):
    """By `runonce cluster logs`, from the kubelet as long as it has the pod."""
    speaks = (
        "echo process $JOB_COMPLETION_INDEX is up; while [ ! -e /tmp/go ]; do sleep 0.2; done; echo no more; exit 3"
    )
    story.apply(program("speaker", speaks, nprocesses=2, coupled=True, retries=0))
    pods = story.told("is up", 2)
    assert laptop.cluster("logs", "speaker", "--index", "1").splitlines() == ["process 1 is up"]
    with laptop.following("logs", "speaker", "-f") as lines:
        assert lines.readline() == "process 0 is up\n"
        story.tell(pods[0], "touch /tmp/go")
        assert lines.readline() == "no more\n"
    failed = story.phase("speaker", "Failed", "Succeeded")
    assert train(failed)["failure"]["index"] == 0
    assert "no more" in laptop.cluster("logs", "speaker").splitlines()
    story.kubectl("delete", "pods", "--all")
    story.wait("no pod", lambda: not story.all("pods"))
    assert "no more" in laptop.cluster("logs", "speaker").splitlines()
    assert "Traceback" not in laptop.cluster("logs", "speaker", "--index", "7", code=2)
