"""What every backend promises by its seven calls."""

from __future__ import annotations

import hashlib
import sys
import threading
from pathlib import Path

import pytest

from runonce.errors import Damaged, PreconditionFailed
from runonce.store.backend import blob_name


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_what_was_put_is_got_with_its_etag(backend):
    etag = backend.put("c/aa/x", b"one")
    assert backend.get("c/aa/x") == (b"one", etag)
    assert backend.put("c/aa/x", b"two") != etag
    assert backend.get("c/aa/x")[0] == b"two"


def test_what_is_not_there_is_none(backend):
    assert backend.get("c/aa/x") is None
    assert backend.stat("c/aa/x") is None
    assert list(backend.list("c/")) == []
    backend.delete("c/aa/x")


def test_create_writes_only_where_nothing_is(backend):
    backend.put("c/aa/x", b"one", create=True)
    with pytest.raises(PreconditionFailed, match="c/aa/x is there already"):
        backend.put("c/aa/x", b"two", create=True)
    assert backend.get("c/aa/x")[0] == b"one"


def test_if_match_writes_only_over_what_was_seen(backend):
    etag = backend.put("c/aa/x", b"one")
    second = backend.put("c/aa/x", b"two", if_match=etag)
    with pytest.raises(PreconditionFailed, match="another one by now"):
        backend.put("c/aa/x", b"three", if_match=etag)
    with pytest.raises(PreconditionFailed, match="is gone"):
        backend.put("c/aa/y", b"three", if_match=etag)
    assert backend.get("c/aa/x") == (b"two", second)


def test_delete_if_match_removes_only_what_was_seen(backend):
    etag = backend.put("c/aa/x", b"one")
    backend.put("c/aa/x", b"two")
    with pytest.raises(PreconditionFailed):
        backend.delete("c/aa/x", if_match=etag)
    backend.delete("c/aa/x", if_match=backend.get("c/aa/x")[1])
    assert backend.get("c/aa/x") is None
    backend.delete("c/aa/x", if_match=etag)


def test_the_same_bytes_put_again_are_another_version(backend):
    backend.put("b/aa/x", b"one")
    first = backend.stat("b/aa/x").version
    assert [entry.version for entry in backend.list("b/")] == [first]
    assert backend.stat("b/aa/x").version == first
    backend.put("b/aa/x", b"one")
    assert backend.stat("b/aa/x").version != first


def test_delete_of_a_version_removes_that_version_alone(backend):
    backend.put("b/aa/x", b"one")
    first = backend.stat("b/aa/x").version
    backend.put("b/aa/x", b"one")
    backend.delete("b/aa/x", version=first)
    assert backend.get("b/aa/x")[0] == b"one"
    backend.delete("b/aa/x", version=backend.stat("b/aa/x").version)
    assert backend.stat("b/aa/x") is None
    backend.delete("b/aa/x", version=first)


def test_a_young_file_that_is_stored_again_stays_as_it_is_and_an_old_one_is_renewed(backend, tmp_path, monkeypatch):
    """Whoever relies on old bytes must keep a collector that has seen them from deleting them."""
    (tmp_path / "in").write_bytes(b"x")
    name = blob_name(sha256(b"x"))
    backend.put_file(name, tmp_path / "in", sha256=sha256(b"x"))
    first = backend.stat(name).version
    backend.put_file(name, tmp_path / "in", sha256=sha256(b"x"))
    assert backend.stat(name).version == first
    monkeypatch.setattr(sys.modules[type(backend).__module__], "RENEW_S", -1.0)
    backend.put_file(name, tmp_path / "in", sha256=sha256(b"x"))
    assert backend.stat(name).version != first
    backend.delete(name, version=first)
    backend.get_file(name, tmp_path / "out", sha256=sha256(b"x"))
    assert (tmp_path / "out").read_bytes() == b"x"


