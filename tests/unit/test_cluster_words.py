"""What the commands on a cluster say before there is a cluster."""

from __future__ import annotations

import sys

import pytest

from runonce.cli.context import Place
from runonce.errors import InputError


def test_without_the_client_of_kubernetes_it_is_told_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    monkeypatch.delitem(sys.modules, "runonce.kube.transport", raising=False)
    monkeypatch.delattr("runonce.kube.transport", raising=False)
    with pytest.raises(InputError, match=r"pip install 'runonce\[controller\]'"):
        Place(None, None, None).connect()
