"""libvirt's domains as we see them: ours are those whose metadata we wrote; all others do not exist here."""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import libvirt

from cumulet.core.errors import Retry
from cumulet.nova.compute import domain_xml
from cumulet.nova.compute.domain_xml import Marks, Read
from cumulet.nova.compute.server_files import Found as FoundFiles
from cumulet.nova.compute.taps import TapView
from cumulet.nova.model import Domain, Progress

_STATE_ONLY = libvirt.VIR_DOMAIN_STATS_STATE
_NO_WAITING = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
_ON = (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_BLOCKED, libvirt.VIR_DOMAIN_SHUTDOWN)
_PAUSED = (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PMSUSPENDED)
_OFF_BY_ACCIDENT = (
    libvirt.VIR_DOMAIN_SHUTOFF_CRASHED,
    libvirt.VIR_DOMAIN_SHUTOFF_FAILED,
    libvirt.VIR_DOMAIN_SHUTOFF_DAEMON,
)


@dataclass(frozen=True)
class Found:
    """One of our domains: libvirt's handle, what we wrote into it, and its state in nova's words.

    A domain that is off and has a saved image of its memory is 'suspended': the next start wakes it up.  One that
    is not written down here is 'incoming'; one that stands still because it was sent elsewhere is 'sent'.
    """

    domain: Any
    read: Read
    state: str

    @property
    def active(self) -> bool:
        return self.state in ("on", "paused", "sent", "incoming")

    @property
    def marks(self) -> Marks:
        return self.read.marks.seen(self.active)


def list_domains(connection: Any) -> dict[str, Found]:
    """All of ours by server id: one call, and one for each domain's definition."""
    found = {}
    for domain, values in connection.getAllDomainStats(_STATE_ONLY, _NO_WAITING):
        if domain.name().startswith(domain_xml.NAME_PREFIX):
            one = _read(domain, values.get("state.state", 0), values.get("state.reason", 0))
            if one:
                found[one.read.server_id] = one
    return found


def find_domain(connection: Any, server_id: str) -> Found | None:
    try:
        domain = connection.lookupByUUIDString(server_id)
        state, reason = domain.state()
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        raise
    return _read(domain, state, reason)


def define(connection: Any, server_id: str, xml: str) -> None:
    """Write the definition; never over a stranger's."""
    if find_domain(connection, server_id) is None:
        with contextlib.suppress(libvirt.libvirtError):
            connection.lookupByUUIDString(server_id)
            raise Retry(f"there is a domain {server_id} on this host that is not ours")
    connection.defineXML(xml)


def unless_gone(work: Callable[[], object]) -> None:
    """Do it, unless the domain went off or away meanwhile."""
    try:
        work()
    except libvirt.libvirtError as error:
        if error.get_error_code() not in (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID):
            raise


def detach_nics(found: Found, port_ids: Mapping[str, str]) -> frozenset[str]:
    """Ask for these NICs back, in the definition and from the guest; the ports that the domain still has."""
    copies = [(libvirt.VIR_DOMAIN_AFFECT_CONFIG, libvirt.VIR_DOMAIN_XML_INACTIVE)]
    if found.active:
        copies.append((libvirt.VIR_DOMAIN_AFFECT_LIVE, 0))
    for affected, kind in copies:
        for xml in domain_xml.find_nics(found.domain.XMLDesc(kind), port_ids):
            with contextlib.suppress(libvirt.libvirtError):  # gone meanwhile, or asked for already
                found.domain.detachDeviceFlags(xml, affected)
    left = domain_xml.parse(found.domain.XMLDesc())
    return frozenset(left.nics if left else ()) & frozenset(port_ids)


def describe(
    found: Found | None,
    taps: TapView,
    files: FoundFiles | None,
    server_id: str,
    progress: Progress | None = None,
) -> Domain:
    """A server as its host has it.  A port whose device is gone counts among the files: something is left."""
    return Domain(
        taps=taps.plugged.get(server_id, frozenset()),
        files=files is not None or server_id in taps.broken,
        disk=files is not None and files.disk,
        image=files.image if files else "",
        copies=files.copies if files else frozenset(),
        defined=found is not None,
        nics=frozenset(found.read.nics) if found else frozenset(),
        state=found.state if found else "off",
        last_verb=found.marks.last_verb if found else 0,
        progress=progress,
    )


def _read(domain: Any, state: int, reason: int) -> Found | None:
    try:
        read = domain_xml.parse(domain.XMLDesc())
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        raise
    if read is None:
        return None
    word = _moving(domain, state, reason) or _state(state, reason)
    return Found(domain, read, "suspended" if word in ("off", "crashed") and _is_saved(domain) else word)


def _moving(domain: Any, state: int, reason: int) -> str:
    """The state of one that is between two hosts; empty if it is not.

    Ours are always written down, but not before all of them has come in.  libvirt tells nothing of the job that
    brings a domain in, and of none before it has found out what it had to do with the domain when it last ended.
    """
    try:
        if not domain.isPersistent():
            return "incoming"
        if state != libvirt.VIR_DOMAIN_PAUSED:
            return ""
        sending = domain.jobStats().get("type", libvirt.VIR_DOMAIN_JOB_NONE) != libvirt.VIR_DOMAIN_JOB_NONE
        if reason != libvirt.VIR_DOMAIN_PAUSED_MIGRATION:
            return ""
        return "on" if sending or domain.state() != [state, reason] else "sent"
    except libvirt.libvirtError as error:
        match error.get_error_code():
            case libvirt.VIR_ERR_NO_DOMAIN:
                return ""
            case libvirt.VIR_ERR_OPERATION_INVALID:
                return "incoming"
        raise


def _is_saved(domain: Any) -> bool:
    """Whether its memory is kept on disk; not if it is gone by now."""
    try:
        return bool(domain.hasManagedSaveImage())
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return False
        raise


def _state(state: int, reason: int) -> str:
    if state in _ON:
        return "on"
    if state in _PAUSED:
        # between the guest's end and QEMU's, and before its first instruction, it is neither here nor there
        passing = (libvirt.VIR_DOMAIN_PAUSED_SHUTTING_DOWN, libvirt.VIR_DOMAIN_PAUSED_STARTING_UP)
        return "on" if state == libvirt.VIR_DOMAIN_PAUSED and reason in passing else "paused"
    if state == libvirt.VIR_DOMAIN_CRASHED or reason in _OFF_BY_ACCIDENT:
        return "crashed"
    return "off"
