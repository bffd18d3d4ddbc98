"""What a controller tells Prometheus and its log."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any, cast

from prometheus_client import CollectorRegistry

from runonce.controller.metrics import Metrics
from runonce.logs import log_as_json


def test_metrics_can_be_registered_whatever_they_are_made_of():
    """A registry keeps collectors in a mapping, and what a controller holds has no hash."""
    unhashable: Any = cast(Any, {})
    CollectorRegistry().register(Metrics(unhashable, unhashable, unhashable, lambda: 0.0, lambda: True, Counter()))


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
