"""The program of one process of a Job: check, load, run, publish. Its exit code says how it went.

In order: nothing of the author's runs before the code is proved, nothing is published before parameters and
modules are checked again, and the shard manifest comes last.
"""

from __future__ import annotations

import gc
import os
import platform
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from math import isfinite
from pathlib import Path
from typing import Any

import runonce
from runonce.author import agree, entry
from runonce.errors import Damaged, EntryError, Fault, InputError, LostPeer, NewerFormat, ParamsMutated, RunonceError
from runonce.experiment.blame import OVERTIME, TOO_MANY_STOPS, error_line
from runonce.experiment.canonical import parse
from runonce.experiment.config import ExperimentConfig
from runonce.experiment.contract import (
    ATTEMPT,
    CHECKPOINT_SECONDS,
    CONFIGURATION,
    DAMAGED_INPUT,
    DONE,
    INDEX,
    LIFELINE,
    LOST_PEER,
    MAX_STOPS,
    OUTPUT,
    PATIENCE,
    PEER_TIMEOUT,
    SPEC_FILE,
    STALL_SECONDS,
    STOPPED,
    STOPS,
    Contract,
)
from runonce.experiment.machine import JobShape, process_seeds
from runonce.experiment.manifest import Shard
from runonce.experiment.params import ExperimentParameters, fingerprint
from runonce.experiment.spec import ExperimentSpec, parse_experiment
from runonce.store.backend import Backend
from runonce.store.publish import republish
from runonce.worker.command import logged, run_command
from runonce.worker.loop import StopRequest, WorkerRun
from runonce.worker.patience import PATIENCE_S, Patient
from runonce.worker.proof import prove
from runonce.worker.ranks import rank_env
from runonce.worker.saved import SavedFolder
from runonce.worker.transfer import open_backend, publish, restore_inputs
from runonce.worker.watch import Watch, ending_at_once

MOUNTED_WITHIN_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Process:
    """Who this process is and what it works with. scratch: a folder that goes when the process ends."""

    contract: Contract
    spec: ExperimentSpec
    shape: JobShape
    index: int
    attempt: str
    output: Path
    scratch: Path
    backend: Backend
    checkpoint_s: float

    def shard(self, *, metrics: Mapping[str, tuple[float, int]], facts: Mapping[str, Any]) -> Shard:
        contract = self.contract
        return Shard(
            cache_key=contract.cache_key,
            mode=contract.mode,
            round=contract.round,
            total=contract.total,
            attempt=self.attempt,
            index=self.index,
            files=(),
            metrics=metrics,
            facts=facts,
        )


def main() -> int:
    lifeline = os.environ.pop(LIFELINE, None)
    stop = StopRequest(alone=lifeline is None)
    stop.listen()
    if lifeline is not None:
        threading.Thread(target=_end_with, args=(int(lifeline),), daemon=True).start()
    # On one machine beside the output, which goes with the attempt even where this process is killed.
    beside = Path(os.environ[OUTPUT]).parent if OUTPUT in os.environ else None
    scratch = Path(tempfile.mkdtemp(prefix="runonce-", dir=beside))
    try:
        process = _process(scratch)
        code = _work(process, stop)
        if code == STOPPED and lifeline is None and (why := _charge(process.spec, stop)):
            print(why, file=sys.stderr)
            return 1
        return code
    except RunonceError as error:
        print(error_line(error.reason, error), file=sys.stderr)
        return _exit_code(error)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _charge(spec: ExperimentSpec, stop: StopRequest) -> str:
    """Why a pod that stopped is to be charged for it, which Kubernetes would not do; empty where it is not."""
    if stop.asked:
        limit_s = spec.active_deadline_seconds
        over = _is_overtime(spec, stop.asked_at)
        return error_line(OVERTIME, f"it ran for spec.activeDeadlineSeconds, {limit_s} s.") if over else ""
    before = int(os.environ.get(STOPS) or 0)
    if before < MAX_STOPS:
        return ""
    text = f"it ended with {STOPPED}, which is not charged, and nobody had told it to stop; so went {before} before it."
    return error_line(TOO_MANY_STOPS, text)


