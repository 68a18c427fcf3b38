"""``/os-keypairs``: public keys of a user, to be put into new servers.

A key belongs to a user, not to a project; administrators may act for another user (``user_id``).  Until 2.91
the cloud makes a pair for who sends none: the private key is in the answer and nowhere else.  A pair of type x509
is a certificate that its user logs in to Windows with, and its key.
"""

import base64
import binascii
import hashlib
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from msgspec import UNSET, UnsetType
from sqlalchemy.engine import Row

from cumulet.core import clock
from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest, Conflict, Forbidden, NotFound
from cumulet.core.http import Json, Reply, Request, Route
from cumulet.core.listing import Listing, list_page
from cumulet.core.schema import Strict, given
from cumulet.nova import notices, quotas, versions
from cumulet.nova.checks import check_name
from cumulet.nova.paging import PAGE, next_links, only
from cumulet.nova.tables import keypairs

LONGEST_KEY = 16384
RSA_BITS = 2048
CERTIFICATE_DAYS = 3650
PRINCIPAL_NAME = x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3")
DER_TEXT = 0x0C


class NewKeypair(Strict):
    name: str
    type: str | UnsetType = UNSET
    public_key: str | UnsetType = UNSET
    user_id: str | UnsetType = UNSET


class CreateKeypair(Strict):
    keypair: NewKeypair


def find_keypair(tx: Transaction, user_id: str, name: str) -> Row[Any] | None:
    return tx.find(sa.select(keypairs).where(keypairs.c.user_id == user_id, keypairs.c.name == name))


def _get(tx: Transaction, request: Request, user_id: str) -> Row[Any]:
    name = request.params["name"]
    row = find_keypair(tx, user_id, name)
    if row is None:
        raise NotFound(f"Keypair {name} not found for user {user_id}")
    return row


def _user(request: Request, verb: str) -> str:
    """Whose keys these are: the caller's, or ``user_id``'s from 2.10 on if the policy lets."""
    versions.check_query("keypairs" if verb == "index" else "keypair", request)
    asked = request.one("user_id") if request.version >= (2, 10) else None
    user_id = asked or request.context.user_id
    request.enforce(f"os_compute_api:os-keypairs:{verb}", {"user_id": user_id})
    return user_id


def list_keypairs(request: Request) -> Json:
    user_id = _user(request, "index")
    mine = sa.select(keypairs).where(keypairs.c.user_id == user_id)
    paged = only(request, frozenset())
    with request.db.read() as tx:
        page = list_page(tx, mine, paged, _LISTING)
    found = [{"keypair": _view(request, row, ("name", "public_key", "fingerprint", "type"))} for row in page.rows]
    return {"keypairs": found, **(next_links(request, "keypairs", page) if request.version >= (2, 35) else {})}


def show_keypair(request: Request) -> Json:
    user_id = _user(request, "show")
    with request.db.read() as tx:
        row = _get(tx, request, user_id)
    document = _view(request, row, ("name", "public_key", "fingerprint", "user_id", "type"))
    kept = {
        "created_at": row.created_at[:26],
        "deleted": False,
        "deleted_at": None,
        "updated_at": None,
        "id": int(hashlib.blake2b(f"{row.user_id}/{row.name}".encode(), digest_size=4).hexdigest(), 16) >> 1,
    }
    return {"keypair": document | kept}


def create_keypair(request: Request) -> Json:
    wish: NewKeypair = request.body.keypair
    versions.check_fields("keypair", given(wish), request.version)
    user_id = request.context.user_id if wish.user_id is UNSET else wish.user_id
    request.enforce("os_compute_api:os-keypairs:create", {"user_id": user_id})
    kind = "ssh" if wish.type is UNSET else wish.type
    values: dict[str, Any] = {
        "user_id": user_id,
        "name": _checked_name(wish.name, request),
        "type": kind,
        "created_at": clock.now(),
    }
    private_key = None
    if wish.public_key is UNSET and request.version >= (2, 92):
        raise BadRequest("Invalid input for field/attribute keypair. 'public_key' is a required property")
    if wish.public_key is UNSET:
        values["public_key"], private_key = _generate(kind, user_id)
    else:
        values["public_key"] = wish.public_key
    values["fingerprint"] = _fingerprint(kind, values["public_key"])
    with request.db.transaction() as tx:
        _insert(tx, request, values)
        verb = "create" if private_key else "import"
        notices.tell_done(tx, request, "keypair", verb, _told(request, user_id, values["name"]))
        row = find_keypair(tx, user_id, values["name"])
        assert row is not None
    document = _view(request, row, ("name", "public_key", "fingerprint", "user_id", "type"))
    return {"keypair": document | ({"private_key": private_key} if private_key else {})}


def _insert(tx: Transaction, request: Request, values: dict[str, Any]) -> None:
    quotas.lock(tx, values["user_id"])
    limit = quotas.read_limits(tx, request.context.project_id)["key_pairs"]
    count = tx.value(
        sa.select(sa.func.count()).select_from(keypairs).where(keypairs.c.user_id == values["user_id"])
    )
    if 0 <= limit <= int(count):
        raise Forbidden("Quota exceeded, too many key pairs.", kind="KeypairLimitExceeded")
    try:
        tx.write(keypairs.insert(), values)
    except Conflict as error:
        raise Conflict(f"Key pair '{values['name']}' already exists.") from error


