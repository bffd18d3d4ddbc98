"""What a worker without torch holds while its files go into S3: the same for a file of any size."""

from __future__ import annotations

import os
import uuid

import pytest
from pod import Pod, shell

from runonce.experiment.contract import HEALING

MIB = (32, 160)
MOST, APART = 350, 40

# In every process of the pod; the program that the worker starts is a shell.
AT_EXIT = """
import atexit, os, sys

def tell():
    with open("/proc/self/status") as status:  # not ru_maxrss: a child's begins with that of its parent
        held = next(line for line in status if line.startswith("VmHWM"))
    with open(os.environ["HELD"], "a") as file:
        print(int(held.split()[1]) // 1024, "torch" in sys.modules, file=file)

def end(code, exit=os._exit):  # a worker's own end: no thread that was left behind may keep it
    tell()
    exit(code)

atexit.register(tell)
os._exit = end
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="only Linux tells what a process held at its most")
@pytest.mark.parametrize("versioned", [True, False])
def test_a_worker_holds_no_more_for_a_larger_file_also_where_it_puts_all_bytes_again(place, tmp_path, weed, versioned):
    """MiB at its most: of the worker that stores a file first, and of one that heals a damaged result by the same."""
    pod = Pod(place, tmp_path, weed.url(f"t/{uuid.uuid4().hex}", versioned=versioned))
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(AT_EXIT)
    held: dict[str, list[int]] = {}
    for size in MIB:
        source = tmp_path / "source"
        with source.open("wb") as file:
            for _ in range(size):
                file.write(os.urandom(1 << 20))
        for what, pod.round in (("first", f"r{size}"), ("again", f"r{size}{HEALING}")):
            pod.attempt = f"{what}-{size}"
            env = {"PYTHONPATH": str(tmp_path / "site"), "HELD": str(tmp_path / pod.attempt)}
            code, out = pod.run(shell(f'cp {source} "$RUNONCE_OUTPUT/weights"'), **env)
            assert code == 0, out
            (stored,) = pod.shard().files
            assert stored.size == size << 20
            lines = [line.split() for line in (tmp_path / pod.attempt).read_text().splitlines()]
            assert {torch for _, torch in lines} == {"False"}
            held.setdefault(what, []).append(max(int(mib) for mib, _ in lines))
    print(f"files of {MIB} MiB, versions {versioned}: {held} MiB")
    for small, large in held.values():
        assert large < small + APART
        assert large < MOST
