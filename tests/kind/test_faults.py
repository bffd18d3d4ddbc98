"""What clusters do to pods, Jobs, Experiments and to the controller; what is lost is made again, and nothing else is."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from cluster import BARE, SYSTEM, WORKER, credentials
from laptop import Laptop
from stores import PLAIN, reader
from story import condition, index, program, train, uid

# A program that is stopped and goes on: what its checkpoint folder holds is there at the next attempt.
GOES_ON = (
    "if [ -e $RUNONCE_CHECKPOINT/seen ]; then echo done > $RUNONCE_OUTPUT/x; exit 0; fi; "
    "touch $RUNONCE_CHECKPOINT/seen; echo up; sleep 600"
)


def test_a_failing_program_is_tried_again_and_its_last_words_are_in_the_status(story):
    story.apply(program("broken", "echo these are the last words; exit 3", retries=1))
    failed = story.phase("broken", "Failed", "Succeeded")
    failure = train(failed)["failure"]
    assert failed["status"]["phase"] == "Failed"
    assert (failure["exitCode"], "these are the last words" in failure["logTail"]) == (3, True)
    assert len(story.all("pods")) == 2


def test_an_index_that_crashes_is_tried_alone_and_what_is_done_stays_done(story):
    """A crash loop that ends at the second try, beside two indexes that never fail."""
    crash = (
        "echo $JOB_COMPLETION_INDEX > $RUNONCE_OUTPUT/x; [ $JOB_COMPLETION_INDEX = 1 ] || exit 0; "
        "[ -e $RUNONCE_CHECKPOINT/seen ] && exit 0; touch $RUNONCE_CHECKPOINT/seen; kill -SEGV $$"
    )
    story.apply(program("loop", crash, nprocesses=3, retries=2))
    done = story.succeeded("loop")
    assert sorted(map(index, story.all("pods"))) == [0, 1, 1, 2]
    assert train(done)["attempt"] == 1


def test_a_crash_loop_ends_with_the_last_of_its_retries(story):
    story.apply(program("loop", "kill -SEGV $$", retries=2, coupled=True))
    failed = story.phase("loop", "Failed", "Succeeded")
    assert failed["status"]["phase"] == "Failed"
    assert (train(failed)["attempt"], train(failed)["failure"]["exitCode"]) == (3, 139)


def test_wrong_configuration_is_final(story):
    story.apply(program("wrong", "exit 78", retries=5))
    failed = story.phase("wrong", "Failed", "Succeeded")
    assert failed["status"]["phase"] == "Failed"
    assert condition(failed, "Failed")["reason"] == "ConfigurationError"
    assert len(story.all("pods")) == 1


def test_an_edit_after_a_failure_goes_on_from_what_was_there(story):
    """More memory, another node: what is no part of the key is mended, and the same key succeeds."""
    needs = (
        '[ -n "$ROOM" ] || { touch $RUNONCE_CHECKPOINT/seen; echo no room; exit 3; }; '
        "[ -e $RUNONCE_CHECKPOINT/seen ] && echo went on > $RUNONCE_OUTPUT/x"
    )
    small = program("grown", needs, retries=0)
    story.apply(small)
    failed = story.phase("grown", "Failed", "Succeeded")
    assert failed["status"]["phase"] == "Failed"
    small["spec"]["machineParams"]["train"]["env"] = {"ROOM": "enough"}
    story.apply(small)
    done = story.succeeded("grown")
    assert train(done)["cacheKey"] == train(failed)["cacheKey"]
    assert condition(done, "Failed")["status"] == condition(done, "CacheHit")["status"] == "False"


def test_a_program_that_is_mended_after_a_failure_runs_under_its_new_key(story):
    story.apply(program("mended", "exit 3", retries=0))
    failed = story.phase("mended", "Failed", "Succeeded")
    assert failed["status"]["phase"] == "Failed"
    story.apply(program("mended", "echo 1 > $RUNONCE_OUTPUT/x", retries=0))
    done = story.succeeded("mended")
    assert train(done)["cacheKey"] != train(failed)["cacheKey"]
    assert "failure" not in train(done)


def test_a_pod_over_its_memory_limit_is_named_with_its_signal(story):
    before = oom_kills()
    eat = "exec python -c 'x = bytearray(1 << 30); print(len(x))'"
    story.apply(program("greedy", eat, retries=0, resources={"memory": "200Mi"}))
    failed = story.phase("greedy", "Failed", "Succeeded")
    assert failed["status"]["phase"] == "Failed"
    told = condition(failed, "Failed")
    assert told["reason"] in ("OOMKilled", "KilledKill")  # the kubelet does not always hear that it was for memory
    assert f"ended with {told['reason']} (exit code 137)" in told["message"]
    assert oom_kills() > before


def oom_kills() -> int:
    """Of this machine, whose kernel is that of the node: processes killed for want of memory."""
    return int(re.findall(r"^oom_kill (\d+)$", Path("/proc/vmstat").read_text(), re.MULTILINE)[0])


def test_a_process_that_hangs_is_named_with_its_line_and_after_an_edit_goes_on_from_its_checkpoint(story, tmp_path):
    laptop = Laptop(story, tmp_path)
    env = {"RUNONCE_STALL_S": "20", "RUNONCE_CHECKPOINT_S": "0.1"}  # the first step imports half of torch
    fields = {"config": "hangs:Hangs", "epochs": 10, "retries": 0, "tests": 0}
    laptop.submit(laptop.digits("hangs", env=env | {"HANG": "1"}, **fields))
    failed = story.phase("hangs", "Failed", "Succeeded")
    told = condition(failed, "Failed")
    assert told["reason"] == "Stalled"
    assert "process 1 ended with Stalled (exit code 79)" in told["message"]
    assert "hangs.py, line" in condition(failed, "Ready")["message"]
    laptop.submit(laptop.digits("hangs", env=env, **fields))
    done = story.succeeded("hangs")
    assert train(done)["cacheKey"] == train(failed)["cacheKey"]
    assert story.resumed(train(done)["job"]) > 0


@pytest.mark.parametrize("coupled", [False, True], ids=["independent", "coupled"])
def test_a_program_that_takes_longer_than_it_may_is_ended_and_fails(story, coupled):
    slow = program("slow", "sleep 600", nprocesses=2, coupled=coupled, retries=0, activeDeadlineSeconds=5)
    story.apply(slow)
    failed = story.phase("slow", "Failed", "Succeeded", seconds=180)
    assert condition(failed, "Failed")["reason"] == "DeadlineExceeded"
    assert len(story.pods_ever()) == 2  # the second of a group may be told to end before its own time is over


@pytest.mark.parametrize("how", ["evicted", "drained", "deleted"])
def test_a_pod_that_is_taken_away_costs_no_retry_and_loses_no_checkpoint(story, how):
    """Two coupled processes with no retry at all: the group goes on as attempt 2."""
    story.apply(program("moved", GOES_ON, nprocesses=2, coupled=True, retries=0))
    first, second = story.told("up", 2)
    if how == "evicted":
        story.evict(second)
    elif how == "deleted":
        story.kubectl("delete", "pod", first["metadata"]["name"], "--wait=false")
    else:
        node = first["spec"]["nodeName"]
        mine = ("--pod-selector", f"batch.kubernetes.io/job-name={story.job()['metadata']['name']}")
        try:
            story.cluster.kubectl("drain", node, *mine, "--delete-emptydir-data", "--timeout=180s")
        finally:
            story.cluster.kubectl("uncordon", node)
    done = story.succeeded("moved")
    assert train(done)["attempt"] == 2
    assert "failure" not in train(done)


def test_a_pod_that_is_told_to_end_as_it_starts_does_not_live_out_its_grace(story):
    """Until there is a handler the first process of a container hears of nothing, and the grace is two minutes."""
    for tenths in range(1, 7):
        name = story.apply(program(f"early-{tenths}", f"{GOES_ON} # {tenths}"))
        mine = f"runonce.dev/experiment={name}"
        story.wait("a pod with a node", lambda mine=mine: _placed(story.all("pods", labelSelector=mine)))
        time.sleep(
            tenths / 10
        )  # no wait: the moment that is tried, from the kubelet's first work to a program that runs
        story.kubectl("patch", "experiment", name, "--type=merge", "-p", '{"spec":{"suspend":true}}')
    story.wait("no pod", lambda: not story.all("pods"), seconds=60)


def _placed(pods):
    return bool(pods) and all(pod["spec"].get("nodeName") for pod in pods)


def test_an_independent_pod_that_is_deleted_is_replaced_alone(story):
    story.apply(program("moved", GOES_ON, nprocesses=2, retries=0))
    first, second = story.told("up", 2)
    story.kubectl("delete", "pod", first["metadata"]["name"], "--wait=false")
    story.wait("the replacement", lambda: train(story.experiment("moved")).get("succeeded") == 1)
    assert uid(second) in map(uid, story.all("pods", fieldSelector="status.phase=Running"))
    story.evict(second)
    done = story.succeeded("moved")
    assert train(done)["attempt"] == 1


def test_a_deleted_job_is_made_anew(story):
    story.apply(program("again", GOES_ON))
    story.told("up")
    first = story.job()
    story.kubectl("delete", "job", first["metadata"]["name"])
    story.succeeded("again")
    assert uid(story.job()) != uid(first)


def test_a_deleted_experiment_takes_its_pods_along(story):
    story.apply(program("gone", GOES_ON))
    story.told("up")
    story.kubectl("delete", "experiment", "gone")
    story.wait("an empty namespace", lambda: not story.all("pods") and not story.all("jobs"), seconds=150)


def test_a_deleted_namespace_goes_with_a_pod_that_runs_and_one_that_never_had_a_node(story):
    """Its pods go first, and their Jobs would hold the last ones for ever: the controller lets go of the Jobs."""
    story.apply(program("never", GOES_ON, nodeSelector={"example.com/no-such": "node"}))
    story.apply(program("runs", f"{GOES_ON} # another key"))
    story.told("up")
    story.cluster.kubectl("delete", "namespace", story.namespace, "--timeout=150s")


def test_a_controller_that_is_deleted_at_every_stage_makes_the_result_once(story):
    kill = ("delete", "pod", "-n", SYSTEM, "-l", "app.kubernetes.io/component=controller")
    story.apply(program("survivor", "echo up; while [ ! -e /tmp/go ]; do sleep 0.2; done; echo 1 > $RUNONCE_OUTPUT/x"))
    story.cluster.kubectl(*kill, "--grace-period=0", "--force")  # before its Job, or just after
    job = story.job()
    story.cluster.kubectl(*kill, "--wait=false")
    (pod,) = story.told("up")
    story.cluster.kubectl(*kill, "--grace-period=0", "--force")  # while it runs
    story.wait("Running", lambda: story.experiment("survivor")["status"].get("phase") == "Running")
    story.tell(pod, "touch /tmp/go")
    story.wait("the end of the pod", lambda: story.all("pods", fieldSelector="status.phase=Succeeded"))
    story.cluster.kubectl(*kill, "--grace-period=0", "--force")  # before the commit, or before its status
    done = story.succeeded("survivor")
    assert train(done)["attempt"] == 1
    assert uid(story.job()) == uid(job)
    assert condition(done, "CacheHit")["status"] == "False"
    assert len(story.all("pods")) == 1


# --- what an administrator or a user got wrong: told by name, and healed by what the message asks for -------


def _waits(story, name, reason):
    def there():
        found = story.experiment(name)
        return found if condition(found, "Ready").get("reason") == reason else None

    return story.wait(reason, there)


def test_an_image_that_is_not_there_is_told_and_the_right_one_is_had_at_once(story):
    wrong = program("wrong", "echo 1 > $RUNONCE_OUTPUT/x")
    wrong["spec"]["image"] = "localhost:1/no-such:1"
    story.apply(wrong)
    told = _waits(story, "wrong", "ImageUnavailable")
    assert "localhost:1/no-such:1" in told["status"]["message"]
    wrong["spec"]["image"] = WORKER
    story.apply(wrong)
    story.succeeded("wrong")


def test_an_image_without_runonce_is_final_at_once_and_with_the_right_one_it_goes_on(story):
    wrong = program("bare", "echo 1 > $RUNONCE_OUTPUT/x", nprocesses=2, coupled=True, retries=5)
    wrong["spec"]["image"] = BARE
    story.apply(wrong)
    failed = story.phase("bare", "Failed", "Succeeded")
    told = condition(failed, "Failed")
    assert (told["reason"], train(failed)["attempt"]) == ("NoProgram", 1)
    assert 'the image has no such program: "runonce"' in told["message"]
    wrong["spec"]["image"] = WORKER
    story.apply(wrong)
    assert train(story.succeeded("bare"))["cacheKey"] == train(failed)["cacheKey"]


def test_credentials_that_are_not_there_are_told_and_heal_by_themselves(story):
    story.apply(program("locked", "echo 1 > $RUNONCE_OUTPUT/x", store="locked"))
    told = _waits(story, "locked", "ContainerRefused")
    assert 'secret "own" not found' in told["status"]["message"]
    story.cluster.apply(credentials(story.namespace, "own"))
    story.succeeded("locked")


def test_a_key_that_may_not_write_is_named_and_after_the_mend_an_edit_goes_on_from_the_checkpoint(story):
    """The first pod may write, and leaves a checkpoint; that which takes its place may not."""
    story.cluster.apply(credentials(story.namespace, "own"))
    name = story.apply(program("locked", GOES_ON, coupled=True, retries=0, store="locked"))
    (first,) = story.told("up")
    story.cluster.apply(credentials(story.namespace, "own", reader()))
    story.evict(first)
    failed = story.phase(name, "Failed", "Succeeded")
    told = condition(failed, "Failed")
    assert (told["reason"], train(failed)["attempt"]) == ("AccessDenied", 2)
    assert "cannot write" in told["message"]
    story.cluster.apply(credentials(story.namespace, "own"))
    story.apply(program("locked", GOES_ON, coupled=True, retries=1, store="locked"))
    done = story.succeeded(name)
    assert train(done)["cacheKey"] == train(failed)["cacheKey"]


def test_code_of_another_version_is_named_and_goes_on_where_the_store_has_what_was_asked_for(story, tmp_path):
    laptop = Laptop(story, tmp_path)

    def edited(**fields):
        file = laptop.digits("edited", tests=0, **fields)
        with (tmp_path / "digits.py").open("a") as source:
            source.write("\nEDITED = True\n")
        return file

    laptop.submit(edited(retries=5))
    failed = story.phase("edited", "Failed", "Succeeded")
    told = condition(failed, "Failed")
    assert (told["reason"], train(failed)["attempt"]) == ("CodeError", 1)
    assert "submit --with-source" in condition(failed, "Ready")["message"]
    with PLAIN.forwarded(story.cluster, story.namespace) as url:
        laptop.submit(edited(retries=4), "--with-source", "--store", url)
    assert train(story.succeeded("edited"))["cacheKey"] == train(failed)["cacheKey"]


def test_a_module_that_the_image_does_not_have_is_final_and_named(story):
    experiment = program("lacking", "")
    del experiment["spec"]["command"]
    experiment["spec"] |= {"config": "nowhere.lab:C", "keyMachine": True}
    story.apply(experiment)
    failed = story.phase("lacking", "Failed", "Succeeded")
    assert condition(failed, "Failed")["reason"] == "EntryError"
    assert "nowhere" in train(failed)["failure"]["logTail"]
