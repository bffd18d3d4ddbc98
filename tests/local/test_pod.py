"""What a pod gives a worker, and no more: the contract's variables, the spec's file, a folder for scratch."""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from pod import KEY, SHELL, Pod, shell

from runonce.author.bundle import pack
from runonce.author.document import read_documents
from runonce.experiment.spec import parse_experiment
from runonce.store.backend import shard_name, source_name
from runonce.store.url import open_store


@pytest.fixture
def pod(place, tmp_path) -> Pod:
    return Pod(place, tmp_path)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.01)


def test_a_worker_makes_its_own_output_folder_and_leaves_nothing_in_scratch(pod):
    assert pod.run(shell('echo done > "$RUNONCE_OUTPUT/file"')) == (0, "")
    assert [file.path for file in pod.shard().files] == ["file"]
    assert list(pod.scratch.iterdir()) == []


def test_a_program_in_a_pod_is_told_of_sigterm_by_its_worker(pod):
    """The kubelet signals the first process alone; on one machine the supervisor signals the group."""
    up = pod.place.folder / "up"
    process = pod.start(shell(f'trap "echo saved; exit 75" TERM; touch {up}; while :; do sleep 0.05; done'))
    wait_for(up)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=120)
    assert (process.returncode, out) == (75, "saved\n")


def test_a_program_without_a_handler_is_stopped_and_not_failed(pod):
    up = pod.place.folder / "up"
    process = pod.start(shell(f"touch {up}; exec sleep 600"))
    wait_for(up)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 75


def test_a_program_that_ends_well_when_it_is_told_to_end_is_stopped_and_not_published(pod):
    """It may have ended halfway; what it saved is there for the next attempt."""
    up = pod.place.folder / "up"
    out = 'echo half > "$RUNONCE_OUTPUT/file"'
    process = pod.start(shell(f'trap "exit 0" TERM; {out}; touch {up}; while :; do sleep 0.05; done'))
    wait_for(up)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 75
    assert open_store(pod.store).get(shard_name(KEY, "r", 1, "uid", 0)) is None


def listens(port: int) -> bool:
    lines = [line for table in Path("/proc/net").glob("tcp*") for line in table.read_text().splitlines()]
    return any(f":{port:04X} " in line and " 0A " in line for line in lines)


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="only Linux says who listens")
def test_a_process_that_waits_for_its_group_to_meet_ends_at_once(pod):
    """Nothing is to be saved, and a machine that is drained would else wait for all of the grace period."""
    text = pod.place.runonce("render", "tiny.yaml").out
    assert "nprocesses: 1" in text
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    pod.total = 2
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    both = text.replace("nprocesses: 1", "nprocesses: 2").replace("coupled: false", "coupled: true")
    process = pod.start(both, **group)
    deadline = time.monotonic() + 120
    while not listens(port):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (75, "was told to stop before the processes of its group had met\n")


@pytest.mark.parametrize(("waited_s", "code"), [(0, 75), (100, 1)])
def test_a_pod_whose_time_is_over_does_not_end_as_one_that_has_to_leave(pod, waited_s, code):
    """With 75 Kubernetes would put another in its place for ever. The kubelet wrote the spec when it took the pod."""
    up = pod.place.folder / "up"
    experiment = shell(f"touch {up}; exec sleep 600").replace("spec:\n", "spec:\n  activeDeadlineSeconds: 100\n")
    process = pod.start(experiment)
    wait_for(up)
    then = time.time() - waited_s
    os.utime(pod.spec, (then, then))
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == code
    assert ("error (DeadlineExceeded): it ran for spec.activeDeadlineSeconds, 100 s." in out) == (code == 1)


@pytest.mark.parametrize(("before", "code"), [("", 75), ("19", 75), ("20", 1)])
def test_a_program_that_stops_unasked_is_charged_in_the_end(pod, before, code):
    """Kubernetes counts what it does not charge, and puts another in its place for ever."""
    ended, out = pod.run(shell("exit 75"), RUNONCE_STOPS=before)
    assert ended == code
    assert ("error (TooManyStops): it ended with 75, which is not charged" in out) == (code == 1)


def test_a_program_that_dies_of_a_signal_ends_the_pod_as_a_shell_would(pod):
    assert pod.run(shell("kill -KILL $$"))[0] == 128 + signal.SIGKILL


def test_sigterm_before_the_workers_handler_is_there_is_not_lost(pod):
    """The first process of a pod ignores what it has no handler for, so `runonce worker` keeps it back."""
    never = pod.place.folder / "never"
    pod.place.write(
        "sitecustomize.py", "import os, signal, sys\nif 'worker' not in sys.argv: os.kill(os.getpid(), 15)\n"
    )
    code, _ = pod.run(shell(f"touch {never}"), PYTHONPATH=str(pod.place.folder))
    assert (code, never.exists()) == (75, False)


def test_a_worker_of_an_earlier_release_names_both_contracts(pod):
    code, out = pod.run(shell("true"), RUNONCE_CONTRACT="2")
    assert code == 78
    assert "the Job speaks contract 2, this worker contract 1" in out


def test_the_collector_of_cycles_rests_while_a_worker_starts_and_works_in_the_loop(pod):
    told = "print(gc.isenabled(), file=sys.stderr)"
    code = (pod.place.folder / "tiny.py").read_text().replace("for step in", f"{told}\n        for step in")
    pod.place.write("tiny.py", f"import gc, sys\n{told}\n{code}")
    assert pod.run(pod.place.runonce("render", "tiny.yaml").out) == (0, "False\nTrue\n")


