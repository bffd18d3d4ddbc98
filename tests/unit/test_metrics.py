"""What a controller tells Prometheus and its log."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any, cast

from prometheus_client import CollectorRegistry

from runonce.controller.metrics import Metrics
from runonce.logs import JsonLines, log_as_json


def test_metrics_can_be_registered_whatever_they_are_made_of():
    """A registry keeps collectors in a mapping, and what a controller holds has no hash."""
    unhashable: Any = cast(Any, {})
    CollectorRegistry().register(Metrics(unhashable, unhashable, unhashable, lambda: 0.0, lambda: True, Counter()))


def test_a_line_of_the_log_is_json_with_what_was_given_and_the_traceback():
    try:
        raise ValueError("no such file\nat all")
    except ValueError:
        record = logging.getLogger("runonce.x").makeRecord(
            "runonce.x",
            logging.ERROR,
            "f",
            1,
            "a pass %s",
            ("broke",),
            sys.exc_info(),
            extra={"experiment": "n/a", "at": Path("x")},
        )
    text = JsonLines().format(record)
    assert "\n" not in text
    line = json.loads(text)
    assert line.pop("traceback").startswith("Traceback")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00", line.pop("time"))
    assert line == {"level": "error", "logger": "runonce.x", "message": "a pass broke", "experiment": "n/a", "at": "x"}


def test_libraries_do_not_write_whole_requests_into_the_log():
    root = logging.getLogger()
    before = root.level, root.handlers[:]
    try:
        log_as_json("debug")
        assert logging.getLogger("runonce").isEnabledFor(logging.DEBUG)
        for name in ("botocore.parsers", "botocore.auth", "urllib3.connectionpool"):
            assert not logging.getLogger(name).isEnabledFor(logging.INFO)
    finally:
        root.setLevel(before[0])
        root.handlers[:] = before[1]