def test_no_renewed_file_is_lost_to_one_who_deletes_what_it_saw(backend, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[type(backend).__module__], "RENEW_S", -1.0)
    for i in range(40):
        (tmp_path / f"{i}").write_bytes(b"%d" % i)
        digest = sha256(b"%d" % i)
        backend.put_file(blob_name(digest), tmp_path / f"{i}", sha256=digest)
        seen = backend.stat(blob_name(digest)).version
        threads = [
            threading.Thread(target=backend.delete, args=(blob_name(digest),), kwargs={"version": seen}),
            threading.Thread(
                target=backend.put_file, args=(blob_name(digest), tmp_path / f"{i}"), kwargs={"sha256": digest}
            ),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert backend.stat(blob_name(digest)) is not None


def test_list_gives_names_in_order_with_sizes(backend):
    for name in ("w/k/b/i1", "w/k/a-b/i0", "w/k/a/i0", "w/kk/a/i0", "c/k"):
        backend.put(name, name.encode())
    assert [entry.name for entry in backend.list("w/k/")] == ["w/k/a-b/i0", "w/k/a/i0", "w/k/b/i1"]
    assert [entry.name for entry in backend.list("w/k")] == ["w/k/a-b/i0", "w/k/a/i0", "w/k/b/i1", "w/kk/a/i0"]
    assert [entry.size for entry in backend.list("c/")] == [3]
    assert backend.stat("c/k").size == 3


def test_a_file_comes_back_byte_for_byte(backend, tmp_path):
    data = bytes(range(256)) * 5000
    (tmp_path / "in").write_bytes(data)
    name = blob_name(sha256(data))
    backend.put_file(name, tmp_path / "in", sha256=sha256(data))
    backend.put_file(name, tmp_path / "in", sha256=sha256(data))
    backend.get_file(name, tmp_path / "out", sha256=sha256(data))
    assert (tmp_path / "out").read_bytes() == data
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["in", "out"]


def test_a_file_that_changed_meanwhile_is_not_stored(backend, tmp_path):
    (tmp_path / "in").write_bytes(b"changed")
    with pytest.raises(Damaged, match="has the digest"):
        backend.put_file(blob_name(sha256(b"before")), tmp_path / "in", sha256=sha256(b"before"))
    assert backend.stat(blob_name(sha256(b"before"))) is None


def test_a_lost_file_and_a_wrong_one_are_damage_and_nothing_is_left_of_them(backend, tmp_path):
    with pytest.raises(Damaged, match="is lost from"):
        backend.get_file(blob_name(sha256(b"x")), tmp_path / "out", sha256=sha256(b"x"))
    (tmp_path / "in").write_bytes(b"y")
    backend.put_file(blob_name(sha256(b"y")), tmp_path / "in", sha256=sha256(b"y"))
    with pytest.raises(Damaged, match="has the digest"):
        backend.get_file(blob_name(sha256(b"y")), tmp_path / "out", sha256=sha256(b"x"))
    assert not (tmp_path / "out").exists()
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["in"]


def test_of_many_who_create_one_wins(backend):
    won = race(8, lambda i: backend.put("c/aa/x", b"%d" % i, create=True))
    assert len(won) == 1
    assert backend.get("c/aa/x")[0] == b"%d" % won[0]


def test_of_many_who_replace_the_same_one_wins(backend):
    etag = backend.put("c/aa/x", b"old")
    won = race(8, lambda i: backend.put("c/aa/x", b"%d" % i, if_match=etag))
    assert len(won) == 1
    assert backend.get("c/aa/x")[0] == b"%d" % won[0]


def race(number: int, write) -> list[int]:
    won, barrier = [], threading.Barrier(number)

    def contend(i: int) -> None:
        barrier.wait()
        try:
            write(i)
        except PreconditionFailed:
            return
        won.append(i)

    threads = [threading.Thread(target=contend, args=(i,)) for i in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return won


@pytest.mark.parametrize("name", ["../x", "a/../b", "/x", "a//b", "a/", "", "a/.b"])
def test_a_name_cannot_lead_out(backend, name):
    with pytest.raises(ValueError, match="is no name of an object"):
        backend.put(name, b"")


def test_a_file_of_any_name_and_an_empty_one_are_stored(backend, tmp_path):
    path: Path = tmp_path / "a b ü"
    path.write_bytes(b"")
    backend.put_file(blob_name(sha256(b"")), path, sha256=sha256(b""))
    backend.get_file(blob_name(sha256(b"")), tmp_path / "ö", sha256=sha256(b""))
    assert (tmp_path / "ö").read_bytes() == b""
