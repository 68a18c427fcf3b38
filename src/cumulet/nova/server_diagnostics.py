"""``GET /servers/{id}/diagnostics``: what a running server uses, asked of its host now and kept nowhere."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.engine import Row

from cumulet.core import certificates, clock
from cumulet.core.errors import ApiError, Conflict, Unavailable
from cumulet.core.http import Json, Request, Route
from cumulet.core.schema import decode
from cumulet.core.tables import agents
from cumulet.neutron import public as neutron
from cumulet.nova import status, versions
from cumulet.nova.host_calls import ask_host
from cumulet.nova.model import Diagnostics, DiskCounters, NicCounters
from cumulet.nova.servers import get_server
from cumulet.nova.services import COMPUTE, host_address

POLICY = "os_compute_api:os-server-diagnostics"
_OF_NICS = ("rx_octets", "rx_packets", "rx_errors", "rx_drop", "tx_octets", "tx_packets", "tx_errors", "tx_drop")
_OF_DISKS = ("read_bytes", "read_requests", "write_bytes", "write_requests")


def show_diagnostics(request: Request) -> Json:
    with request.db.read() as tx:
        row = get_server(tx, request, POLICY)
        if row.power_state != status.RUNNING:
            raise Conflict(
                f"Cannot 'get_diagnostics' instance {row.id} while it is in power state {row.power_state}"
            )
        agent = tx.find(sa.select(agents).where(agents.c.binary == COMPUTE, agents.c.host == row.host))
        macs = {port.id: port.mac for port in neutron.list_server_ports(tx, [row.id]).get(row.id, ())}
    inventory = (agent.details.get("inventory") or {}) if agent else {}
    counted = _ask(request, row, host_address(agent))
    document = _view(row, counted, macs, inventory.get("virt_type") or None)
    return versions.render("diagnostics", document, request.version)


def _ask(request: Request, row: Row[Any], address: str) -> Diagnostics:
    extras, trust = request.app.extras, certificates.trust(request.config)
    path = f"/servers/{quote(row.id)}/diagnostics"
    code, body = ask_host(extras.host_secret, trust, row.host, address, extras.console_port, path, row.id)
    if code == 404:
        raise Conflict(f"Cannot 'get_diagnostics' instance {row.id} while it is not running")
    if code != 200:
        raise Unavailable(f"the host of instance {row.id} answers {code} for its diagnostics")
    try:
        return decode(body, Diagnostics)
    except ApiError as error:
        raise Unavailable(f"the host of instance {row.id} answers what cannot be read") from error


def _view(row: Row[Any], seen: Diagnostics, macs: Mapping[str, str], hypervisor: str | None) -> Json:
    """Everything; ``_nics`` and ``_disks`` are the devices' names, for the first form of this document."""
    since = (datetime.now(UTC) - clock.parse(row.launched_at)).total_seconds() if row.launched_at else 0
    return {
        "state": "running",
        "driver": "libvirt",
        "hypervisor": hypervisor,
        "hypervisor_os": "linux",
        "uptime": max(int(since), 0),
        "config_drive": bool(row.config_drive),
        "num_cpus": len(seen.cpu_nanoseconds),
        "num_nics": len(seen.nics),
        "num_disks": len(seen.disks),
        "memory_details": {"maximum": seen.memory_mb, "used": seen.memory_used_mb},
        "cpu_details": [
            {"id": number, "time": time, "utilisation": None} for number, time in enumerate(seen.cpu_nanoseconds)
        ],
        "nic_details": [_nic(nic, macs) for nic in seen.nics],
        "disk_details": [_disk(disk) for disk in seen.disks],
        "_nics": [nic.device for nic in seen.nics],
        "_disks": [disk.device for disk in seen.disks],
    }


def _nic(nic: NicCounters, macs: Mapping[str, str]) -> Json:
    counters = {name: getattr(nic, name) for name in _OF_NICS}
    return {"mac_address": macs.get(nic.port_id), **counters, "rx_rate": None, "tx_rate": None}


def _disk(disk: DiskCounters) -> Json:
    return {**{name: getattr(disk, name) for name in _OF_DISKS}, "errors_count": None}


ROUTES = (Route("GET", "/v2.1/servers/{id}/diagnostics", show_diagnostics, POLICY),)
