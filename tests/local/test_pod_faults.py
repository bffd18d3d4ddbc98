"""What goes wrong around a pod, over a real S3 server: each names its cause, loses nothing, and after the fix it goes on."""

from __future__ import annotations

import contextlib
import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from pod import KEY, Pod, shell
from weed import KEY as KEY_ID
from weed import SECRET, running

from runonce.experiment.blame import named, reason_of
from runonce.experiment.job import Failure
from runonce.store.commit import probe
from runonce.store.url import open_store

READER, READER_SECRET = "readerofrunonce", "readersecretofrunonce"
RIGHT = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_EC2_METADATA_DISABLED": "true"}
WORK = shell('echo made > "$RUNONCE_OUTPUT/file"')


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[object]:
    """With a user who may read, and no more."""
    credentials = [{"accessKey": READER, "secretKey": READER_SECRET}]
    reader = {"name": "reader", "credentials": credentials, "actions": ["Read", "List"]}
    with (
        pytest.MonkeyPatch.context() as patch,
        running(tmp_path_factory.mktemp("s") / "weed", identities=(reader,)) as made,
    ):
        for name, value in RIGHT.items():
            patch.setenv(name, value)
        yield made


@pytest.fixture
def pod(place, tmp_path, server) -> Pod:
    return Pod(place, tmp_path, server.url(f"t/{uuid.uuid4().hex}"))


def refused(pod: Pod, experiment: str, **env: str) -> tuple[int, str, str]:
    """(exit code, reason and text that a condition would have) of a pod that leaves nothing that could be committed."""
    code, out = pod.run(experiment, **env)
    assert "Traceback" not in out, out
    for secret in (SECRET, READER_SECRET, "wrongsecret"):
        assert secret not in out
    assert f"/{pod.attempt}/i0" not in "".join(entry.name for entry in open_store(pod.store).list("w/"))
    return code, *named(Failure(index=0, exit_code=code, reason=reason_of(code), log_tail=out))


def goes_on(pod: Pod, experiment: str = WORK, files: tuple[str, ...] = ("file",)) -> None:
    """The same pod once the cause is gone. A commit is not a worker's to write."""
    code, out = pod.run(experiment)
    assert code == 0, out
    assert tuple(file.path for file in pod.shard().files) == files
    assert probe(open_store(pod.store), KEY) is None


@pytest.mark.parametrize(
    ("env", "reason", "text"),
    [
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "HOME": "/nowhere"}, "BadCredentials", "are missing"),
        ({"AWS_SECRET_ACCESS_KEY": "wrongsecret"}, "BadCredentials", "missing, wrong or expired"),
        (
            {"AWS_ACCESS_KEY_ID": READER, "AWS_SECRET_ACCESS_KEY": READER_SECRET},
            "AccessDenied",
            "the credentials do not allow it",
        ),
    ],
    ids=["none", "wrong", "may only read"],
)
def test_credentials_that_will_not_do(pod, env, reason, text):
    code, said, why = refused(pod, WORK, **env)
    assert (code, said) == (1, reason)
    assert text in why
    goes_on(pod)


def test_a_bucket_that_is_not_there(pod):
    right, pod.store = pod.store, pod.store.replace("s3://records", "s3://absent").partition("&blobs")[0]
    code, out = pod.run(WORK)
    assert (code, "error (NoSuchBucket): " in out) == (1, True)
    pod.store = right
    goes_on(pod)


def test_a_clock_that_is_wrong(pod):
    """S3 refuses what was signed too long ago; the clock is put wrong where requests are signed."""
    wrong = "import botocore.auth as a, datetime as d, sys\nnow = a.get_current_datetime\n"
    wrong += "a.get_current_datetime = lambda *g, **k: now(*g, **k) - d.timedelta(hours=3)\n"
    folder = pod.place.folder / "clock"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(wrong)
    code, said, why = refused(pod, WORK, PYTHONPATH=str(folder))
    assert (code, said) == (1, "ClockSkew")
    assert "the clock of this machine is too far from that of the store" in why
    goes_on(pod)


def test_a_server_that_is_away(pod, server):
    server.kill()
    try:
        code, out = pod.run(WORK, RUNONCE_PATIENCE_S="1")
    finally:
        server.start()
    assert (code, "error (StoreUnreachable): " in out) == (1, True)
    goes_on(pod)


