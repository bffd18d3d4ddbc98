"""What a training goes on from: the newest checkpoint that all processes can read, and what is said of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from runonce.errors import LostPeer, RunonceError
from runonce.experiment.pipeline import TrainingPipeline
from runonce.worker.group import is_lost_peer
from runonce.worker.place import Place

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from runonce.worker.checkpoint import Step
    from runonce.worker.loop import WorkerRun


@dataclass(frozen=True)
class Found:
    """shared: of all processes. own: of this one; None where another number of processes saved it, and only `shared`
    and, on process 0, `windows` of each of them count.
    """

    step: Step
    shared: Mapping[str, Any]
    own: Mapping[str, Any] | None
    windows: Sequence[Mapping[str, Any]] = ()

    def described(self, processes: int, epoch: int) -> str:
        text = f"the checkpoint of step {self.step.step}"
        if self.step.total != processes:
            text += (
                f", the end of epoch {epoch}: {self.step.total} processes saved it, and {processes} can go on only "
                "from there. Steps after it are done again."
            )
        return text


def newest_checkpoint(run: WorkerRun, place: Place) -> Found | None:
    """The same on all processes; what is damaged is passed over. None at the first start."""
    checkpoints = run.checkpoints

    def load(step: Step) -> Found | None:
        shared = checkpoints.load(step, "shared", index=0)
        if shared is None:
            return None
        if step.total == run.total_processes:
            return Found(step, shared, checkpoints.load(step, "own"))
        every = range(step.total if run.process_ind == 0 else 0)
        owns = [checkpoints.load(step, "own", index=index) or {"window": {}} for index in every]
        return Found(step, shared, None, [own["window"] for own in owns])

    for step in checkpoints.newest(of_any_total=True):
        with place.calling(f"reading the checkpoint of step {step.step}"):
            found = run.load_agreed(step, partial(load, step))
        if found is not None:
            return found
    others = [total for total in checkpoints.totals() if total != run.total_processes]
    if others and run.process_ind == 0:
        print(
            f"{place}: begins anew: what {others} processes saved goes on with as many, or from the end "
            "of an epoch, and none was saved.",
            file=sys.stderr,
        )
    return None


@contextmanager
def taking_up(found: Found, place: Place, pipeline: TrainingPipeline) -> Iterator[None]:
    """What the checkpoint does not fit raises EntryError, whatever torch or a sampler raised: no other try helps."""
    known = len(pipeline.pipeline_stages)
    place.stage = f"stage {found.shared.get('position', {}).get('stage', 0) + 1}"
    try:
        saved = len(found.shared["journal"]["criteria"])
        if saved != known:
            raise ValueError(f"its pipeline has {saved} stages, this one {known}")
        yield
    except RunonceError:
        raise
    except Exception as error:
        if is_lost_peer(error):
            raise LostPeer(f"{place}: another process is gone or hangs: {error}") from error
        raise place.fault(
            f"the checkpoint of step {found.step.step} is of other code or another shape: "
            f"{type(error).__name__}: {str(error).rstrip('.')}.",
            "Run with --overwrite to begin anew, or go back to the code that saved it.",
            reason="CheckpointMismatch",
        ) from error


def check_optimizer(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Raises ValueError where the state is of another class: torch would take it up, and fail in the next step."""
    saved, known = (
        {name for group in groups for name in group} for groups in (state["param_groups"], optimizer.param_groups)
    )
    if saved != known:
        raise ValueError(f"settings of its optimizer are not those of this one: {', '.join(sorted(saved ^ known))}")
