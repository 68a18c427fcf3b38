"""A guest's way to another host, as the host that sends it sees it: libvirt's job, and the tunnel it goes through.

The job is libvirt's; its call lasts as long as the job, so a thread of its own waits for it.  Nothing of it
outlives this process: the tunnel ends with it, then the job fails, and libvirt lets the guest go on.  What remains
then is a guest that runs here, or one that stands still because all of it was sent ('sent').

The guest arrives standing still (``VIR_MIGRATE_PAUSED``), so that libvirt never starts it at the other end by its
own decision.
"""

import contextlib
import logging
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import libvirt

from cumulet.core.errors import Retry, Terminal
from cumulet.nova.compute import domain_xml, passages
from cumulet.nova.compute.connection import Connection
from cumulet.nova.compute.copies import end_copies
from cumulet.nova.compute.domain_xml import Marks
from cumulet.nova.compute.domains import Found
from cumulet.nova.compute.passages import DISKS, LIBVIRTD, MEMORY, Berth, Destination
from cumulet.nova.compute.server_files import ServerFiles
from cumulet.nova.compute.shared_disks import SharedDisks
from cumulet.nova.compute.tunnel import Tunnel
from cumulet.nova.model import Progress, Verb

LOG = logging.getLogger(__name__)
FORCED_DOWNTIME_MS = 600_000
NO_LIMIT_MIB = 1 << 20
_FLAGS = (
    libvirt.VIR_MIGRATE_LIVE
    | libvirt.VIR_MIGRATE_PEER2PEER
    | libvirt.VIR_MIGRATE_PERSIST_DEST
    | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
    | libvirt.VIR_MIGRATE_ABORT_ON_ERROR
    | libvirt.VIR_MIGRATE_AUTO_CONVERGE
    | libvirt.VIR_MIGRATE_PAUSED
)
_SENT = libvirt.VIR_MIGRATE_NON_SHARED_INC  # disks go along
_SHARED = libvirt.VIR_MIGRATE_UNSAFE  # they do not, and it is known better than by the kind of the file system


@dataclass
class Job:
    """``failure``: why it failed, once it is ``over``."""

    verb: int
    domain: Any
    over: threading.Event = field(default_factory=threading.Event)
    failure: str = ""


