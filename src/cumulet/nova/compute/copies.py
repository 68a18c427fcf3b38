"""A server's disk as it is at one moment, in a file: what becomes an image.

A guest that runs goes on running: QEMU mirrors the disk into the file and, once the mirror has caught up, lets go
of it, which is the moment.  The job is QEMU's, so it outlives this process; its target's name says whose it is.  A
disk that nobody uses is copied by qemu-img.  A copy that is complete has its final name; the rest is begun anew.

The guest is not asked to quiet its file systems: the copy is what a power cut would leave.
"""

from typing import Any
from xml.sax.saxutils import escape

import libvirt

from cumulet.nova.compute import domain_xml
from cumulet.nova.compute.connection import Connection
from cumulet.nova.compute.domains import Found, unless_gone
from cumulet.nova.compute.server_files import ServerFiles

DISK = "vda"
_FLAGS = libvirt.VIR_DOMAIN_BLOCK_COPY_REUSE_EXT | libvirt.VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB


def take_copy(connection: Connection, files: ServerFiles, found: Found, verb: int) -> bool:
    """Go on with the copy for ``verb``; True when it is complete."""
    server_id = found.read.server_id
    if files.copy_path(server_id, verb).exists():
        return True
    if not found.active:
        files.copy_disk(server_id, verb)
        return True
    target, ready = connection.call(lambda _: domain_xml.find_mirror(found.domain.XMLDesc()))
    if target and target != f"{files.copy_path(server_id, verb)}.part":
        connection.call(lambda _: _abort(found.domain))
        return False
    if not target:
        size = connection.call(lambda _: found.domain.blockInfo(DISK)[0])
        partial = files.begin_copy(server_id, verb, size)
        xml = f'<disk type="file"><driver type="qcow2"/><source file="{escape(str(partial))}"/></disk>'
        connection.call(lambda _: found.domain.blockCopy(DISK, xml, flags=_FLAGS))
        return False
    if not ready:
        return False
    connection.call(lambda _: found.domain.blockJobAbort(DISK))
    files.finish_copy(server_id, verb)
    return True


def end_copies(connection: Connection, found: Found | None) -> None:
    """No copy of the disk is made any more."""
    if found and found.active and connection.call(lambda _: domain_xml.find_mirror(found.domain.XMLDesc()))[0]:
        connection.call(lambda _: _abort(found.domain))


def _abort(domain: Any) -> None:
    unless_gone(lambda: domain.blockJobAbort(DISK))