def test_what_a_program_saved_on_its_way_is_there_though_its_worker_was_killed(pod):
    over = pod.place.folder / "over"
    script = (
        "if [ -e $RUNONCE_CHECKPOINT/half ]; then cat $RUNONCE_CHECKPOINT/half; exit 0; fi; "
        f"echo half > $RUNONCE_CHECKPOINT/half; while [ ! -e {over} ]; do sleep 0.05; done"
    )
    process = pod.start(shell(script), RUNONCE_CHECKPOINT_S="0")
    store, deadline = open_store(pod.store), time.monotonic() + 120
    while not list(store.list(f"w/{KEY}/r/1/k/folder/")):
        assert time.monotonic() < deadline, "it was never saved"
        time.sleep(0.05)
    process.kill()
    over.touch()
    process.communicate(timeout=120)
    assert pod.run(shell(script)) == (0, "half\n")


# --- code that came with the experiment ---------------------------------------------------------------------


@pytest.fixture
def sent(pod, monkeypatch):
    """An experiment whose code lies in the store alone; `edit` first changes what is packed."""

    def send(file: str = "tiny.yaml", *, edit: Callable[[bytes], bytes] = lambda data: data) -> str:
        text = str(pod.place.runonce("render", file).out)
        (document,) = read_documents(text.encode(), name=file)
        parsed = parse_experiment(document.value).spec
        with monkeypatch.context() as patch:
            patch.syspath_prepend(str(pod.place.folder))
            digest, data = pack(parsed, pod.place.folder)
        open_store(pod.store).put(source_name(digest), edit(data), create=True)
        return text

    return send


def test_code_that_the_image_lacks_comes_from_the_store(pod, sent):
    experiment = sent()
    (pod.place.folder / "tiny.py").unlink()
    assert pod.run(experiment)[0] == 0
    assert [file.path for file in pod.shard().files] == ["metrics.jsonl", "weights.json"]


def test_edited_code_wins_over_that_of_the_image(pod, sent):
    """Edit, submit, run: the image has the code of last week."""
    experiment = sent()
    pod.place.write("tiny.py", "raise SystemError('the code of the image was imported')\n")
    assert pod.run(experiment)[0] == 0


def test_a_commands_files_come_from_the_store_too(pod, sent):
    pod.place.write("run.sh", "#!/bin/sh\ncat words > $RUNONCE_OUTPUT/out\n").chmod(0o755)
    pod.place.write("words", "hello")
    command = SHELL.replace("[sh, -c, 'SCRIPT']", "[./run.sh]\n  code: [run.sh, words]")
    pod.place.write("program.yaml", command.replace("  codeVersion: label:one\n", ""))
    experiment = sent("program.yaml")
    (pod.place.folder / "run.sh").unlink()
    assert pod.run(experiment) == (0, "")
    assert [file.path for file in pod.shard().files] == ["out"]


def test_code_that_is_nowhere_is_named_with_both_ways_out(pod):
    experiment = pod.place.runonce("render", "tiny.yaml").out
    pod.place.write("tiny.py", (pod.place.folder / "tiny.py").read_text() + "# edited\n")
    code, out = pod.run(experiment)
    assert code == 78
    assert "but the code here is source:" in out
    assert "runonce submit --with-source" in out


def test_an_archive_of_other_code_is_refused_before_any_of_it_runs(pod, sent):
    def swap(_: bytes) -> bytes:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr("runonce-code.json", '{"format": 1, "path": ["."]}')
            archive.writestr("tiny.py", f"open({str(pod.place.folder / 'ran')!r}, 'w')\n")
        return out.getvalue()

    experiment = sent(edit=swap)
    (pod.place.folder / "tiny.py").unlink()
    code, out = pod.run(experiment)
    assert (code, "but the code here is source:" in out) == (78, True)
    assert not (pod.place.folder / "ran").exists()


def test_a_module_that_was_imported_before_from_elsewhere_is_found_out(pod, sent):
    experiment = sent()
    old = (pod.place.folder / "tiny.py").read_text().replace("weights.json", "other.json")
    pod.place.write("tiny.py", old)
    pod.place.write("sitecustomize.py", "import sys\nif 'worker' not in sys.argv: import tiny\n")
    code, out = pod.run(experiment, PYTHONPATH=str(pod.place.folder))
    assert (code, "came from elsewhere" in out) == (78, True)
    assert "tiny (" in out


def test_what_submit_sends_is_what_a_pod_takes(pod):
    program = (
        "import sys; from runonce.api.hand_over import send_code; from runonce.api.target import locate\n"
        "sys.path.insert(0, ''); found = locate('tiny.yaml'); assert send_code(found, sys.argv[1]) == send_code(found, sys.argv[1])"
    )
    command = [pod.place.command()[0], "-c", program, pod.store]
    subprocess.run(command, cwd=pod.place.folder, env=pod.place.env(), check=True, timeout=120)
    experiment = pod.place.runonce("render", "tiny.yaml").out
    (pod.place.folder / "tiny.py").unlink()
    assert pod.run(experiment)[0] == 0


def test_code_is_not_sent_to_a_place_that_no_pod_reaches(place):
    done = place.runonce("submit", "tiny.yaml", "--with-source")
    assert done.code == 2
    assert "which no pod of a cluster reaches. Give --store s3://" in done.err
