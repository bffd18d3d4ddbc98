"""What a checkpoint of 200 MB into S3 adds to a training, beside `torch.save` of the same to a local disk in a plain loop.

The server shares the machine: what it takes of it is counted as ours.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

from bench_train import checkpoints
from weed import KEY, SECRET, running

if __name__ == "__main__":
    os.environ |= {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
    with tempfile.TemporaryDirectory() as name, running(Path(name) / "weed") as server:
        checkpoints(server.url("checkpoints"))
