"""Names that a guest may call itself: made from a server's name, or given (2.90, with a domain from 2.94)."""

import re

from cumulet.core.errors import BadRequest

LONGEST = 63
_LABEL = re.compile(r"[a-zA-Z0-9]+[a-zA-Z0-9-]*[a-zA-Z0-9]+")
_FQDN = re.compile(r"[a-zA-Z0-9-._]{1,255}")


def hostname_from(name: str, server_id: str) -> str:
    """A host name of at most 63 letters, digits and hyphens that looks like ``name``."""
    cut = name.encode("ascii", "ignore").decode()[:LONGEST]
    clean = re.sub(r"[^a-z0-9-]+", "", re.sub(r"[ _.]", "-", cut).lower()).strip("-")
    return clean or f"server-{server_id}"[:LONGEST]


def check_hostname(value: str, *, fqdn: bool) -> str:
    good = _FQDN.fullmatch(value) if fqdn else (_LABEL.fullmatch(value) and 2 <= len(value) <= LONGEST)
    labels = value.split(".")
    if not good or any(not label or len(label) > LONGEST or label[0] == "-" for label in labels):
        raise BadRequest(f"Invalid input for field/attribute hostname. Value: {value[:300]!r} is not a host name")
    return value
