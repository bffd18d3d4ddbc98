"""A store that is away is waited for; one that refuses is not."""

from __future__ import annotations

import hashlib
import threading
import uuid

import pytest
from weed import KEY, SECRET, running

from runonce.errors import PreconditionFailed, StoreError
from runonce.store.folder import FolderBackend
from runonce.store.url import open_store
from runonce.worker import patience
from runonce.worker.patience import Patient


def test_a_worker_waits_for_a_store_that_was_killed_and_loses_nothing(tmp_path, monkeypatch, capfd):
    """SIGKILL of a real server, which comes back over the same data after the first try was given up."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    with running(tmp_path / "weed") as server:
        backend = Patient(open_store(server.url(f"t/{uuid.uuid4().hex}")))
        backend.put("w/before", b"1")
        server.kill()
        given_up = threading.Event()
        monkeypatch.setattr(patience.time, "sleep", lambda seconds: (given_up.set(), given_up.wait(seconds)))
        done: list[object] = []
        thread = threading.Thread(target=lambda: done.append(backend.put("w/after", b"2", create=True)))
        thread.start()
        assert given_up.wait(120)
        server.start()
        thread.join(240)
        assert len(done) == 1
        assert [entry.name for entry in backend.list("w/")] == ["w/after", "w/before"]
    assert "It is tried again for" in capfd.readouterr().err


class Flaky(FolderBackend):
    """A folder whose calls fail as often as it is told."""

    failures, reason, after = 0, "StoreUnreachable", False

    def put(self, name, data, *, create=False, if_match=None):
        fails, self.failures = self.failures > 0, self.failures - 1
        if fails and not self.after:
            raise StoreError("it is away.", reason=self.reason)
        etag = super().put(name, data, create=create, if_match=if_match)
        if fails:
            raise StoreError("its answer was lost.", reason=self.reason)
        return etag


@pytest.fixture
def flaky(tmp_path, monkeypatch):
    monkeypatch.setattr(patience, "PAUSE_S", 0.0)
    return Flaky(tmp_path / "store")


def test_a_store_that_refuses_is_not_asked_again(flaky):
    flaky.failures, flaky.reason = 1, "AccessDenied"
    with pytest.raises(StoreError, match="away"):
        Patient(flaky).put("w/x", b"1")
    assert flaky.failures == 0


def test_patience_ends(flaky):
    flaky.failures = 1
    with pytest.raises(StoreError, match="away"):
        Patient(flaky, patience_s=0.0).put("w/x", b"1")


def test_a_record_that_was_written_though_the_answer_was_lost_is_ones_own(flaky):
    flaky.failures, flaky.after = 1, True
    etag = Patient(flaky).put("w/x", b"1", create=True)
    assert flaky.get("w/x") == (b"1", etag)


def test_a_record_of_another_is_never_taken_for_ones_own(flaky):
    FolderBackend.put(flaky, "w/x", b"2")
    flaky.failures = 1
    with pytest.raises(PreconditionFailed):
        Patient(flaky).put("w/x", b"1", create=True)


def test_what_is_read_is_read_whole(flaky):
    data = bytes(range(256)) * 9000
    digest = hashlib.sha256(data).hexdigest()
    FolderBackend.put(flaky, f"b/{digest[:2]}/{digest}", data)
    assert b"".join(Patient(flaky).read(f"b/{digest[:2]}/{digest}", sha256=digest)) == data