def _is_overtime(spec: ExperimentSpec, asked_at: float) -> bool:
    """Whether a pod was told to end because its time is over. Kubernetes would try it again for ever, as one that
    had to leave its node. The kubelet counts from when it took the pod; it wrote this file right after that.
    """
    limit_s = spec.active_deadline_seconds
    if limit_s is None:
        return False
    return asked_at - os.stat(os.environ[SPEC_FILE]).st_mtime > limit_s - min(MOUNTED_WITHIN_S, limit_s / 2)


def _exit_code(error: RunonceError) -> int:
    if isinstance(error, Damaged):
        return DAMAGED_INPUT
    if isinstance(error, InputError | ParamsMutated | NewerFormat):
        return CONFIGURATION
    return LOST_PEER if isinstance(error, LostPeer) else 1


def _end_with(lifeline: int) -> None:
    """Ends the process group when whoever started it is gone; the guard does, unless it is gone too."""
    os.read(lifeline, 1)
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _process(scratch: Path) -> Process:
    contract = Contract.from_env(os.environ)
    spec_json = parse(Path(os.environ[SPEC_FILE]).read_bytes())
    spec = parse_experiment(
        {
            "apiVersion": "runonce.dev/v1alpha1",
            "kind": "Experiment",
            "metadata": {"name": contract.name},
            "spec": spec_json,
        }
    ).spec
    return Process(
        contract=contract,
        spec=spec,
        shape=spec.shape(contract.mode, local=True),
        index=int(os.environ[INDEX]),
        attempt=os.environ[ATTEMPT],
        output=_output(scratch),
        scratch=scratch,
        backend=Patient(open_backend(contract, os.environ), patience_s=_seconds(PATIENCE, PATIENCE_S)),
        checkpoint_s=_seconds(CHECKPOINT_SECONDS, 60.0),
    )


def _output(scratch: Path) -> Path:
    if OUTPUT in os.environ:
        return Path(os.environ[OUTPUT])
    output = scratch / "output"
    output.mkdir()
    return output


def _work(process: Process, stop: StopRequest) -> int:
    # An index of an earlier attempt that is done stays done; coupled ranks begin again together.
    if not process.shape.coupled and republish(process.backend, process.shard(metrics={}, facts={})):
        return DONE
    started = time.time()
    inputs = restore_inputs(process.backend, process.contract, process.scratch / "inputs")
    if stop.asked:
        return STOPPED
    metrics: Mapping[str, tuple[float, int]]
    facts: Mapping[str, Any]
    total, coupled = process.contract.total, process.shape.coupled
    os.environ.update(rank_env(os.environ, index=process.index, total=total, coupled=coupled))
    if process.spec.command is not None:
        code_here = prove(process.spec, process.backend, process.scratch)
        contract = process.contract
        saved = SavedFolder(
            process.backend,
            cache_key=contract.cache_key,
            round_=contract.round,
            total=contract.total,
            index=process.index,
        )
        _collect_again()
        code, facts = run_command(
            process.spec, saved, process.output, inputs, process.scratch, stop, process.checkpoint_s
        )
        if code == DONE:
            code_here.check()
        metrics = logged(process.output, mode=contract.mode, index=process.index)
    else:
        code, metrics, facts = _run_config(process, inputs, stop)
    if code != DONE:
        return code
    facts = {**facts, **_facts(process.spec), "seconds": round(time.time() - started, 3)}
    publish(process.backend, process.output, process.shard(metrics=metrics, facts=facts))
    return DONE


