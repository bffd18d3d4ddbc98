"""Signed commits: who may write into the store, and has no key, cannot make a result."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import replace

import pytest

from runonce.errors import InputError
from runonce.experiment.manifest import Commit, Shard
from runonce.experiment.seal import sealed, unsealed
from runonce.settings import Settings
from runonce.store.backend import commit_name
from runonce.store.collect import Limits, collect
from runonce.store.commit import DamagedCommit, UnsignedCommit, commit, probe
from runonce.store.find import find_named
from runonce.store.publish import publish_shard
from runonce.store.resign import sign_all
from runonce.store.restore import read_manifest, restore
from runonce.store.signing import NO_KEYS, Key, Keyring, read_keyring
from runonce.store.url import open_yours
from runonce.store.verify import discard, verify

KEY = "ab" * 32
OLD, NEW = Key("old", b"o" * 32), Key("new", b"n" * 32)


def make(backend, tmp_path, *, nonce="n", replaces=""):
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    (out / "a").write_text("1")
    shard = Shard(
        cache_key=KEY, mode="train", round="r", total=1, attempt="a", index=0, files=(), metrics={"l": (1, 3)}
    )
    return commit(
        backend, [publish_shard(backend, out, shard)], name="mine", nonce=nonce, created=1, parts={"mode": "train"},
        params={}, inputs={}, tokens=(), replaces=replaces, missing=(),
    )  # fmt: skip


def required(*keys: Key) -> Keyring:
    return Keyring(keys, required=True)


def test_a_signed_record_is_a_result_to_those_who_ask_for_the_signature_and_to_those_who_do_not(backend, tmp_path):
    backend.keyring = required(OLD)
    made = make(backend, tmp_path)
    for keyring in (required(OLD), required(NEW, OLD), Keyring((OLD,)), Keyring((NEW,)), NO_KEYS):
        backend.keyring = keyring
        assert probe(backend, KEY)[0] == made


def test_the_signature_is_an_hmac_over_the_canonical_record_that_anyone_can_recompute(backend, tmp_path):
    backend.keyring = required(OLD)
    make(backend, tmp_path)
    record = json.loads(backend.get(commit_name(KEY))[0])
    signature, _ = record.pop("signature"), record.pop("check")
    text = json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
    value = hmac.new(OLD.secret, text, hashlib.sha256).hexdigest()
    assert signature == {"algorithm": "hmac-sha256", "keyId": "old", "value": value}


@pytest.mark.parametrize(
    ("keyring", "why"), [(NO_KEYS, "is not signed"), (Keyring((NEW,)), "is signed by a key that is not known here")]
)
def test_what_is_unsigned_or_of_another_key_is_no_result_by_name_and_the_next_one_replaces_it(
    backend, tmp_path, keyring, why
):
    backend.keyring = keyring
    forged = make(backend, tmp_path)
    backend.keyring = required(OLD)
    with pytest.raises(UnsignedCommit, match=why) as caught:
        probe(backend, KEY)
    assert caught.value.reason == "UnsignedCommit"
    assert caught.value.commit == forged
    assert find_named(backend, "mine") == []
    made = make(backend, tmp_path, nonce="other", replaces=caught.value.etag)
    assert probe(backend, KEY)[0] == made != forged


@pytest.mark.parametrize("keyring", [required(OLD), Keyring((OLD,))])
def test_a_record_that_was_changed_after_it_was_signed_is_none(backend, tmp_path, keyring):
    backend.keyring = Keyring((OLD,))
    make(backend, tmp_path)
    data, etag = backend.get(commit_name(KEY))
    changed = json.loads(data) | {"manifest": "cd" * 32}
    backend.put(commit_name(KEY), json.dumps(changed).encode(), if_match=etag)
    backend.keyring = keyring
    with pytest.raises(UnsignedCommit, match="is not what the key signed"):
        probe(backend, KEY)


def test_a_signed_record_cannot_stand_for_another_key(backend, tmp_path):
    backend.keyring = required(OLD)
    make(backend, tmp_path)
    backend.put(commit_name("cd" * 32), backend.get(commit_name(KEY))[0])
    with pytest.raises(DamagedCommit, match="another key"):
        probe(backend, "cd" * 32)


@pytest.mark.parametrize("signature", ["x", 3, None, {}, {"keyId": "old"}, {"algorithm": "hmac-sha256", "keyId": "old"},
                                       {"algorithm": "hmac-sha256", "keyId": "old", "value": "é"}, [1]])  # fmt: skip
def test_whatever_stands_in_the_place_of_a_signature_makes_no_result(backend, tmp_path, signature):
    make(backend, tmp_path)
    data, _ = backend.get(commit_name(KEY))
    backend.put(commit_name(KEY), json.dumps(json.loads(data) | {"signature": signature}).encode())
    backend.keyring = required(OLD)
    with pytest.raises(UnsignedCommit):
        probe(backend, KEY)


def test_an_unsigned_record_that_comes_while_the_result_is_made_is_replaced(backend, tmp_path):
    make(backend, tmp_path, nonce="forged")
    backend.keyring = required(OLD)
    made = make(backend, tmp_path, nonce="right")  # it saw nothing to replace
    assert probe(backend, KEY)[0] == made
    assert made.nonce == "right"


def test_eight_who_sign_by_two_keys_adopt_one(backend, tmp_path):
    backend.keyring = required(NEW, OLD)
    first = make(backend, tmp_path, nonce="0")
    assert {make(backend, tmp_path, nonce=str(number)).nonce for number in range(8)} == {first.nonce}


def test_a_key_is_replaced_without_a_miss(backend, tmp_path):
    backend.keyring = required(OLD)
    made = make(backend, tmp_path)
    backend.keyring = required(NEW, OLD)
    assert probe(backend, KEY)[0] == made
    assert list(sign_all(backend, unsigned=False)) == [(KEY, None)]
    backend.keyring = required(NEW)
    assert probe(backend, KEY)[0] == made
    assert list(sign_all(backend, unsigned=False)) == []


def test_results_of_a_store_that_was_unsigned_are_signed_only_by_whoever_vouches_for_them(backend, tmp_path):
    made = make(backend, tmp_path)
    backend.put(commit_name("cd" * 32), backend.get(commit_name(KEY))[0])
    backend.put(commit_name("ef" * 32), b"{")
    backend.keyring = required(OLD)
    left = dict(sign_all(backend, unsigned=False))
    assert "is unsigned" in left[KEY]
    signed = dict(sign_all(backend, unsigned=True))
    assert signed[KEY] is None
    assert "another key" in signed["cd" * 32]
    assert "damaged" in signed["ef" * 32]
    assert probe(backend, KEY)[0] == made


def test_one_that_was_forged_is_signed_by_nobody(backend, tmp_path):
    backend.keyring = Keyring((OLD,))
    made = make(backend, tmp_path)
    data = sealed(unsealed(backend.keyring.sign(made.encode())).replace(b'"mine"', b'"his"'))
    backend.put(commit_name(KEY), data)
    (left,) = sign_all(backend, unsigned=True)
    assert "signed by a key that is wrong" in left[1]
    assert backend.get(commit_name(KEY))[0] == data


def test_the_collector_keeps_what_can_still_be_signed_and_verify_names_it(backend, tmp_path):
    made = make(backend, tmp_path)
    forged = replace(made, cache_key="cd" * 32, manifest="ef" * 32)
    backend.put(commit_name(forged.cache_key), forged.encode())
    backend.keyring = required(OLD)
    collect(backend, Limits(grace=-1.0, unfinished=1e9), delete=True)
    damages = list(verify(backend))
    assert [damage.name for damage in damages] == [commit_name(KEY), commit_name(forged.cache_key)]
    for damage in damages:
        discard(backend, damage)
    backend.keyring = NO_KEYS
    restore(backend, read_manifest(backend, probe(backend, KEY)[0].manifest), tmp_path / "in")
    assert (tmp_path / "in" / "a").read_text() == "1"


def test_a_signature_stays_with_what_a_later_release_writes_into_the_record():
    keyring = required(OLD)
    record = Commit(cache_key=KEY, mode="train", name="x", manifest="m", files=0, size=0, total=1, round="r", attempt="a",
                    nonce="n", created=0).encode()  # fmt: skip
    later = keyring.sign(record[:-1] + b',"zone":"eu"}')
    assert keyring.state(later) == "newest"
    assert keyring.state(unsealed(later).replace(b'"eu"', b'"us"')) == "wrong"


# --- the file of keys ---


def write(path, text):
    path.write_text(text)
    return path


def test_the_first_key_of_a_file_signs_and_all_are_believed(tmp_path):
    path = write(tmp_path / "keys", f"new {'6e' * 32}\n\nold {'6f' * 32}\n")
    assert read_keyring(path, required=True) == required(NEW, OLD)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "holds no key"),
        ("deadbeef" * 8, "line 1 of .* is no key"),
        (f"one {'6e' * 31}", "line 1"),
        (f"one {'6e' * 32}\ntwo {'zz' * 32}", "line 2"),
        (f"one {'6e' * 32}\none {'6f' * 32}", "one id to two keys"),
        (f"a/b {'6e' * 32}", "line 1"),
    ],
)
def test_a_file_that_holds_no_keys_is_refused_and_nothing_of_it_is_shown(tmp_path, text, why):
    with pytest.raises(InputError, match=why) as caught:
        read_keyring(write(tmp_path / "keys", text), required=False)
    assert "6e6e" not in str(caught.value)
    assert "deadbeef" not in str(caught.value)
    assert "openssl rand" in str(caught.value) or "id of its own" in str(caught.value)


def test_a_file_that_cannot_be_read_and_one_that_is_not_named_are_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_keyring(tmp_path / "none", required=False)
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="no plain text"):
        read_keyring(tmp_path / "bytes", required=False)
    with pytest.raises(InputError, match="signatures are required, and no file of keys is named"):
        read_keyring(None, required=True)


def test_a_secret_is_never_shown():
    assert "oooo" not in repr(required(OLD)) + str(OLD)


def test_a_user_names_keys_by_the_environment(tmp_path):
    keys = write(tmp_path / "keys", f"new {'6e' * 32}")
    env = {"RUNONCE_HOME": str(tmp_path), "RUNONCE_SIGNING_KEY_FILE": str(keys), "RUNONCE_REQUIRE_SIGNED": "1"}
    assert open_yours(Settings.from_env(env)).keyring == required(NEW)
    assert open_yours(Settings.from_env(env | {"RUNONCE_REQUIRE_SIGNED": "0"})).keyring == Keyring((NEW,))
    assert open_yours(Settings.from_env({"RUNONCE_HOME": str(tmp_path)})).keyring == NO_KEYS
