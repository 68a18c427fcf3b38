"""What the API shows of a server.  One document with everything; ``nova.versions`` makes the older ones of it.

``Look`` is what the caller may see, worked out once for a whole list.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
from sqlalchemy.engine import Row

from cumulet.core import clock, schema
from cumulet.core.db import Transaction
from cumulet.core.http import Json, Request
from cumulet.core.made import Made
from cumulet.core.microversion import Version
from cumulet.neutron.model import Port
from cumulet.nova import versions
from cumulet.nova.flavors import flavor_links
from cumulet.nova.services import find_hosts, host_status

_DIRECTORIES = re.compile(r"(?<!\w)/(?:[^\s/'\":;,]+/)+")
_WITH_PROGRESS = frozenset({"ACTIVE", "BUILD", "REBUILD"})
SHOW = "os_compute_api:servers:show"


class Face(NamedTuple):
    """What is shown of every server alike."""

    endpoint: str
    version: Version
    extra_specs: bool
    extended: bool  # host, instance name, user data
    details: bool  # of faults


@dataclass(frozen=True)
class Look:
    face: Face
    host_statuses: Mapping[str, str] | None  # None: not to be seen
    unknown_only: bool = False

    def host_status(self, host: str | None) -> str | None:
        """What is shown of the host's status, None for nothing."""
        if self.host_statuses is None:
            return None
        found = self.host_statuses.get(host, "UNKNOWN") if host else ""
        return None if self.unknown_only and found != "UNKNOWN" else found


def face_for(request: Request, project_id: str = "") -> Face:
    """What the caller may see of servers of ``project_id`` (default: the caller's own)."""
    target = {"project_id": project_id or request.context.project_id}
    return Face(
        request.app.endpoint,
        request.version,
        extra_specs=request.allows(f"{SHOW}:flavor-extra-specs", target),
        extended=request.allows("os_compute_api:os-extended-server-attributes", target),
        details=request.context.admin,
    )


def look_for(tx: Transaction, request: Request, face: Face, rows: Sequence[Row[Any]], project_id: str = "") -> Look:
    """The same for these servers, with the statuses of their hosts if they are to be seen."""
    target = {"project_id": project_id or request.context.project_id}
    every = request.allows(f"{SHOW}:host_status", target)
    unknown_only = not every and request.allows(f"{SHOW}:host_status:unknown-only", target)
    if not (every or unknown_only) or request.version < (2, 16):
        return Look(face, None)
    hosts = find_hosts(tx, {row.host for row in rows if row.host})
    return Look(face, {host: host_status(row, request.config) for host, row in hosts.items()}, unknown_only)


def brief(row: Row[Any], endpoint: str) -> Json:
    return {"id": row.id, "name": row.name, "links": server_links(endpoint, row.id)}


def server_links(endpoint: str, server_id: str) -> list[Json]:
    return [
        {"rel": "self", "href": f"{endpoint}/v2.1/servers/{server_id}"},
        {"rel": "bookmark", "href": f"{endpoint}/servers/{server_id}"},
    ]


def detail(row: Row[Any], ports: Sequence[Port], look: Look, tags: Sequence[str], *, kind: str = "server") -> Json:
    """The server as the caller's version shows it.

    ``kind``: 'server', or for the answers of PUT and rebuild, which had fewer fields, 'server_update' and
    'server_rebuild'.
    """
    document = _everything(row, ports, look.face, tags, look.host_status(row.host))
    document["server_groups"] = [row.server_group_id] if row.server_group_id else []
    if kind == "server_rebuild":
        document["user_data"] = row.user_data
        document.pop("OS-EXT-SRV-ATTR:user_data", None)
    return versions.render(kind, document, look.face.version)


def listed(row: Row[Any], ports: Sequence[Port], look: Look, tags: Sequence[str]) -> msgspec.Raw:
    """The same as JSON, for lists, which do not tell of server groups."""
    return _lines.of((row.id, look.face), row, ports, look.face, tags, look.host_status(row.host))


def _line(
    row: Row[Any], ports: Sequence[Port], face: Face, tags: Sequence[str], host_status: str | None
) -> msgspec.Raw:
    document = _everything(row, ports, face, tags, host_status)
    return msgspec.Raw(schema.encode(versions.render("server", document, face.version)))


_lines = Made(_line)


def _everything(
    row: Row[Any], ports: Sequence[Port], face: Face, tags: Sequence[str], host_status: str | None
) -> Json:
    document = _document(row, ports, face)
    document["tags"] = list(tags)
    if face.extended:
        document |= _extended(row)
    if host_status is not None:
        document["host_status"] = host_status
    if row.status == "ERROR" and (fault := _fault(row, face)):
        document["fault"] = fault
    if row.status in _WITH_PROGRESS:
        document["progress"] = 100 if row.status == "ACTIVE" and row.task_state is None else 0
    groups = dict.fromkeys(name for port in ports for name in port.security_groups)
    if groups:
        document["security_groups"] = [{"name": name} for name in groups]
    return document