def _run_config(
    process: Process, inputs: Mapping[str, Path], stop: StopRequest
) -> tuple[int, Mapping[str, tuple[float, int]], Mapping[str, Any]]:
    spec, contract, shape = process.spec, process.contract, process.shape
    entry.add_to_path(os.getcwd())
    code_here = prove(spec, process.backend, process.scratch)
    cls = entry.find_class(spec.config or "")
    facts = {"resolvedParams": agree.check_class(cls, spec)}
    given: Any = {"name": contract.name, "mode": contract.mode, "pin": spec.hash, "overwrite": spec.overwrite}
    params = entry.load_params(cls, spec.params, **given)
    skip = (*spec.hash_exclude, *spec.hash_as)
    before = fingerprint(params, exclude=skip)
    config = entry.make_config(cls, spec.params, **given)
    built = getattr(config, "params", params)  # an __init__ may not have called ours
    if isinstance(built, cls.Params):
        _check_unchanged(before, built, skip, "building the config")
    config.params = params

    import torch

    from runonce.worker import group
    from runonce.worker.checkpoint import Checkpoints

    with ending_at_once(stop):
        device = group.join(shape, process_ind=process.index, timeout_s=_seconds(PEER_TIMEOUT, 600.0))
    torch.manual_seed(spec.seed)  # alike on every rank, so that models begin equal
    name = f"{contract.mode}, process {process.index} of {contract.total}"
    watch = Watch(name, stop, limit_s=_seconds(STALL_SECONDS, 0.0), coupled=shape.coupled)
    run = WorkerRun(
        mode=contract.mode,
        params=params,
        process_ind=process.index,
        total_processes=contract.total,
        coupled=shape.coupled,
        device=device,
        base_seed=spec.seed,
        seeds=process_seeds(spec.seed, contract.total),
        output=process.output,
        inputs=inputs,
        checkpoints=Checkpoints(
            process.backend,
            cache_key=contract.cache_key,
            round_=contract.round,
            total=contract.total,
            attempt=process.attempt,
            index=process.index,
            scratch=process.scratch,
        ),
        scratch=process.scratch,
        stop=stop,
        beat=watch.beat,
        checkpoint_s=process.checkpoint_s,
        quick=contract.quick,
    )
    early = code_here.check()
    _collect_again()
    try:
        code = _call_loop(config, run)
    finally:
        watch.close()
        run.close()
    if code == DONE and stop.told:
        code = STOPPED
    if code == DONE:
        _check_unchanged(before, params, skip, f"{contract.mode}(run)")
        code_here.check(early)
        group.leave()  # a lost rank would keep the others from leaving
    return code, {name: (value, 1) for name, value in run.metrics.items()} | run.sums, facts


def _seconds(name: str, default: float) -> float:
    text = os.environ.get(name, "")
    try:
        value = float(text or default)
    except ValueError:
        value = -1.0
    if not (isfinite(value) and value >= 0):
        raise EntryError(Fault(f"env.{name}", f"is {text!r}; it is a number of seconds.", f"Write {default:g}."))
    return value


def _collect_again() -> None:
    """Of what is made from here on: what has been imported stays, and no pass need look at it again."""
    gc.freeze()
    gc.enable()


def _check_unchanged(before: bytes, params: ExperimentParameters, skip: tuple[str, ...], when: str) -> None:
    if fingerprint(params, exclude=skip) != before:
        raise ParamsMutated(
            f"{when} changed the parameters, so the result would not be that of its key. "
            "Compute what depends on them elsewhere, or exclude the field by hash_representations."
        )


def _call_loop(config: ExperimentConfig, run: WorkerRun) -> int:
    try:
        getattr(config, run.mode)(run)
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except RunonceError:
        raise
    except Exception as error:  # the author's loop: its traceback is what helps
        from runonce.worker.group import is_lost_peer

        traceback.print_exc()
        return LOST_PEER if is_lost_peer(error) else 1
    return DONE


def _facts(spec: ExperimentSpec) -> dict[str, Any]:
    """What may matter for a result and is not in its key."""
    distributions = metadata.packages_distributions()
    installed = {name for module in list(sys.modules) for name in distributions.get(module, ())}
    versions = {name: metadata.version(name) for name in sorted(installed)}
    torch: Any = sys.modules.get("torch")
    device = torch.cuda.get_device_name() if torch is not None and torch.cuda.is_available() else "cpu"
    return {
        "versions": {**versions, "runonce": runonce.__version__, "python": platform.python_version()},
        "platform": platform.platform(),
        "device": device,
        **({"image": spec.image} if spec.image is not None else {}),
    }
