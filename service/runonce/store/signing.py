"""Signatures of commit records: HMAC-SHA256 over their canonical bytes, by a key that only those who commit have.

The first key of a file signs, every one of them is believed; so a key is replaced by putting a new one before it.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from runonce.errors import Fault, InputError
from runonce.experiment.canonical import canonical
from runonce.experiment.seal import SEAL, read_record, sealed, unsealed

ALGORITHM = "hmac-sha256"

State = Literal["newest", "known", "unsigned", "unknown", "wrong"]

_FIELD = "signature"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SECRET = re.compile(r"([0-9a-f]{2}){32,128}")
_FIX = 'Write one key a line, an id and at least 64 hex digits: echo "2026-11 $(openssl rand -hex 32)" > FILE'


@dataclass(frozen=True, slots=True)
class Key:
    id: str
    secret: bytes

    def __repr__(self) -> str:
        return f"Key({self.id!r})"

    def sign(self, content: bytes) -> str:
        return hmac.digest(self.secret, content, "sha256").hex()


@dataclass(frozen=True, slots=True)
class Keyring:
    """keys: the first one signs. required: an unsigned record, or one of a key that is not here, is no result."""

    keys: tuple[Key, ...] = ()
    required: bool = False

    def sign(self, record: bytes) -> bytes:
        """The record, sealed, with a signature in it where there is a key."""
        if not self.keys:
            return sealed(unsealed(record))
        content, _ = _split(record)
        key = self.keys[0]
        signature = {"algorithm": ALGORITHM, "keyId": key.id, "value": key.sign(canonical(content))}
        return sealed(canonical({**content, _FIELD: signature}))

    def state(self, record: bytes) -> State:
        """newest: signed by the key that signs now; known: by another one; wrong: by none, though it says so."""
        content, signature = _split(record)
        if signature is None:
            return "unsigned"
        key = next((key for key in self.keys if key.id == signature.get("keyId")), None)
        if key is None or signature.get("algorithm") != ALGORITHM:
            return "unknown"
        if not hmac.compare_digest(key.sign(canonical(content)).encode(), str(signature.get("value")).encode()):
            return "wrong"
        return "newest" if key is self.keys[0] else "known"

    def fault(self, record: bytes) -> str | None:
        """Why this record, which is one of a commit, cannot be believed; None if it can."""
        state = self.state(record)
        if state == "wrong":
            return "is not what the key signed whose signature it has"
        if self.required and state == "unsigned":
            return "is not signed"
        if self.required and state == "unknown":
            return "is signed by a key that is not known here"
        return None


NO_KEYS = Keyring()


def read_keyring(path: Path | None, *, required: bool) -> Keyring:
    """The keys of a file. Raises InputError, which never repeats a secret."""
    if path is None:
        if required:
            what = "signatures are required, and no file of keys is named."
            raise InputError.of("signing", what, "Name it in RUNONCE_SIGNING_KEY_FILE.")
        return NO_KEYS
    try:
        text = path.read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        what = f"{path} cannot be read: {getattr(error, 'strerror', None) or 'it is no plain text'}."
        raise InputError.of("signing", what, _FIX) from None
    lines = [(number, line.split()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    faults = [
        Fault("signing", f"line {number} of {path} is no key.", _FIX)
        for number, words in lines
        if len(words) != 2 or not _ID.fullmatch(words[0]) or not _SECRET.fullmatch(words[1])
    ]
    if not lines:
        faults = [Fault("signing", f"{path} holds no key.", _FIX)]
    elif not faults and len({words[0] for _, words in lines}) < len(lines):
        faults = [Fault("signing", f"{path} gives one id to two keys.", "Give each key an id of its own.")]
    if faults:
        raise InputError(*faults)
    return Keyring(tuple(Key(words[0], bytes.fromhex(words[1])) for _, words in lines), required)


def _split(record: bytes) -> tuple[Mapping[str, Any], Mapping[str, Any] | None]:
    """What is signed, and the signature. The record has been decoded before, so it is a JSON object."""
    content = dict(read_record(record))
    content.pop(SEAL, None)  # of one that was written over by hand
    signature = content.pop(_FIELD, None)
    return content, signature if isinstance(signature, dict) or signature is None else {}
