"""The cloud's own certificate authority, and TLS between agents, clients and controllers.

The authority is a secret like the others: its key is where the cloud's secrets are, on controllers alone; every
other node is given its certificate.  Each controller makes itself a certificate for the names and addresses that it
is called by, when its node starts: a new one if those changed, if the authority is another one, or if half its life
is over.  So there is nothing to order, to copy or to remember but a restart of the node once a year.

Who calls a controller checks its certificate against the authority, and that it is for the address that was called.

A host that others call (nova-compute) has a certificate for its name.  It makes the key itself and has a controller
sign it, which knows the host by its token; who calls the host checks the name, whatever the address is.
"""

import functools
import ipaddress
import os
import ssl
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cumulet.core.config import Config
from cumulet.core.errors import BadRequest

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey

AUTHORITY_YEARS = 20
SERVER_DAYS, HOST_DAYS = 825, 30
"""As long as clients take a server's certificate for; a host gets itself a new one in time."""
EARLIER = timedelta(hours=1)  # clocks differ


def authority_path(config: Config) -> Path:
    """The authority's certificate, for everybody to read."""
    return config.etc / "tls" / "ca.pem"


def server_path(config: Config) -> Path:
    """A controller's key and certificate, for its services to read."""
    return config.etc / "tls" / "server.pem"


def host_path(config: Config) -> Path:
    """A host's key and certificate."""
    return config.etc / "tls" / "host.pem"


def trust(config: Config) -> ssl.SSLContext | None:
    """How to call a controller: with the authority's certificate alone; None where TLS is off."""
    return client_context(authority_path(config)) if config.tls.on else None


def broker_trust(config: Config) -> ssl.SSLContext | None:
    """How to call the broker if its URL says amqps: as a controller; one with users of its own is somebody else's.

    That one's certificate may be of any authority that the machine knows.
    """
    url = urlsplit(config.broker.url)
    if url.scheme != "amqps":
        return None
    return ssl.create_default_context() if url.username is not None else trust(config)


def serving(config: Config, agent: bool = False) -> str:
    """The file that a controller's services, or a host's agents, serve with; empty where TLS is off."""
    path = host_path(config) if agent else server_path(config)
    return str(path) if config.tls.on else ""


@functools.lru_cache(maxsize=4)
def client_context(authority: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def names(config: Config) -> list[str]:
    """What a controller is called by."""
    api = config.api
    called = [api.public_host, api.bind, api.internal_bind, config.node.name, "localhost", "127.0.0.1", "::1"]
    if not api.controllers:
        called.append(api.controller)
    return [name for name in dict.fromkeys(called) if name and name not in ("0.0.0.0", "::")]


def prepare(config: Config, authority: str, group: int | None) -> None:
    """Write what this node needs, as root.

    On controllers ``authority`` has its key, and ``group`` may read what the services serve with.
    A host begins with a certificate that nobody trusts, until a controller has signed another one.
    """
    keep_authority(config, authority)
    if not host_path(config).exists():
        write_host(config, issue(make_authority(), [config.node.name], datetime.now(UTC)))
    if group is None:
        return
    path = server_path(config)
    old = path.read_text() if path.exists() else ""
    if not still_good(old, authority, names(config), datetime.now(UTC)):
        _write(path, issue(authority, names(config), datetime.now(UTC)), 0o640, group)


def keep_authority(config: Config, authority: str) -> None:
    """Write down whom to believe: the authority's certificate, without its key."""
    path = authority_path(config)
    path.parent.mkdir(mode=0o755, exist_ok=True)
    _write(path, certificate_of(authority), 0o644, 0)


def make_authority(now: datetime | None = None) -> str:
    """A new authority: its key and its certificate."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

    begin = now or datetime.now(UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name("Cumulet certificate authority")
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        _builder(subject, subject, key.public_key(), begin, timedelta(days=365 * AUTHORITY_YEARS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
    )
    return _private(key) + _sign(builder, key)


def issue(authority: str, called: Collection[str], now: datetime, days: int = SERVER_DAYS) -> str:
    """A key and a certificate of the authority's for a server of these names and addresses."""
    key = make_key()
    return key + sign(authority, public_key(key), called, now, days)


def make_key() -> str:
    """A new private key."""
    from cryptography.hazmat.primitives.asymmetric import ec

    return _private(ec.generate_private_key(ec.SECP256R1()))


def public_key(private: str) -> str:
    """What a private key is signed by."""
    from cryptography.hazmat.primitives import serialization

    form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return _key(private).public_key().public_bytes(*form).decode()


def sign(authority: str, public: str, called: Collection[str], now: datetime, days: int) -> str:
    """A certificate for who has the private part of this key; BadRequest if it is not of the kind used here."""
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    signer, issuer = _key(authority), _certificate(authority)
    builder = (
        _builder(_name("Cumulet server"), issuer.subject, _public(public), now, timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([_general(name) for name in called]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    return _sign(builder, signer)


def still_good(pem: str, authority: str, called: Collection[str], now: datetime) -> bool:
    """Whether a server's certificate is of this authority, for these names, and in the first half of its life."""
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature

    try:
        found = _certificate(pem)
        found.verify_directly_issued_by(_certificate(authority))
        alternatives = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
    half = found.not_valid_before_utc + (found.not_valid_after_utc - found.not_valid_before_utc) / 2
    return set(alternatives) == {_general(name) for name in called} and found.not_valid_before_utc <= now < half


def certificate_of(pem: str) -> str:
    """The certificate alone, without the key that may stand before it."""
    begin = pem.find("-----BEGIN CERTIFICATE-----")
    return pem[begin:] if begin >= 0 else ""


def _builder(
    subject: "x509.Name", issuer: "x509.Name", public: "EllipticCurvePublicKey", begin: datetime, life: timedelta
) -> "x509.CertificateBuilder":
    from cryptography import x509

    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin - EARLIER)
        .not_valid_after(begin + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _sign(builder: "x509.CertificateBuilder", signer: "EllipticCurvePrivateKey") -> str:
    from cryptography.hazmat.primitives import hashes, serialization

    return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def _private(key: "EllipticCurvePrivateKey") -> str:
    from cryptography.hazmat.primitives import serialization

    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(*form).decode()


def _name(text: str) -> "x509.Name":
    from cryptography import x509

    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def _general(name: str) -> "x509.GeneralName":
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key(pem: str) -> "EllipticCurvePrivateKey":
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    found = load_pem_private_key(pem.encode(), None)
    assert isinstance(found, EllipticCurvePrivateKey)
    return found


def _public(pem: str) -> "EllipticCurvePublicKey":
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        found = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadRequest("this is no public key") from error
    if not isinstance(found, EllipticCurvePublicKey) or not isinstance(found.curve, SECP256R1):
        raise BadRequest("this is no public key on the curve P-256")
    return found


def _certificate(pem: str) -> "x509.Certificate":
    from cryptography import x509

    return x509.load_pem_x509_certificate(certificate_of(pem).encode())


def write_host(config: Config, pem: str) -> None:
    """Keep what a host serves with."""
    _write(host_path(config), pem, 0o600, -1)


def _write(path: Path, text: str, mode: int, group: int) -> None:
    if path.exists() and path.read_text() == text:
        return
    partial = path.with_name(f"{path.name}.new")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    os.chown(partial, -1, group)
    partial.chmod(mode)
    partial.replace(path)
