"""What a Job tells its processes, by environment variables; both ends stand here.

`CONTRACT` rises when a process of an earlier release could no longer do the right thing with it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from runonce.errors import EntryError, Fault

CONTRACT = 1

# Set by the runner of the Job, not by `to_env`: they are known only when a process is started.
SPEC_FILE = "RUNONCE_SPEC_FILE"  # the Experiment's spec as canonical JSON
ATTEMPT = "RUNONCE_ATTEMPT"  # uid of the Job
INDEX = "JOB_COMPLETION_INDEX"
STOPS = "RUNONCE_STOPS"  # in a pod of an independent Job: how many of its index went before it without a charge
LIFELINE = "RUNONCE_LIFELINE"  # on one machine: a file descriptor; at its end-of-file the process group has to end
OUTPUT = "RUNONCE_OUTPUT"  # folder for artifacts, empty at the start; in a pod the worker makes it

# In a pod. The spec comes through a volume of the downward API, since a variable that long would not start. All that a
# worker writes lies below /tmp, so that is the one folder which has to be writable: an emptyDir.
SPEC_ANNOTATION = "runonce.dev/spec"
POD_SPEC_FOLDER = "/runonce"
POD_SPEC_NAME = "spec.json"
POD_SPEC_FILE = f"{POD_SPEC_FOLDER}/{POD_SPEC_NAME}"
POD_SCRATCH = "/tmp"  # noqa: S108 - of the pod's own
POD_COMMAND = ("runonce", "worker")

# So ends the name of a round that was begun because stored bytes were found damaged: all are put again.
HEALING = "-anew"

# What a mode's machineParams.env may set of ours: it changes no result.
PEER_TIMEOUT = "RUNONCE_PEER_TIMEOUT_S"  # a coupled process that has not answered for so long is lost
CHECKPOINT_SECONDS = "RUNONCE_CHECKPOINT_S"  # seconds between checkpoints of the engine
STALL_SECONDS = "RUNONCE_STALL_S"  # a loop that has not gone on for so long is ended; 0, the default: never
TRANSFERS = "RUNONCE_TRANSFERS"  # requests to the store at a time
PATIENCE = "RUNONCE_PATIENCE_S"  # how long a call to a store that does not answer is made again
TUNABLE = (PEER_TIMEOUT, CHECKPOINT_SECONDS, STALL_SECONDS, TRANSFERS, PATIENCE)

MAX_STOPS = 20  # of one index by 75 without being told to, before it counts as a failure

# For commands.
PARAMS = "RUNONCE_PARAMS"
CHECKPOINT = "RUNONCE_CHECKPOINT"
INPUT_TRAIN = "RUNONCE_INPUT_TRAIN"


@dataclass(frozen=True, kw_only=True)
class Input:
    """The result that this one reads: its key and the digest of its merged manifest."""

    cache_key: str
    manifest: str


@dataclass(frozen=True, kw_only=True)
class Contract:
    """total: processes of the Job. store: URL. name: of the Experiment, for logs and `params.name`.

    quick: 0, or the steps of a stage and the batches of an evaluation after which the engine ends. A quick result is
    none: whoever makes such a Job gives it a store of its own and throws that away.
    """

    mode: str
    cache_key: str
    round: str
    total: int
    store: str
    name: str
    inputs: Mapping[str, Input] = field(default_factory=dict)
    quick: int = 0

    def to_env(self) -> dict[str, str]:
        inputs = {mode: {"cacheKey": i.cache_key, "manifest": i.manifest} for mode, i in self.inputs.items()}
        return {
            "RUNONCE_CONTRACT": str(CONTRACT),
            "RUNONCE_MODE": self.mode,
            "RUNONCE_CACHE_KEY": self.cache_key,
            "RUNONCE_ROUND": self.round,
            "RUNONCE_TOTAL": str(self.total),
            "RUNONCE_STORE": self.store,
            "RUNONCE_NAME": self.name,
            "RUNONCE_INPUTS": json.dumps(inputs, sort_keys=True),
            "RUNONCE_QUICK": str(self.quick),  # always, so that no shell's can make a result incomplete
        }

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Contract:
        """Raises EntryError when the process was not started by a Job, or by one of a later release."""
        version = _value(env, "RUNONCE_CONTRACT")
        if version != str(CONTRACT):
            raise EntryError(
                Fault(
                    "",
                    f"the Job speaks contract {version}, this worker contract {CONTRACT}.",
                    "Use an image with a release of Runonce not older than the controller's.",
                ),
                reason="ContractTooNew",
            )
        inputs: dict[str, Any] = json.loads(_value(env, "RUNONCE_INPUTS"))
        return cls(
            mode=_value(env, "RUNONCE_MODE"),
            cache_key=_value(env, "RUNONCE_CACHE_KEY"),
            round=_value(env, "RUNONCE_ROUND"),
            total=int(_value(env, "RUNONCE_TOTAL")),
            store=_value(env, "RUNONCE_STORE"),
            name=_value(env, "RUNONCE_NAME"),
            inputs={m: Input(cache_key=i["cacheKey"], manifest=i["manifest"]) for m, i in inputs.items()},
            quick=int(env.get("RUNONCE_QUICK", "0")),
        )


def _value(env: Mapping[str, str], name: str) -> str:
    if name not in env:
        raise EntryError(
            Fault("", f"{name} is not set: this program is started by a Job.", "Start `runonce run` instead.")
        )
    return env[name]


# --- exit codes ---------------------------------------------------------------------------------------------

DONE = 0
STOPPED = 75  # after a saved checkpoint; 0 would count the index as complete
LOST_PEER = 76  # so that the root cause wins over its victims
DAMAGED_INPUT = 77
CONFIGURATION = 78  # final: no retry can help
STALLED = 79  # ended itself, since its loop went on no more
