"""The images hold what they claim, and nothing that a running pod does not need."""

from __future__ import annotations

import json
import re
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import runonce
from runonce.experiment.canonical import canonical
from runonce.experiment.contract import ATTEMPT, INDEX, SPEC_FILE, Contract

ROOT = Path(__file__).parents[2]
LOCKED = set(re.findall(r"^([a-z0-9][a-z0-9.-]*)==([^ ;]+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
TRAINING = ROOT / "tests" / "benchmarks" / "pods"
OF_PYTHON = {"pip", "setuptools"}  # a new environment has them, in versions of Python's own choice
MEGABYTE = 1_000_000
LARGEST = {"none": 250, "cpu": 1500, "cuda": 8000}  # megabytes, by TORCH=


def name_of(image) -> str:
    return str(image.name).rpartition("/")[2].partition(":")[0]


def installed(image) -> dict[str, str]:
    found: dict[str, str] = image.python(
        "import json, re; from importlib.metadata import distributions as all\n"
        "print(json.dumps({re.sub(r'[-_.]+', '-', d.name).lower(): d.version for d in all()}))"
    )
    return found


def test_it_runs_with_a_read_only_root_and_no_rights(image):
    done = image.run("version")
    assert done.returncode == 0, done.stderr
    assert runonce.__version__ in done.stdout


def test_it_is_nobodys_root(image):
    assert image.inspect()["Config"]["User"] == "65532:65532"
    assert image.python("import os; print([os.getuid(), os.getgid()])") == [65532, 65532]


def test_it_holds_the_locked_versions_and_no_others(image):
    found = {pair for pair in installed(image).items() if pair[0] not in OF_PYTHON}
    if image.torch == "cpu":  # its wheels are of another index, where the version has a name of its own: 2.15.0+cpu
        found = {(name, version.partition("+")[0]) if name == "torch" else (name, version) for name, version in found}
    assert found - LOCKED == {("runonce", runonce.__version__)}


def test_each_role_has_its_own_packages(image):
    names = set(installed(image))
    assert not {"pytest", "hatchling", "cyclonedx-bom"} & names
    assert names & {"torch", "numpy"} == ({"torch", "numpy"} if image.torch != "none" else set())
    assert bool(names & {"triton"} or any(name.startswith("nvidia-") for name in names)) == (image.torch == "cuda")
    assert ("kubernetes" in names) == ("prometheus-client" in names) == (name_of(image) == "controller")
    assert "boto3" in names
    assert ("pip" in names) == (name_of(image) == "worker"), "images are built FROM the worker's alone"


def test_there_is_no_compiler_in_it(image):
    found = image.python(
        "import json, shutil; print(json.dumps([p for p in ('gcc', 'cc', 'g++', 'make') if shutil.which(p)]))"
    )
    assert found == []


def test_its_bill_of_materials_lists_what_is_installed(image):
    sbom = image.python("print(open('/opt/runonce/sbom/runonce.cdx.json').read())")
    listed = {re.sub(r"[-_.]+", "-", part["name"]).lower(): part["version"] for part in sbom["components"]}
    assert sbom["bomFormat"] == "CycloneDX"
    assert listed == installed(image)


def test_its_labels_say_what_it_is(image):
    labels = image.inspect()["Config"]["Labels"]
    start = "org.opencontainers.image."
    assert labels[f"{start}title"] == f"runonce {name_of(image)}"
    assert labels[f"{start}version"] == runonce.__version__
    assert labels[f"{start}licenses"] == "Apache-2.0"
    assert re.fullmatch(r"[0-9a-f]{40}", labels[f"{start}revision"])


def test_torch_can_be_imported_where_it_is(image):
    if image.torch == "none":
        pytest.skip("this image was built without torch")
    assert image.python("import json, torch; print(json.dumps(torch.arange(3).tolist()))") == [0, 1, 2]


def test_it_is_small(image, record_property):
    """Beside its base; most of the controller is kubernetes and boto3, most of a worker torch where it has it."""
    own = sum(
        int(line.split("\t")[0])
        for line in image.call(
            "history", "--no-trunc", "--human=false", "--format", "{{.Size}}\t{{.CreatedBy}}", image.name
        ).stdout.splitlines()
        if "/opt/runonce" in line and "COPY" in line
    )
    record_property("megabytes", own // MEGABYTE)
    print(f"{image.name}, torch {image.torch}: {own // MEGABYTE} MB beside its base")
    assert 0 < own < LARGEST[image.torch] * MEGABYTE


def test_a_dockerfile_pins_its_base_and_copies_locked_names_before_the_source():
    for path in sorted((ROOT / "docker").glob("*.Dockerfile")):
        text = path.read_text()
        assert re.search(r"^ARG BASE_IMAGE=python:3\.\d+\.\d+\S*@sha256:[0-9a-f]{64}$", text, re.MULTILINE)
        assert text.index("docker/requirements") < text.index("--require-hashes") < text.index("COPY service")
        assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) == {"${BASE_IMAGE}"}


def test_all_that_torch_needs_is_installed_with_hashes_before_a_torch_of_another_index():
    """TORCH=cpu takes torch alone from TORCH_INDEX: what is left of the locked file has to be enough for it."""
    (program,) = re.findall(r"awk '([^']+)' torch\.txt", (ROOT / "docker" / "worker.Dockerfile").read_text())
    locked = ROOT / "docker" / "requirements" / "torch.txt"
    text = subprocess.run(["awk", program, str(locked)], capture_output=True, text=True, check=True).stdout
    found = set(re.findall(r"^([a-z0-9][a-z0-9.-]*)==", text, re.MULTILINE))
    assert len(re.findall(r"^\S+==.*\\\n +--hash=sha256:", text, re.MULTILINE)) == len(re.findall(r"==", text))
    assert not {name for name in found if name.startswith(("torch", "triton", "nvidia-", "cuda-"))}
    declared = [Requirement(line) for line in metadata.requires("torch") or ()]
    needed = {canonicalize_name(one.name) for one in declared if one.marker is None or one.marker.evaluate()}
    assert {name for name in needed if not re.match("nvidia-|cuda-|triton", name)} <= found


@pytest.mark.parametrize("name", ["controller", "worker", "torch"])
def test_what_images_install_is_what_is_locked(name):
    text = (ROOT / "docker" / "requirements" / f"{name}.txt").read_text()
    found = re.findall(r"^([a-z0-9][a-z0-9.-]*)==([^ ;]+)", text, re.MULTILINE)
    assert found
    assert set(found) - LOCKED == set()
    assert not re.search(r"https?://|index-url", text)


# --- a worker, as the first process of a container ----------------------------------------------------------


@pytest.fixture
def pod(image, tmp_path):
    """Options that give a container what a pod gets, with a store in a folder of this machine."""
    if name_of(image) != "worker":
        pytest.skip("the controller's image runs no experiment")
    store = tmp_path / "store"
    for folder in (store, tmp_path / "marks"):
        folder.mkdir()
        folder.chmod(0o777)
    contract = Contract(mode="train", cache_key="ab" * 32, round="r", total=1, store="/store", name="x")
    env = {**contract.to_env(), SPEC_FILE: "/runonce/spec.json", ATTEMPT: "uid", INDEX: "0"}

    def options(script: str = "", **fields: Any) -> tuple[str, ...]:
        what = {"command": ["sh", "-c", script]} if script else fields
        spec = {**what, "codeVersion": "label:x", "machineParams": {"train": {"nprocesses": 1}}}
        (tmp_path / "spec.json").write_bytes(canonical(spec))
        given = [part for name, value in env.items() for part in ("--env", f"{name}={value}")]
        mounts = (
            "--volume",
            f"{store}:/store",
            "--volume",
            f"{tmp_path / 'marks'}:/marks",
            "--volume",
            f"{tmp_path / 'spec.json'}:/runonce/spec.json:ro",
        )
        return ("--network", "none", *mounts, *given)

    return options


def test_a_worker_publishes_from_its_image(image, pod, tmp_path):
    done = image.run(options=pod("echo 1 > $RUNONCE_OUTPUT/one"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert [path.name for path in (tmp_path / "store" / "w").rglob("i0")] == ["i0"]


def test_it_trains_where_it_has_torch(image, pod, tmp_path):
    if image.torch == "none":
        pytest.skip("this image was built without torch")
    given = pod(config="trial:Trial", params={"steps": 3})
    done = image.run(options=(*given, "--volume", f"{TRAINING}:/work:ro"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "first step at" in done.stdout
    assert [path.name for path in (tmp_path / "store" / "w").rglob("i0")] == ["i0"]


def test_a_stopped_container_ends_with_75(image, pod, tmp_path):
    """SIGTERM to the first process, as the kubelet sends it."""
    started = image.call("run", "--detach", *_names(pod("touch /marks/up; exec sleep 600")), image.name)
    assert started.returncode == 0, started.stderr
    container = started.stdout.strip()
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "marks" / "up").exists():
            assert time.monotonic() < deadline, image.call("logs", container).stderr
            time.sleep(0.05)
        subprocess.run([image.docker, "stop", "--time", "30", container], check=True, capture_output=True)
        state = json.loads(image.call("inspect", container).stdout)[0]["State"]
        assert state["ExitCode"] == 75, image.call("logs", container).stderr
    finally:
        image.call("rm", "--force", container)


def _names(options: tuple[str, ...]) -> tuple[str, ...]:
    return ("--read-only", "--tmpfs", "/tmp:mode=1777", "--cap-drop", "ALL", *options)
