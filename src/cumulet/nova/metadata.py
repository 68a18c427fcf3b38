"""nova-api-metadata: tells a guest about itself.

Guests reach it through neutron-metadata-agent only, which says who asks (``X-Instance-ID``, ``X-Tenant-ID``,
``X-Forwarded-For``) and proves that it is the one to say so by an HMAC over the server's id.  A header that a
guest forges proves nothing, for the agent overwrites it and a guest does not have the secret.  The server must
belong to the project and have the address, or it does not exist.
"""

import re
from collections.abc import Mapping
from ipaddress import IPv6Address, ip_address
from typing import Any

import sqlalchemy as sa

from cumulet.core.controller import ControllerEnv
from cumulet.core.errors import ApiError, BadRequest, Conflict, Forbidden, NotFound
from cumulet.core.http import App, Reply, Request, Route
from cumulet.core.policy import PUBLIC, Policies
from cumulet.core.secrets import same, sign
from cumulet.core.service import Service
from cumulet.neutron.model import Port
from cumulet.nova import metadata_documents as documents
from cumulet.nova.metadata_documents import LATEST, Guest
from cumulet.nova.tables import servers

LONGEST_PASSWORD = 510
_SERVER_ID = re.compile(r"[0-9a-zA-Z-]{1,64}")


def show(request: Request) -> Reply:
    """A file or a listing of either tree."""
    parts = _parts(request)
    guest = _guest(request)
    if parts[:1] == ["openstack"]:
        return _openstack(guest, parts[1:])
    return _ec2(guest, parts[1:] if parts[:1] == ["ec2"] else parts)


def post_password(request: Request) -> Reply:
    """Keep the guest's encrypted password, once."""
    parts = _parts(request)
    guest = _guest(request)
    version = parts[1] if len(parts) == 3 and parts[0] == "openstack" else ""
    if parts[2:] != ["password"] or "password" not in documents.openstack_names(guest, version):
        raise NotFound("404 Not Found")
    if len(request.raw) > LONGEST_PASSWORD:
        raise BadRequest("Request is too large.")
    try:
        password = request.raw.decode("ascii")
    except UnicodeDecodeError as error:
        raise BadRequest("A password is encrypted and in base64, so it is ASCII text.") from error
    unset = sa.func.coalesce(servers.c.encrypted_password, "") == ""
    with request.db.transaction() as tx:
        mine = sa.and_(servers.c.id == guest.id, servers.c.gone_at.is_(None), unset)
        if not tx.write(sa.update(servers).where(mine).values(encrypted_password=password)):
            raise Conflict("The password was set already; it is cleared through the compute API.")
    return Reply(b"", content_type="text/plain")


def _parts(request: Request) -> list[str]:
    parts = [part for part in request.path.split("/") if part]
    if ".." in parts or "." in parts:
        raise NotFound("404 Not Found")
    return parts


# ── who asks ─────────────────────────────────────────────────────────────────────────────────────────────────


def _guest(request: Request) -> Guest:
    server_id, project_id = (_header(request.headers, name) for name in ("X-Instance-ID", "X-Tenant-ID"))
    signature = _header(request.headers, "X-Instance-ID-Signature")
    if not same(sign(request.app.extras, server_id), signature):
        raise Forbidden("Invalid proxy request signature.")
    if not _SERVER_ID.fullmatch(server_id):
        raise NotFound("404 Not Found")
    with request.db.read() as tx:
        guest = documents.find_guest(tx, server_id)
    if guest is None or not same(guest.project_id, project_id):
        raise NotFound("404 Not Found")
    if not _has_address(guest, _header(request.headers, "X-Forwarded-For")):
        raise NotFound("404 Not Found")
    return guest


def _header(headers: Mapping[str, str], name: str) -> str:
    value = headers.get(name.lower(), "").strip()
    if not value:
        raise BadRequest(f"{name} header is missing from request.")
    if "," in value:
        raise BadRequest(f"Multiple {name} headers found within request.")
    return value


def _has_address(guest: Guest, text: str) -> bool:
    """Whether the guest asks from an address of one of its ports, or from the link-local one of its MAC."""
    try:
        asking = ip_address(text.partition("%")[0])
    except ValueError as error:
        raise BadRequest("X-Forwarded-For is not an address.") from error
    if any(ip_address(address.ip) == asking for address in guest.fixed):
        return True
    return asking.is_link_local and any(_link_local(port) == asking for port in guest.ports)


def _link_local(port: Port) -> IPv6Address:
    """The address that a port gives itself on its link (RFC 4291, EUI-64)."""
    mac = bytes(int(part, 16) for part in port.mac.split(":"))
    host = bytes([mac[0] ^ 2]) + mac[1:3] + b"\xff\xfe" + mac[3:]
    return IPv6Address(b"\xfe\x80" + bytes(6) + host)


# ── the trees ────────────────────────────────────────────────────────────────────────────────────────────────


def _openstack(guest: Guest, parts: list[str]) -> Reply:
    if not parts:
        return _text("\n".join((*documents.OPENSTACK_VERSIONS, LATEST)))
    names = documents.openstack_names(guest, parts[0])
    if len(parts) == 1 and names:
        return _text("\n".join(names))
    content = documents.openstack_file(guest, parts[0], parts[1]) if len(parts) == 2 else None
    if content is None:
        raise NotFound("404 Not Found")
    kind = "application/json" if parts[1].endswith(".json") else "text/plain; charset=UTF-8"
    return Reply(content, content_type=kind)


def _ec2(guest: Guest, parts: list[str]) -> Reply:
    if not parts:
        return _text("\n".join((*documents.EC2_VERSIONS, LATEST)))
    node: Any = documents.ec2_tree(guest, parts[0])
    for part in parts[1:]:
        node = node.get(part) if isinstance(node, dict) else None
    if node is None:
        raise NotFound("404 Not Found")
    if isinstance(node, dict):
        return _text(_listing(guest, parts[1:], node))
    return Reply(node if isinstance(node, bytes) else str(node).encode(), content_type="text/plain; charset=UTF-8")


def _listing(guest: Guest, parts: list[str], node: dict[str, Any]) -> str:
    """A directory: one name a line, directories with a slash; the keys' directory tells their names instead."""
    if parts == ["meta-data", "public-keys"] and guest.key:
        return f"0={guest.key['name']}"
    return "\n".join(f"{name}/" if isinstance(node[name], dict) else name for name in sorted(node))


def _text(text: str) -> Reply:
    return Reply(text.encode(), content_type="text/plain; charset=UTF-8")


def render_error(error: ApiError) -> tuple[bytes, str]:
    return f"{error.message}\n".encode(), "text/plain; charset=UTF-8"


def show_health(request: Request) -> Reply:
    return _text("OK")


def build_app(env: ControllerEnv) -> App:
    return App(
        "nova-api-metadata",
        [
            Route("GET", "/healthcheck", show_health, PUBLIC),
            Route("GET", "/", show, PUBLIC),
            Route("GET", "/{path:path}", show, PUBLIC),
            Route("POST", "/{path:path}", post_password, PUBLIC, longest_body=8192),
        ],
        db=env.db,
        config=env.config,
        policies=Policies({}),
        caller=env.caller,
        render_error=render_error,
        extras=env.secrets.metadata_secret,
    )


def build(env: ControllerEnv) -> Service:
    return Service(app=build_app(env))