def _checked_name(name: str, request: Request) -> str:
    pattern = r"[_\-@. a-zA-Z0-9]+" if request.version >= (2, 92) else r"[_\- a-zA-Z0-9]+"
    if not re.fullmatch(pattern, check_name(name)):
        raise BadRequest(
            "Keypair data is invalid: Keypair name contains unsafe characters: "
            "it has letters, digits, spaces, _ and -, and from 2.92 on also @ and ."
        )
    return name


def delete_keypair(request: Request) -> Reply:
    user_id = _user(request, "delete")
    with request.db.transaction() as tx:
        row = _get(tx, request, user_id)
        tx.write(sa.delete(keypairs).where(keypairs.c.user_id == user_id, keypairs.c.name == row.name))
        notices.tell_done(tx, request, "keypair", "delete", _told(request, user_id, row.name))
    return Reply()


def _told(request: Request, user_id: str, name: str) -> Json:
    return {"tenant_id": request.context.project_id, "user_id": user_id, "key_name": name}


def _generate(kind: str, user_id: str) -> tuple[str, str]:
    """A new pair: (public, private).  RSA in PEM is what every SSH client reads."""
    if kind not in ("ssh", "x509"):
        raise BadRequest(f"Invalid input for field/attribute type. Value: {kind[:300]}. It is 'ssh' or 'x509'")
    key = rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    if kind == "x509":
        return _certificate(key, user_id).public_bytes(serialization.Encoding.PEM).decode(), private.decode()
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return f"{public.decode()} Generated-by-Cumulet", private.decode()


def _certificate(key: rsa.RSAPrivateKey, user_id: str) -> x509.Certificate:
    """Signed by itself, as Windows wants it for logins: for a client, with the user's principal name."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, user_id[:64])])
    principal = f"{user_id[:64]}@localhost".encode()
    now = datetime.now(UTC)
    other = x509.OtherName(PRINCIPAL_NAME, bytes([DER_TEXT, len(principal)]) + principal)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=CERTIFICATE_DAYS))
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([other]), critical=False)
        .sign(key, hashes.SHA256())
    )


def _fingerprint(kind: str, public_key: str) -> str:
    """Upstream's: MD5 of an SSH key's bytes, SHA-1 of a certificate's."""
    if len(public_key) > LONGEST_KEY:
        raise BadRequest(f"Keypair data is invalid: the public key is longer than {LONGEST_KEY} characters")
    if kind == "ssh":
        return _colons(hashlib.md5(_ssh_bytes(public_key), usedforsecurity=False).hexdigest())
    if kind == "x509":
        try:
            return _colons(x509.load_pem_x509_certificate(public_key.encode()).fingerprint(hashes.SHA1()).hex())
        except ValueError as error:
            raise BadRequest(f"Keypair data is invalid: failed to generate X509 fingerprint. {error}") from error
    raise BadRequest(f"Invalid input for field/attribute type. Value: {kind[:300]}. It is 'ssh' or 'x509'")


def _ssh_bytes(public_key: str) -> bytes:
    try:
        if "\n" in public_key.strip() or not public_key.isascii():
            raise ValueError("a public key is one line of ASCII text")
        serialization.load_ssh_public_key(public_key.strip().encode())
        return base64.b64decode(public_key.split()[1], validate=True)
    except (ValueError, IndexError, UnsupportedAlgorithm, binascii.Error) as error:
        raise BadRequest(
            "Keypair data is invalid: failed to generate fingerprint", kind="InvalidKeypair"
        ) from error


def _colons(digest: str) -> str:
    return ":".join(digest[i : i + 2] for i in range(0, len(digest), 2))


def _view(request: Request, row: Row[Any], names: tuple[str, ...]) -> Json:
    return versions.render("keypair", {name: getattr(row, name) for name in names}, request.version)


_LISTING = Listing(
    zero_is_empty=True,
    id=keypairs.c.name,
    columns={"name": keypairs.c.name},
    default_sort=(("name", "asc"),),
    default_page=PAGE,
)

POLICY = "os_compute_api:os-keypairs:"
ROUTES = (
    Route("GET", "/v2.1/os-keypairs", list_keypairs, POLICY + "index"),
    Route("POST", "/v2.1/os-keypairs", create_keypair, POLICY + "create", 200, body=CreateKeypair, until=(2, 1)),
    Route("POST", "/v2.1/os-keypairs", create_keypair, POLICY + "create", 201, body=CreateKeypair, since=(2, 2)),
    Route("GET", "/v2.1/os-keypairs/{name}", show_keypair, POLICY + "show"),
    Route("DELETE", "/v2.1/os-keypairs/{name}", delete_keypair, POLICY + "delete", 202, until=(2, 1)),
    Route("DELETE", "/v2.1/os-keypairs/{name}", delete_keypair, POLICY + "delete", 204, since=(2, 2)),
)
