"""What a worker with torch holds in memory while it publishes: parts of files, whatever their size."""

from __future__ import annotations

import os
import uuid

import pytest
from pod import Pod
from weed import KEY, SECRET

MIB = 1 << 20
SIZE = 256 * MIB

LOOP = """
import resource

def train(self, run):
    import torch
    piece = torch.ones(8 << 20, dtype=torch.uint8)
    with (run.output / "file").open("wb") as file:
        for number in range({pieces}):
            file.write((piece * number).numpy().tobytes())
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10, flush=True)

Tiny = type("Tiny", (Tiny,), {{"train": train}})
"""


@pytest.fixture
def pod(place, tmp_path, weed) -> Pod:
    return Pod(place, tmp_path, weed.url(f"memory/{uuid.uuid4().hex}"))


def peak(pod: Pod, experiment: str) -> tuple[int, str]:
    """(most bytes resident, output) of a pod that ends well."""
    process = pod.start(experiment, AWS_ACCESS_KEY_ID=KEY, AWS_SECRET_ACCESS_KEY=SECRET)
    assert process.stdout is not None
    with process.stdout as stdout:
        out = stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, out
    return usage.ru_maxrss << 10, out


def test_to_publish_a_large_file_takes_little_more_memory_than_the_loop_took(pod):
    pod.place.write("tiny.py", (pod.place.folder / "tiny.py").read_text() + LOOP.format(pieces=SIZE // (8 * MIB)))
    most, out = peak(pod, pod.place.runonce("render", "tiny.yaml").out)
    before = out.splitlines()[0]  # how far the publishing is may be told below
    print(f"{int(before) >> 20} MiB after the loop, {most >> 20} MiB at the most")
    assert most - int(before) < 150e6
