"""What a running server uses, in libvirt's counters: processors, memory, NICs, disks."""

from collections.abc import Callable, Mapping
from typing import Any

import libvirt

from cumulet.nova.compute.domains import Found
from cumulet.nova.model import Diagnostics, DiskCounters, NicCounters

KIB = 1024
_GROUPS = (
    libvirt.VIR_DOMAIN_STATS_VCPU
    | libvirt.VIR_DOMAIN_STATS_BALLOON
    | libvirt.VIR_DOMAIN_STATS_INTERFACE
    | libvirt.VIR_DOMAIN_STATS_BLOCK
)
_NO_WAITING = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT


def read_counters(connection: Any, found: Found) -> Diagnostics | None:
    """None if it went off meanwhile.  What libvirt cannot say at once is left out of its answer, and 0 here."""
    for _, values in connection.domainListGetStats([found.domain], _GROUPS, _NO_WAITING):
        return _diagnostics(values, {tap: port for port, tap in found.read.nics.items()})
    return None


def _diagnostics(values: Mapping[str, Any], ports: Mapping[str, str]) -> Diagnostics:
    return Diagnostics(
        cpu_nanoseconds=tuple(_each(values, "vcpu", "current", lambda at: int(values.get(f"{at}.time", 0)))),
        memory_mb=values.get("balloon.maximum", 0) // KIB,
        memory_used_mb=values.get("balloon.rss", 0) // KIB,
        nics=tuple(_each(values, "net", "count", lambda at: _nic(values, at, ports))),
        disks=tuple(_each(values, "block", "count", lambda at: _disk(values, at))),
    )


def _each(values: Mapping[str, Any], group: str, count: str, make: Callable[[str], Any]) -> list[Any]:
    return [make(f"{group}.{number}") for number in range(values.get(f"{group}.{count}", 0))]


def _nic(values: Mapping[str, Any], at: str, ports: Mapping[str, str]) -> NicCounters:
    tap = values.get(f"{at}.name", "")
    numbers = {
        f"{ours}_{what}": int(values.get(f"{at}.{ours}.{theirs}", 0))
        for ours in ("rx", "tx")
        for what, theirs in (("octets", "bytes"), ("packets", "pkts"), ("errors", "errs"), ("drop", "drop"))
    }
    return NicCounters(device=tap, port_id=ports.get(tap, ""), **numbers)


def _disk(values: Mapping[str, Any], at: str) -> DiskCounters:
    return DiskCounters(
        device=values.get(f"{at}.name", ""),
        read_bytes=int(values.get(f"{at}.rd.bytes", 0)),
        read_requests=int(values.get(f"{at}.rd.reqs", 0)),
        write_bytes=int(values.get(f"{at}.wr.bytes", 0)),
        write_requests=int(values.get(f"{at}.wr.reqs", 0)),
    )
