"""An experiment that is a program in any language: its arguments, its environment, its exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runonce.errors import Fault, SpecError
from runonce.experiment.arguments import decoded, expand
from runonce.experiment.contract import CHECKPOINT, DONE, INPUT_TRAIN, OUTPUT, PARAMS, STOPPED
from runonce.experiment.metrics import METRICS, last_values, parse_metrics, unreadable
from runonce.experiment.spec import ExperimentSpec
from runonce.worker.loop import StopRequest
from runonce.worker.saved import SavedFolder


def run_command(
    spec: ExperimentSpec,
    saved: SavedFolder,
    output: Path,
    inputs: Mapping[str, Path],
    scratch: Path,
    stop: StopRequest,
    checkpoint_s: float,
) -> tuple[int, dict[str, Any]]:
    """Run it in the working directory; what it writes to the output folder is the artifact set.

    What lies in its checkpoint folder when it ends without success, or lay there at most about checkpoint_s before a
    death of this process, is there again at the next attempt.
    Returns its exit code, for a signal 128 and its number, as a shell does.
    """
    params = decoded(spec.params)
    path = scratch / "params.json"
    path.write_text(json.dumps(params), encoding="utf-8")
    checkpoint = scratch / "checkpoint"
    checkpoint.mkdir()
    saved.restore(checkpoint)
    env = {**os.environ, PARAMS: str(path), OUTPUT: str(output), CHECKPOINT: str(checkpoint)}
    if "train" in inputs:
        env[INPUT_TRAIN] = str(inputs["train"])
    arguments = expand(spec.command or (), params)
    with saved.streamed(checkpoint, every_s=checkpoint_s):
        program = _started(arguments, env)
        stop.pass_to(program)
        code = program.wait()
    if stop.asked and code in (DONE, -signal.SIGTERM):
        code = STOPPED  # told to end, it may have ended well halfway, or by the signal itself
    if code != DONE:
        saved.save(checkpoint)
    return (128 - code if code < 0 else code), {"resolvedParams": dict(spec.params)}


def _started(arguments: list[str], env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(arguments, env=env)  # noqa: S603 - to run it is what the user asked for
    except OSError as error:
        raise SpecError(
            Fault("spec.command", f"cannot be started: {error}.", "Name a program that is here, with its arguments.")
        ) from error


def logged(output: Path, *, mode: str, index: int) -> dict[str, tuple[float, int]]:
    """The metrics of a shard: the last finite value of each name that a program wrote into metrics.jsonl.

    What it wrote there and is no entry is told once, in the log of the process.
    """
    path = output / METRICS
    if not path.is_file():
        return {}
    text = path.read_text(encoding="utf-8", errors="replace")
    entries = parse_metrics(text, mode=mode, index=index)
    if lost := unreadable(text, entries):
        lines = f"{lost} line{' is no entry and does' if lost == 1 else 's are no entries and do'} not count"
        print(
            f'warning: {METRICS}: {lines}. An entry is {{"step": 1, "name": "loss", "value": 0.5}}.',
            file=sys.stderr,
            flush=True,
        )
    return {name: (value, 1) for name, value in last_values(entries).items()}