def test_a_module_that_the_image_lacks(pod):
    tiny = pod.place.runonce("render", "tiny.yaml").out
    text = (pod.place.folder / "tiny.py").read_text()
    missing = tiny.replace("tiny:Tiny", "gone:Tiny").replace("source:", "label:")
    code, said, why = refused(pod, missing)
    assert (code, said) == (78, "EntryError")
    assert "gone" in why
    pod.place.write("tiny.py", f"import absent_library\n{text}")
    broken = tiny.replace("source:", "label:")
    code, said, why = refused(pod, broken)
    assert (code, said) == (78, "EntryError")
    assert "absent_library" in why
    pod.place.write("tiny.py", text)
    goes_on(pod, tiny, ("metrics.jsonl", "weights.json"))


def test_a_newer_contract(pod):
    code, said, why = refused(pod, WORK, RUNONCE_CONTRACT="2")
    assert (code, said) == (78, "ContractTooNew")
    assert "Use an image with a release of Runonce not older than the controller's." in why
    goes_on(pod)


@contextlib.contextmanager
def small(folder: Path, size: str) -> Iterator[Path]:
    """A file system of this size of its own."""
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True)
    if done.returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_store_without_room(place, tmp_path):
    with small(tmp_path / "small", "256k") as folder:
        pod = Pod(place, tmp_path, str(folder / "store"))
        big = folder / "rest"
        big.write_bytes(b"x" * 180_000)
        work = shell('head -c 100000 /dev/urandom > "$RUNONCE_OUTPUT/file"')
        code, said, why = refused(pod, work)
        assert (code, said) == (1, "StoreFull")
        assert "Free some space, then run again." in why
        big.unlink()
        goes_on(pod, work)


def test_a_server_without_room(place, tmp_path, monkeypatch):
    """This server says only that something failed; what the worker had saved before is what it goes on from."""
    for name, value in RIGHT.items():
        monkeypatch.setenv(name, value)
    with small(tmp_path / "small", "512m") as folder, running(folder / "weed") as server:
        pod = Pod(place, tmp_path, server.url("full"))
        half = "echo half > $RUNONCE_CHECKPOINT/half; exit 3"
        rest = 'cat $RUNONCE_CHECKPOINT/half; head -c 3000000 /dev/urandom > "$RUNONCE_OUTPUT/file"'
        work = shell(f"if [ ! -e $RUNONCE_CHECKPOINT/half ]; then {half}; fi; {rest}")
        assert pod.run(work)[0] == 3
        big = folder / "rest"
        with big.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize - 200_000)
        code, said, why = refused(pod, work, RUNONCE_PATIENCE_S="1")
        assert (code, said) == (1, "StoreFailed")
        assert "Look at the store's own log: a full disk shows so too." in why
        big.unlink()
        code, out = pod.run(work)
        assert (code, out) == (0, "half\n")
        assert [file.path for file in pod.shard().files] == ["file"]


# --- edit, submit, run ---


def send(pod: Pod) -> str:
    """What `submit --with-source` sends, and the file that it applies."""
    program = (
        "import sys; from runonce.api.hand_over import send_code; from runonce.api.target import locate\n"
        "sys.path.insert(0, ''); send_code(locate('tiny.yaml'), sys.argv[1])"
    )
    command = [pod.place.command()[0], "-c", program, pod.store]
    subprocess.run(command, cwd=pod.place.folder, env=pod.place.env(), check=True, timeout=120)
    return str(pod.place.runonce("render", "tiny.yaml").out)


def test_edit_submit_run(pod):
    """The image keeps the code of the first day; each pod runs what was sent with its experiment, and says which."""
    image = (pod.place.folder / "tiny.py").read_text()
    seen = []
    for name in ("first.json", "second.json"):
        pod.place.write("tiny.py", image.replace('"weights.json"', f'"{name}"'))
        pod.place.write("parts.py", "")
        experiment = send(pod)
        pod.place.write("tiny.py", image)
        pod.round = name.partition(".")[0]  # the key is another one too
        code, out = pod.run(experiment)
        assert code == 0, out
        seen.append([file.path for file in pod.shard().files])
    assert seen == [["first.json", "metrics.jsonl"], ["metrics.jsonl", "second.json"]]


def test_code_that_nobody_sent_is_refused_until_it_is(pod):
    image = (pod.place.folder / "tiny.py").read_text()
    pod.place.write("tiny.py", image + "# edited\n")
    experiment = pod.place.runonce("render", "tiny.yaml").out
    pod.place.write("tiny.py", image)
    code, said, why = refused(pod, experiment)
    assert (code, said) == (78, "CodeError")
    assert "runonce submit --with-source" in why
    pod.place.write("tiny.py", image + "# edited\n")
    assert send(pod) == experiment
    pod.place.write("tiny.py", image)
    goes_on(pod, experiment, ("metrics.jsonl", "weights.json"))
