"""The cloud's own secrets: made once by ``up``, kept in one file that only the cloud's user can read.

A host's token is derived from the host secret and the host's name, so it is good for that host alone and a
compute node needs nothing but its own: on nodes without controller services the file holds ``HostSecrets``.
"""

import hashlib
import hmac
import os
from pathlib import Path

import msgspec

from cumulet.core.certificates import certificate_of, make_authority
from cumulet.core.context import Secret


class Secrets(msgspec.Struct, frozen=True):
    admin_password: str
    host_secret: str
    metadata_secret: str
    registry_secret: str
    broker_password: str = ""  # of controller services
    hints_password: str = ""  # of what runs on hosts: good for hints alone
    database_password: str = ""  # of controller services
    authority: str = ""  # the key and certificate that the controllers' certificates are signed with

    def __repr__(self) -> str:
        return "Secrets(***)"


class HostSecrets(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a node without controller services has: nothing that shows it to be another host.

    ``metadata_secret``, which all metadata agents share with nova, is only where such an agent runs;
    ``hints_password`` lets every host send and hear hints, which hold nothing but ids.
    """

    host_token: str
    metadata_secret: str = ""
    hints_password: str = ""
    authority: str = ""  # its certificate

    def __repr__(self) -> str:
        return "HostSecrets(***)"


def path(etc: Path) -> Path:
    return etc / "secrets.json"


def load(etc: Path) -> Secrets:
    """The secrets in ``etc``; FileNotFoundError before ``up`` has made them."""
    return msgspec.json.decode(path(etc).read_bytes(), type=Secrets)


def ensure(etc: Path) -> Secrets:
    """The secrets in ``etc``, made (mode 0600) if there are none; those that are new in this version are added."""
    try:
        known = {name: value for name, value in msgspec.structs.asdict(load(etc)).items() if value}
    except FileNotFoundError:
        known = {}
    if len(known) == len(Secrets.__struct_fields__):
        return Secrets(**known)
    secrets = msgspec.structs.replace(generate(), **known)
    write(etc, secrets)
    return secrets


def load_host(etc: Path, host: str) -> HostSecrets:
    """What the agents of this node need, whether its file has the cloud's secrets or only its own."""
    found = msgspec.json.decode(path(etc).read_bytes(), type=dict[str, str])
    if "host_secret" in found:
        return host_secrets(msgspec.convert(found, Secrets), host, metadata=True)
    return msgspec.convert(found, HostSecrets)


def host_secrets(secrets: Secrets, host: str, metadata: bool) -> HostSecrets:
    """What ``host`` may have of the cloud's secrets; ``metadata``: whether a metadata agent runs there."""
    token = str(host_token(secrets.host_secret, host))
    shared = secrets.metadata_secret if metadata else ""
    return HostSecrets(token, shared, secrets.hints_password, certificate_of(secrets.authority))


def write(etc: Path, secrets: Secrets | HostSecrets) -> None:
    """Put the file in place whole, or not at all; mode 0600."""
    temporary = path(etc).with_suffix(".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(secrets))
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path(etc))


def generate() -> Secrets:
    texts = {name: str(Secret.generate()) for name in Secrets.__struct_fields__ if name != "authority"}
    return Secrets(**texts, authority=make_authority())


def host_token(secret: str, host: str) -> str:
    return Secret(hmac.new(secret.encode(), f"host:{host}".encode(), hashlib.sha256).hexdigest())


def service_token(secret: str, name: str) -> str:
    """What a controller service shows to another one; hosts cannot make it."""
    return Secret(sign(secret, f"service:{name}"))


def same(one: str, other: str) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(one.encode(), other.encode())


def sign(secret: str, text: str) -> str:
    """HMAC-SHA256 in hex, e.g. nova's ``X-Instance-ID-Signature``."""
    return hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()
