"""Metrics as event files of TensorBoard: a folder for each mode of each experiment, a run for each process."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from runonce.errors import InputError
from runonce.experiment.metrics import Entry

_INSTALL = 'pip install "runonce[tensorboard]"'
_SUFFIX = ".runonce"  # ours alone are written anew


def export(runs: Sequence[tuple[str, Sequence[Entry]]], folder: Path) -> None:
    """Write `folder/<run>/`; a run that is there already is written anew. runs: name of each and what it logged.

    Raises InputError where TensorBoard is missing, or the folder cannot be written.
    """
    if find_spec("tensorboard") is None:
        raise InputError.of("--tensorboard", "needs TensorBoard, which is not installed.", _INSTALL)
    try:
        for name, entries in runs:
            for index in sorted({entry["index"] for entry in entries}):
                of_one = [entry for entry in entries if entry["index"] == index]
                _write(folder / (name if index == 0 else f"{name}-process-{index}"), of_one)
    except OSError as error:
        raise InputError.of("--tensorboard", f"{folder}: {error.strerror}.", "Name another folder.") from error
    click.echo(f"wrote {len(runs)} runs; look at them with: tensorboard --logdir {folder}", err=True)


def _write(folder: Path, entries: Sequence[Entry]) -> None:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"events.out.tfevents.*{_SUFFIX}"):
        old.unlink()
    writer: Any = EventFileWriter(str(folder), filename_suffix=_SUFFIX)
    for entry in entries:
        value = Summary.Value(tag=entry["name"], simple_value=entry["value"])
        event: Any = Event(step=entry["step"], wall_time=entry["time"], summary=Summary(value=[value]))
        writer.add_event(event)
    writer.close()