@dataclass
class Departures:
    """``ids``: user and group of QEMU.  ``trust``: by what other hosts are known.
    ``bandwidth``: MiB a second, 0 for as much as there is."""

    connection: Connection
    files: ServerFiles
    shared: SharedDisks
    run: Path
    bandwidth: int
    ids: Callable[[], tuple[int, int]]
    trust: Callable[[], ssl.SSLContext | None] = lambda: None
    wake: Callable[[str], None] = lambda server_id: None
    _jobs: dict[str, Job] = field(default_factory=dict)

    def perform(self, server_id: str, verb: Verb, find: Callable[[], Found | None]) -> bool:
        """``Hypervisor.perform`` of the verb.  ``find`` looks at the domain, once no job changes it any more.

        What was seen while a job came to its end says nothing: the guest is off for a moment, and then gone.
        """
        job = self._jobs.get(server_id)
        if job and not job.over.is_set():
            self._steer(job, verb)
            return False
        self._jobs.pop(server_id, None)
        found = find()
        if found is None or found.state == "sent":
            return True
        if job and job.verb == verb.id and job.failure:
            raise Terminal(job.failure)
        if verb.args.get("abort"):
            raise Terminal("The live migration was cancelled.")
        if not found.active:
            raise Terminal("The server does not run: there is nothing to be sent.")
        if found.state == "incoming":
            raise Retry(f"server {server_id} has not come in here yet")
        self._begin(server_id, verb, found)
        return False

    def recall(self, server_id: str) -> bool:
        """Break the job off; True when there is none."""
        job = self._jobs.get(server_id)
        if job is None or job.over.is_set():
            return True
        self._break_off(job)
        return False

    def forget(self, server_id: str) -> None:
        """The server is gone from this host."""
        job = self._jobs.get(server_id)
        if job and job.over.is_set():
            del self._jobs[server_id]

    def progress(self, server_id: str) -> Progress | None:
        """How far it is; None if it is not on its way."""
        job = self._jobs.get(server_id)
        if job is None or job.over.is_set():
            return None
        with contextlib.suppress(Retry):
            return _progress(self.connection.call(lambda _: job.domain.jobStats()))
        return Progress()

    def _begin(self, server_id: str, verb: Verb, found: Found) -> None:
        to = Destination(*(verb.args[name] for name in ("host", "address", "port", "ticket")))
        end_copies(self.connection, found)
        berth = passages.knock(to, self.trust(), server_id, self.files.measure(server_id))
        shared = self.shared.hand_over(server_id, to.host, berth.proof)
        job = self._jobs[server_id] = Job(verb.id, found.domain)
        work = (server_id, job, found, to, berth, shared)
        threading.Thread(target=self._wait, args=work, name="departure", daemon=True).start()

    def _wait(self, server_id: str, job: Job, found: Found, to: Destination, berth: Berth, shared: bool) -> None:
        """From the first connection to the last."""
        try:
            group = self.ids()[1]
            place = passages.make_place(self.run, server_id, 0, group, 0o710)
            with Tunnel(place, group, server_id, to, self.trust()):
                self.connection.call(lambda _: self._migrate(server_id, found, berth, shared))
        except (Retry, OSError, libvirt.libvirtError) as error:
            job.failure = str(error.__cause__ or error) or "The live migration failed."
            LOG.warning("server %s was not sent to %s: %s", server_id, to.host, job.failure)
        finally:
            passages.remove_place(self.run, server_id)
            job.over.set()
            self.wake(server_id)

    def _migrate(self, server_id: str, found: Found, berth: Berth, shared: bool) -> None:
        marks = Marks(generation=found.marks.generation, last_verb=found.marks.last_verb)
        here = self.files.paths(server_id)

        def definition(kind: int) -> str:
            xml = found.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_MIGRATABLE | kind)
            return domain_xml.relocate(xml, here, berth.files, berth.disk_cache, marks)

        options: dict[str, str | int] = {
            libvirt.VIR_MIGRATE_PARAM_URI: f"unix://{passages.seen_by_libvirtd(server_id, MEMORY)}",
            libvirt.VIR_MIGRATE_PARAM_DISKS_URI: f"unix://{passages.seen_by_libvirtd(server_id, DISKS)}",
            libvirt.VIR_MIGRATE_PARAM_DEST_XML: definition(0),
            libvirt.VIR_MIGRATE_PARAM_PERSIST_XML: definition(libvirt.VIR_DOMAIN_XML_INACTIVE),
        }
        if self.bandwidth:
            options[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH] = self.bandwidth
        daemon = f"qemu+unix:///system?socket={passages.seen_by_libvirtd(server_id, LIBVIRTD)}"
        found.domain.migrateToURI3(daemon, options, _FLAGS | (_SHARED if shared else _SENT))

    def _steer(self, job: Job, verb: Verb) -> None:
        if verb.args.get("abort"):
            self._break_off(job)
        elif verb.args.get("force"):
            with contextlib.suppress(Retry):  # there is nothing to be hurried yet, or no more
                self.connection.call(lambda _: job.domain.migrateSetMaxSpeed(NO_LIMIT_MIB))
                self.connection.call(lambda _: job.domain.migrateSetMaxDowntime(FORCED_DOWNTIME_MS))

    def _break_off(self, job: Job) -> None:
        with contextlib.suppress(Retry):  # not begun yet, or over
            self.connection.call(lambda _: job.domain.abortJob())


def _progress(stats: dict[str, Any]) -> Progress:
    names = (f"{kind}_{what}" for kind in ("memory", "disk") for what in ("total", "processed", "remaining"))
    return Progress(**{name: max(0, int(stats.get(name, 0))) for name in names})
