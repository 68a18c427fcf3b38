"""What a token looks like: a ``Payload`` as compact msgpack, sealed by Fernet, in base64 without padding.

There is one text for each token: base64 with stray characters or spare bits, which Fernet would accept, is
refused, so nobody can dress a token up as another one.  Opening proves who made the token and that it is in its
time; whether what it stands on is still true is ``standing``'s question.
"""

import base64
import binascii
import secrets
import time
from uuid import UUID

import msgspec

from cumulet.keystone.keys import Keyring
from cumulet.keystone.model import Payload, Scope, ScopeKind

LONGEST = 4096
SKEW_SECONDS = 60
"""How far the clocks of two controllers may be apart."""
VERSION = 1
METHODS = ("password", "token", "application_credential")
KINDS: tuple[ScopeKind, ...] = ("unscoped", "project", "domain", "system")


class _Packed(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    version: int
    user_id: bytes  # _pack_id
    kind: int
    scope_id: bytes
    methods: int  # one bit for each of METHODS
    issued_at: int
    lifetime: int
    audit_ids: bytes  # 16 bytes each
    revision: int
    application_credential: bytes = b"t"  # _pack_id
    trust: bytes = b"t"  # _pack_id


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Packed).decode


def new_audit_id() -> str:
    return _audit_text(secrets.token_bytes(16))


def seal(keyring: Keyring, payload: Payload) -> str:
    packed = _Packed(
        VERSION,
        _pack_id(payload.user_id),
        KINDS.index(payload.scope.kind),
        _pack_id(payload.scope.id),
        sum(1 << METHODS.index(method) for method in set(payload.methods)),
        payload.issued_at,
        payload.expires_at - payload.issued_at,
        b"".join(base64.urlsafe_b64decode(audit_id + "==") for audit_id in payload.audit_ids),
        payload.revision,
        _pack_id(payload.application_credential),
        _pack_id(payload.trust),
    )
    return keyring.seal(_encode(packed))


def unseal(keyring: Keyring, text: str) -> Payload | None:
    """The payload of a token that we made and whose time it is, or None."""
    raw = _canonical(text)
    data = keyring.open(raw) if raw else None
    if data is None:
        return None
    try:
        packed = _decode(data)
    except msgspec.MsgspecError:
        return None
    now = time.time()
    expires_at = packed.issued_at + packed.lifetime
    if packed.version != VERSION or now >= expires_at or packed.issued_at > now + SKEW_SECONDS:
        return None
    return Payload(
        _unpack_id(packed.user_id),
        Scope(KINDS[packed.kind], _unpack_id(packed.scope_id)),
        tuple(sorted(method for bit, method in enumerate(METHODS) if packed.methods >> bit & 1)),
        packed.issued_at,
        expires_at,
        tuple(_audit_text(packed.audit_ids[at : at + 16]) for at in range(0, len(packed.audit_ids), 16)),
        packed.revision,
        _unpack_id(packed.application_credential),
        _unpack_id(packed.trust),
    )


def _canonical(text: str) -> bytes | None:
    """``text`` with its padding, if it is the one way to write its bytes."""
    if not 100 <= len(text) <= LONGEST or not text.isascii():
        return None
    raw = text.encode()
    padded = raw + b"=" * (-len(raw) % 4)
    try:
        again = base64.urlsafe_b64encode(base64.urlsafe_b64decode(padded))
    except binascii.Error:
        return None
    return padded if again == padded and not raw.endswith(b"=") else None


def _audit_text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _pack_id(text: str) -> bytes:
    """A UUID in 16 bytes behind a ``u``; any other id (``default``) as it is, behind a ``t``."""
    try:
        number = UUID(hex=text)
    except ValueError:
        return b"t" + text.encode()
    return b"u" + number.bytes if number.hex == text else b"t" + text.encode()


def _unpack_id(value: bytes) -> str:
    return value[1:].hex() if value[:1] == b"u" else value[1:].decode()
