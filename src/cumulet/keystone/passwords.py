"""Passwords: bcrypt over SHA-256, so that every byte of a long password counts and none is cut off at 72.

A login costs one bcrypt whether the user exists or not, has a password or not, may log in or not: neither the
answer nor its time tells which.
"""

import base64
import hashlib
import hmac

import bcrypt

from cumulet.core.errors import BadRequest

LONGEST_BYTES = 4096
_NOBODY = "$2b${rounds:02}$" + "." * 22 + "/" * 31
"""A well-formed hash that no password is known to have."""


def check_new(password: str) -> None:
    """Raise BadRequest unless ``password`` may become somebody's."""
    if not password.strip():
        raise BadRequest("Password validation error: The password must not be empty.")
    if len(password.encode(errors="surrogatepass")) > LONGEST_BYTES:
        raise BadRequest(f"Password validation error: The password is longer than {LONGEST_BYTES} bytes.")


def make_hash(password: str, rounds: int) -> str:
    check_new(password)
    return bcrypt.hashpw(_digest(password), bcrypt.gensalt(rounds)).decode()


def matches(password: str, stored: str | None, rounds: int) -> bool:
    """Whether ``password`` is the one of ``stored``; as slow for nobody's (None) as for somebody's."""
    good = bcrypt.checkpw(_digest(password), (stored or _NOBODY.format(rounds=rounds)).encode())
    return good and stored is not None and bool(password.strip())


def _digest(password: str) -> bytes:
    """44 bytes without NUL, whatever the password."""
    data = password.encode(errors="surrogatepass")
    return base64.b64encode(hmac.new(b"cumulet password", data, hashlib.sha256).digest())
