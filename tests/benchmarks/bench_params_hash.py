"""`params_hash` beside Curifactory's, on the same values: ratios of medians, both timed in turns in one run.

Rows: 20 own fields; one nested dataclass of 1000 fields; a dict of 1000 dicts; a list of 1000 dataclasses. The last two
are one repr and one md5 there, which confuses values that ours tells apart (tests/unit/test_params.py).
"""

from __future__ import annotations

import dataclasses as D
import gc
import statistics
import sys
import time
import types
from typing import Any

from runonce import ExperimentParameters

SAMPLES = 41
TARGETS = {"flat20": 1, "nested dataclass": 1, "dict": 5, "list": 5}

FLAT = {
    "lr": 1e-3, "momentum": 0.9, "epochs": 40, "batch": 256, "model": "resnet", "depth": 18, "loss": "focal", "gamma": 2.0,
    "mixup": False, "crop": (96, 96), "widths": [64, 128, 256], "means": [0.5, 0.5, 0.5], "decay": 5e-4, "data": "digits",
    "fold": 3, "schedule": {"kind": "step", "every": 10}, "clip": None, "seed": 7, "note": "first", "half": True,
}  # fmt: skip


def values(base: type) -> dict[str, Any]:
    """One instance a row; the inner classes lie in a module of their own, where their names lead."""
    inner = D.make_dataclass("Inner", [(f"f{i}", Any, D.field(default=i / 4)) for i in range(1000)])
    leaf = D.make_dataclass("Leaf", [("a", int, 0), ("b", float, 0.5), ("c", str, "")])
    home = sys.modules[f"of_{base.__module__}"] = types.ModuleType(f"of_{base.__module__}")
    for cls in (inner, leaf):
        cls.__module__ = home.__name__
        setattr(home, cls.__name__, cls)

    def params(name: str, **fields: Any) -> Any:
        made = D.make_dataclass(name, [(key, Any, D.field(default=None)) for key in fields], bases=(base,))
        return made(**fields)

    return {
        "flat20": params("Flat", **FLAT),
        "nested dataclass": params("Nested", inner=inner()),
        "dict": params("Table", table={f"key{i}": {"a": i, "b": [i, i / 4], "c": f"text{i}"} for i in range(1000)}),
        "list": params("Many", leaves=[leaf(i, i / 4, f"text{i}") for i in range(1000)]),
    }


def seconds(call: Any, number: int) -> float:
    started = time.process_time()
    for _ in range(number):
        call()
    return (time.process_time() - started) / number


def main() -> None:
    try:
        from curifactory import ExperimentParameters as Theirs
    except ImportError:
        print("params_hash: Curifactory is not installed here, so there is nothing to compare with")
        return
    gc.disable()
    ours, theirs = values(ExperimentParameters), values(Theirs)
    print(f"{'params_hash':18} {'ours µs':>9} {'theirs µs':>9} {'ratio':>6}  target")
    for row, target in TARGETS.items():
        number = max(1, int(0.004 / seconds(theirs[row].params_hash, 3)))
        pairs = [
            (seconds(ours[row].params_hash, number), seconds(theirs[row].params_hash, number)) for _ in range(SAMPLES)
        ]
        mine, other = (statistics.median(column) * 1e6 for column in zip(*pairs, strict=True))
        ratio = statistics.median(one / two for one, two in pairs)
        print(f"{row:18} {mine:9.1f} {other:9.1f} {ratio:6.2f}  ≤ {target}")


if __name__ == "__main__":
    main()