def _document(row: Row[Any], ports: Sequence[Port], face: Face) -> Json:
    links = server_links(face.endpoint, row.id)
    return {
        "id": row.id,
        "name": row.name,
        "status": row.status,
        "tenant_id": row.project_id,
        "user_id": row.user_id,
        "metadata": row.metadata,
        "hostId": host_id(row.project_id, row.host),
        "image": _image(row, face),
        "flavor": _flavor(row, face),
        "_flavor_link": {"id": row.flavor["id"], "links": flavor_links(face.endpoint, row.flavor["id"])[1:]},
        "created": clock.short(row.created_at),
        "updated": clock.short(updated_at(row)),
        "addresses": {} if row.vm_state == "building" else addresses(ports),
        "accessIPv4": row.access_ip_v4 or "",
        "accessIPv6": row.access_ip_v6 or "",
        "links": links,
        "OS-DCF:diskConfig": row.disk_config,
        "OS-EXT-AZ:availability_zone": row.zone or asked_zone(row) or "",
        "config_drive": "True" if row.config_drive else "",
        "key_name": row.key_name,
        "OS-SRV-USG:launched_at": _naive(row.launched_at),
        "OS-SRV-USG:terminated_at": _naive(row.gone_at),
        "OS-EXT-STS:task_state": row.task_state,
        "OS-EXT-STS:vm_state": row.vm_state,
        "OS-EXT-STS:power_state": row.power_state,
        "os-extended-volumes:volumes_attached": [],
        "locked": row.locked,
        "locked_reason": row.locked_reason,
        "description": row.description,
        "trusted_image_certificates": None,
        "OS-EXT-SRV-ATTR:hostname": row.hostname,
        "pinned_availability_zone": asked_zone(row),
        "scheduler_hints": msgspec.json.decode(row.scheduler_hints_json),
    }


def _extended(row: Row[Any]) -> Json:
    return {
        "OS-EXT-SRV-ATTR:host": row.host,
        "OS-EXT-SRV-ATTR:hypervisor_hostname": row.host,
        "OS-EXT-SRV-ATTR:instance_name": f"instance-{row.id}",
        "OS-EXT-SRV-ATTR:reservation_id": row.reservation_id,
        "OS-EXT-SRV-ATTR:launch_index": row.launch_index,
        "OS-EXT-SRV-ATTR:root_device_name": "/dev/vda",
        "OS-EXT-SRV-ATTR:kernel_id": "",
        "OS-EXT-SRV-ATTR:ramdisk_id": "",
        "OS-EXT-SRV-ATTR:user_data": getattr(row, "user_data", None),
    }


def _image(row: Row[Any], face: Face) -> Json | str:
    if not row.image_id:
        return ""
    return {
        "id": row.image_id,
        "links": [{"rel": "bookmark", "href": f"{face.endpoint}/images/{row.image_id}"}],
        "properties": (msgspec.json.decode(row.image_json or "null") or {}).get("properties", {}),
    }


def _flavor(row: Row[Any], face: Face) -> Json:
    flavor = row.flavor
    document = {name: flavor[name] for name in ("vcpus", "ram", "disk", "ephemeral", "swap")}
    document["original_name"] = flavor["name"]
    if face.extra_specs:
        document["extra_specs"] = flavor["extra_specs"]
    return document


def _fault(row: Row[Any], face: Face) -> Json | None:
    """Why the server is in ERROR: no host was found, or what its host said, without where things lie there.

    An administrator who has said that it is broken need not have said why.
    """
    message, at = row.seen_fault, row.seen_fault_at
    if row.host is None:
        message, at = row.placement_fault, row.placement_fault_at
    if not message:
        return None
    public = _DIRECTORIES.sub("", message)[:255]
    fault = {"code": 500, "created": clock.short(at or row.updated_at), "message": public}
    return fault | ({"details": message} if face.details else {})


def addresses(ports: Sequence[Port], network: str | None = None) -> Json:
    """By network's name: fixed addresses, each followed by its floating one."""
    found: Json = {}
    for port in ports:
        if network is not None and port.network_name != network:
            continue
        place = found.setdefault(port.network_name, [])
        floating = dict(port.floating_ips)
        for address in port.addresses:
            place.append(_address(address.ip, address.ip_version, "fixed", port.mac))
            if address.ip in floating:
                place.append(_address(floating[address.ip], 4, "floating", port.mac))
    return found


def _address(ip: str, version: int, kind: str, mac: str) -> Json:
    return {"version": version, "addr": ip, "OS-EXT-IPS:type": kind, "OS-EXT-IPS-MAC:mac_addr": mac}


@lru_cache(maxsize=1024)
def host_id(project_id: str, host: str | None) -> str:
    """A name for the host by which a project can tell hosts apart, and no more."""
    return hashlib.sha224((project_id + host).encode()).hexdigest() if host else ""


def asked_zone(row: Row[Any]) -> str | None:
    """The zone that the server's owner asked for, without the host that an administrator may have named."""
    return (row.availability_zone or "").partition(":")[0] or None


def updated_at(row: Row[Any]) -> str:
    times: tuple[str | None, ...] = (row.updated_at, row.gone_at, row.seen_at, row.launched_at)
    return max(time for time in times if time)


def _naive(time: str | None) -> str | None:
    return time[:26] if time else None
