"""What rules tie together: edits that a rule lets through, and that it refuses."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

from resource_change import Change, Spec


def _block(mode: str, **fields: Any) -> Callable[[Spec], None]:
    def edit(spec: Spec) -> None:
        spec["machineParams"][mode] = copy.deepcopy(fields)

    return edit


def _whole(**fields: Any) -> Callable[[Spec], None]:
    """Replaces fields; None takes one away."""

    def edit(spec: Spec) -> None:
        for name, value in fields.items():
            spec.pop(name, None)
            if value is not None:
                spec[name] = copy.deepcopy(value)

    return edit


_DIGEST = "@sha256:" + "0" * 64
_MACHINES: list[tuple[str, bool, dict[str, Any]]] = [
    ("one count", True, {"nprocesses": 0}),
    ("one count", True, {"nprocessesPerDevice": [2]}),
    ("one count", False, {"nprocesses": 1, "nprocessesPerDevice": [1]}),
    ("one count", False, {"gpuIds": [0]}),
    ("counts empty", True, {"nprocessesPerDevice": [1]}),
    ("counts empty", False, {"nprocessesPerDevice": []}),
    ("counts and ids", True, {"nprocessesPerDevice": [1, 1], "gpuIds": [0, 1]}),
    ("counts and ids", True, {"nprocessesPerDevice": [1, 1], "gpuIds": []}),
    ("counts and ids", False, {"nprocessesPerDevice": [1, 1], "gpuIds": [0]}),
    ("counts and ids", False, {"nprocessesPerDevice": [1], "gpuIds": [0, 1]}),
    ("sum", True, {"nprocessesPerDevice": [50_000, 50_000]}),
    ("sum", False, {"nprocessesPerDevice": [50_000, 50_001]}),
    ("mixed", True, {"nprocesses": 2, "gpuIds": [-1, -1, -1]}),
    ("mixed", False, {"nprocesses": 2, "gpuIds": [-1, 0]}),
    ("mixed", False, {"nprocessesPerDevice": [1, 1], "gpuIds": [0, -1]}),
    ("uneven", True, {"nprocesses": 2, "gpuIds": [0, 1, 2, 3]}),
    ("uneven", True, {"nprocesses": 3, "gpuIds": [4, 4, 5, 6]}),
    ("uneven", True, {"nprocesses": 256, "gpuIds": list(range(512))}),
    ("uneven", True, {"nprocesses": 0, "gpuIds": [0, 1, 2]}),
    ("uneven", False, {"nprocesses": 2, "gpuIds": [0, 1, 2]}),
    ("uneven", False, {"nprocesses": 3, "gpuIds": list(range(512))}),
    ("too few", True, {"nprocesses": 4, "gpuIds": [0, 1], "coupled": False}),
    ("too few", True, {"nprocesses": 4, "gpuIds": [0], "coupled": True, "gpuResource": "nvidia.com/gpu.shared"}),
    ("too few", True, {"nprocesses": 4, "gpuIds": [0], "coupled": True, "gpuResource": "nvidia.com/mig-1g.10gb"}),
    ("too few", True, {"nprocesses": 2, "gpuIds": [1, 0], "coupled": True}),
    ("too few", True, {"nprocessesPerDevice": [1, 0], "gpuIds": [0, 0], "coupled": True}),
    ("too few", True, {"nprocessesPerDevice": [0, 0], "gpuIds": [0, 0], "coupled": True}),
    ("too few", False, {"nprocesses": 4, "gpuIds": [0, 1], "coupled": True}),
    ("too few", False, {"nprocesses": 4, "gpuIds": [0, 1, 1, 0], "coupled": True, "gpuResource": "a.b/gpu"}),
    ("too few", False, {"nprocessesPerDevice": [3, 0], "gpuIds": [0, 1], "coupled": True}),
    ("too few", False, {"nprocessesPerDevice": [1, 1], "gpuIds": [0, 0], "coupled": True}),
    ("own env", True, {"nprocesses": 1, "env": {"NCCL_DEBUG": "INFO"}}),
    ("own env", True, {"nprocesses": 1, "env": {"RUNONCE_PEER_TIMEOUT_S": "9", "RUNONCE_CHECKPOINT_S": "9"}}),
    ("own env", False, {"nprocesses": 1, "env": {"RUNONCE_MODE": "x"}}),
    ("own env", False, {"nprocesses": 1, "env": {"JOB_COMPLETION_INDEX": "1"}}),
]


def ties() -> Iterator[Change]:
    for mode in ("train", "valid", "test"):
        for label, good, fields in _MACHINES:
            yield Change(f"{mode} {label}", good, _block(mode, **fields))
        twice = {"env": {"A": "1"}, "machineParams": {mode: {"nprocesses": 1, "env": {"A": "2"}}}}
        yield Change(f"{mode} env twice", False, _whole(**twice))
        once = {"env": {"A": "1"}, "machineParams": {mode: {"nprocesses": 1, "env": {"B": "2"}}}}
        yield Change(f"{mode} env twice", True, _whole(**once))
        few = {"nprocesses": 3, "gpuIds": [0], "coupled": True}
        profile = {"profile": "mig", "machineParams": {mode: few}}
        yield Change(f"{mode} too few", True, _whole(**profile))
    # Without `coupled` train is, and the others are not.
    yield Change("train coupled", False, _block("train", nprocesses=2, gpuIds=[0]))
    yield Change("valid coupled", True, _block("valid", nprocesses=2, gpuIds=[0]))
    yield Change("test coupled", True, _block("test", nprocesses=2, gpuIds=[0]))
    yield Change("train coupled", True, _block("train", nprocesses=2, gpuIds=[0], coupled=False))
    yield Change("valid coupled", False, _block("valid", nprocesses=2, gpuIds=[0], coupled=True))
    yield Change("test coupled", False, _block("test", nprocesses=2, gpuIds=[0], coupled=True))
    for label, good, fields in _FIELDS:
        yield Change(label, good, _whole(**fields))


_MOUNT = {"name": "v", "mountPath": "/v"}
_FIELDS: list[tuple[str, bool, dict[str, Any]]] = [
    ("modes", True, {"machineParams": {"valid": {"nprocesses": 1}}}),
    ("modes", False, {"machineParams": {}}),
    ("no modes", True, {"machineParams": {"test": {"nprocesses": 1}}}),
    ("no modes", False, {"machineParams": None}),
    ("entry", False, {"config": "m:C", "command": ["x"]}),
    ("entry", False, {"config": None, "command": None, "code": None, "codeVersion": "label:x"}),
    ("entry", True, {"config": None, "command": ["x"], "code": ["*"], "codeVersion": None}),
    ("entry", True, {"config": "m:C", "command": None, "code": None}),
    ("code version", True, {"codeVersion": "source:" + "0f" * 32}),
    ("code version", True, {"codeVersion": "label:ä€"}),
    ("code version", False, {"codeVersion": "source:" + "0" * 63}),
    ("code version", False, {"codeVersion": "source:" + "A" * 64}),
    ("code version", False, {"codeVersion": "label:"}),
    ("code version", False, {"codeVersion": "label:a b"}),
    ("code version", False, {"codeVersion": "label:a\u2003b"}),
    ("code version", False, {"codeVersion": "label:a\u0085b"}),
    ("code version", False, {"codeVersion": "label:a\u00a0"}),
    ("code version", False, {"codeVersion": "label:a\u2028"}),
    ("code version", False, {"codeVersion": "label:a\u001f"}),
    ("code version", False, {"codeVersion": "label:a\n"}),
    ("code version", False, {"codeVersion": ""}),
    ("image digest", True, {"codeVersion": "image", "image": "a/b" + _DIGEST}),
    ("image digest", False, {"codeVersion": "image", "image": "a/b:1"}),
    ("image digest", False, {"codeVersion": "image", "image": None}),
    ("image digest", False, {"codeVersion": "image", "image": "a" + _DIGEST + "0"}),
    ("code of a command", True, {"config": None, "command": ["x"], "code": None, "codeVersion": "label:x"}),
    ("code of a command", True, {"config": None, "command": ["x"], "code": [], "codeVersion": "label:x"}),
    ("code of a command", False, {"config": None, "command": ["x"], "code": None, "codeVersion": None}),
    ("code of a command", False, {"config": None, "command": ["x"], "code": [], "codeVersion": None}),
    ("code of a config", False, {"config": "m:C", "command": None, "code": ["*.py"]}),
    ("code of a config", True, {"config": "m:C", "command": None, "code": []}),
    ("packages", True, {"config": "m:C", "command": None, "code": None, "codePackages": ["m"]}),
    ("packages", True, {"config": "m:C", "command": None, "code": None, "paramsOnlyIn": {"x": "test"}}),
    ("packages", False, {"config": None, "command": ["x"], "code": ["*"], "codePackages": ["m"]}),
    ("packages", False, {"config": None, "command": ["x"], "code": ["*"], "paramsOnlyIn": {"x": "test"}}),
    ("pin", True, {"hash": "0a.b_c-"}),
    ("pin", True, {"hash": "a" * 64}),
    ("pin", False, {"hash": ""}),
    ("pin", False, {"hash": "-a"}),
    ("pin", False, {"hash": "a b"}),
    ("pin", False, {"hash": "a\n"}),
    ("own env of all", True, {"env": {"A": "", "B": "ä\n$"}}),
    ("own env of all", False, {"env": {"RUNONCE_CHECKPOINT_S": "1"}}),
    ("own env of all", False, {"env": {"JOB_COMPLETION_INDEX": "1"}}),
    ("one source", True, {"envFrom": [{"configMap": "a", "prefix": "A_"}, {"secret": "b"}]}),
    ("one source", False, {"envFrom": [{"prefix": "A_"}]}),
    ("one source", False, {"envFrom": [{"configMap": "a", "secret": "b"}]}),
    ("one place", True, {"volumes": [_MOUNT | {"hostPath": "/x"}, {"name": "w", "mountPath": "/w", "secret": "s"}]}),
    ("one place", False, {"volumes": [_MOUNT]}),
    ("one place", False, {"volumes": [_MOUNT | {"hostPath": "/x", "persistentVolumeClaim": "p"}]}),
    (
        "names of volumes",
        True,
        {"volumes": [_MOUNT | {"secret": "a"}, {"name": "w", "mountPath": "/w", "secret": "b"}]},
    ),
    ("names of volumes", False, {"volumes": [_MOUNT | {"secret": "a"}, _MOUNT | {"mountPath": "/w", "secret": "b"}]}),
    (
        "folders of volumes",
        True,
        {"volumes": [_MOUNT | {"secret": "a"}, {"name": "w", "mountPath": "/v/w", "secret": "b"}]},
    ),
    ("folders of volumes", False, {"volumes": [_MOUNT | {"secret": "a"}, _MOUNT | {"name": "w", "secret": "b"}]}),
    ("own volume", True, {"volumes": [_MOUNT | {"name": "runonce", "secret": "a"}]}),
    ("own volume", False, {"volumes": [_MOUNT | {"name": "runonce-spec", "secret": "a"}]}),
    ("own folder", True, {"volumes": [_MOUNT | {"mountPath": "/tmp/x", "secret": "a"}]}),
    ("own folder", False, {"volumes": [_MOUNT | {"mountPath": "/tmp", "secret": "a"}]}),
    ("own folder", False, {"volumes": [_MOUNT | {"mountPath": "/dev/shm", "secret": "a"}]}),
    ("own folder", False, {"volumes": [_MOUNT | {"mountPath": "/runonce", "secret": "a"}]}),
    ("taint key", True, {"tolerations": [{"operator": "Exists"}, {"key": "a", "value": "b"}]}),
    ("taint key", False, {"tolerations": [{"effect": "NoSchedule"}]}),
    ("taint key", False, {"tolerations": [{"operator": "Equal", "value": "a"}]}),
    ("taint value", True, {"tolerations": [{"key": "a", "operator": "Exists", "value": ""}]}),
    ("taint value", False, {"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]}),
    ("taint seconds", True, {"tolerations": [{"key": "a", "effect": "NoExecute", "tolerationSeconds": 0}]}),
    ("taint seconds", False, {"tolerations": [{"key": "a", "tolerationSeconds": 5}]}),
    ("taint seconds", False, {"tolerations": [{"key": "a", "effect": "NoSchedule", "tolerationSeconds": 5}]}),
]
