"""The real hypervisor: libvirt and QEMU, beneath the seam of ``hypervisor.py``.

What a server has on its host are a domain (``domains.py``), taps (``taps.py``) and files (``server_files.py``);
base images are shared (``image_cache.py``).  A domain counts as ours only by the metadata that we wrote into it; no
other is ever touched.  What must survive this process (how far a reboot is, when a guest that does not shut down is
switched off) stands in that metadata too, see ``domain_xml.Marks``.

Nothing is undone here when something fails halfway: ``look`` sees every kind of thing that is made, so the next
pass goes on or takes it away.  Everything may be called from several threads, for different servers.
"""

import pwd
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from socket import socket

import libvirt

from cumulet.core import certificates
from cumulet.core.config import Config
from cumulet.core.errors import Retry, Terminal
from cumulet.host import kvm, libvirtd, openvswitch
from cumulet.host.ovsdb import Ovsdb
from cumulet.nova.compute import domain_xml, file_gifts, host_inventory, shared_disks
from cumulet.nova.compute.arrivals import Arrivals
from cumulet.nova.compute.berths import Berths
from cumulet.nova.compute.connection import Connection
from cumulet.nova.compute.copies import end_copies, take_copy
from cumulet.nova.compute.departures import Departures
from cumulet.nova.compute.diagnostics import read_counters
from cumulet.nova.compute.disk_sizes import Pull
from cumulet.nova.compute.domain_xml import Marks, Traits
from cumulet.nova.compute.domains import (
    Found,
    define,
    describe,
    detach_nics,
    find_domain,
    list_domains,
    unless_gone,
)
from cumulet.nova.compute.file_gifts import BASE, Take
from cumulet.nova.compute.image_cache import Base, Fetch, ImageCache
from cumulet.nova.compute.passages import remove_place
from cumulet.nova.compute.server_files import GIB, ServerFiles, direct_io
from cumulet.nova.compute.shared_disks import SharedDisks
from cumulet.nova.compute.taps import Taps
from cumulet.nova.model import LIVE, Diagnostics, Domain, Inventory, ServerIntent, Verb

MIB = 1 << 20
Store = Callable[[Verb, Path], None]
EMULATOR = "qemu-system-x86_64"
PRESS_SECONDS = 5.0  # between two presses of the power button of a guest that has not gone off yet
TIDY_SECONDS = 60.0  # between two looks for what nobody uses any more
_UNDEFINE = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
)


class LibvirtHypervisor:
    """``host`` is this node's name.  ``fetch_image`` streams an image's bytes into the function it is given;
    ``store_image`` sends a file to glance for the image that the verb names, and may be repeated.  ``take_file``
    gets a server's file from the host that it comes from.  ``guest_ticket``: who has it may send a server's guest
    here, empty if nobody may.
    """

    def __init__(
        self,
        config: Config,
        host: str,
        fetch_image: Fetch,
        store_image: Store,
        qemu_user: str = libvirtd.QEMU_USER,
        take_file: Take | None = None,
        guest_ticket: Callable[[str], str] = lambda server_id: "",
    ) -> None:
        trust = partial(certificates.trust, config)
        self._config, self.host, self._store_image = config, host, store_image
        self._take_file = take_file or partial(file_gifts.take_file, trust=trust)
        self._connection = Connection(libvirtd.uri(config.run))
        switch = openvswitch.database_socket(str(config.run / "openvswitch"))
        self._taps = Taps(Ovsdb(switch), qemu_user)
        self._files = ServerFiles(shared_disks.directory(config), qemu_user)
        root = config.compute.shared_disks
        self._shared = SharedDisks(Path(root) if root else None, host, config.state)
        self._images = ImageCache(
            config.state / "images-cache",
            config.compute.image_cache_mb * MIB,
            config.compute.image_cache_seconds,
            fetch_image,
            self._files.bases,
            lambda: pwd.getpwnam(qemu_user).pw_gid,
        )
        moving = (self._connection, self._files, self._shared, config.run)
        self._departures = Departures(*moving, config.compute.live_migration_mib, self._files.ids, trust)
        berths = Berths(*moving, self._files.ids, lambda: self._traits[2])
        self.arrivals = Arrivals(guest_ticket, berths.prepare, berths.find_way)
        self._pressed: dict[str, float] = {}  # when a power button was pressed: only to not press it too often
        self._tidied_at = float("-inf")

    def listen(self, wake: Callable[[str], None]) -> None:
        """``wake`` is called with a server's id when something happened to its domain, with ``*`` for any."""
        self._departures.wake = self.arrivals.wake = wake
        self._connection.listen(wake)

    def close(self) -> None:
        self._connection.close()

    # ── looking ──────────────────────────────────────────────────────────────────────────────────────────────

    def look(self) -> Mapping[str, Domain]:
        self._shared.store()
        taps, files = self._taps.look(), self._files.scan()
        domains = self._connection.call(list_domains)
        servers = domains.keys() | files.keys() | taps.plugged.keys() | taps.broken.keys()
        seen = {
            name: describe(domains.get(name), taps, files.get(name), name, self._departures.progress(name))
            for name in servers
        }
        for name in files:
            self._files.bound_console_log(name, self._config.compute.console_log_bytes)
        if time.monotonic() - self._tidied_at >= TIDY_SECONDS:
            self._tidied_at = time.monotonic()
            self._images.prune()
            self._taps.sweep(taps.devices.union(*(found.read.nics.values() for found in domains.values())))
        return seen

    def look_at(self, server_id: str) -> Domain:
        self._shared.store()
        found, progress = self._find(server_id), self._departures.progress(server_id)
        return describe(found, self._taps.look(), self._files.find(server_id), server_id, progress)

    def diagnostics(self, server_id: str) -> Diagnostics | None:
        found = self._find(server_id)
        return self._connection.call(lambda c: read_counters(c, found)) if found and found.state == "on" else None

    def console_log(self, server_id: str) -> bytes:
        return self._files.console_tail(server_id, self._config.compute.console_log_bytes)

    def open_screen(self, server_id: str) -> socket:
        """QEMU is handed one end of a pair of sockets by its monitor: nothing listens anywhere."""
        found = self._get(server_id)
        if not found.active:
            raise Retry(f"server {server_id} is off")
        skip = libvirt.VIR_DOMAIN_OPEN_GRAPHICS_SKIPAUTH
        return socket(fileno=self._connection.call(lambda _: found.domain.openGraphicsFD(0, skip)))

    def inventory(self) -> Inventory:
        virt_type, place = self._traits[0], self._files.directory
        return host_inventory.read(self._connection, self._config, virt_type, place, self._shared.store())

    # ── making ───────────────────────────────────────────────────────────────────────────────────────────────

    def make_disk(self, server: ServerIntent, config_drive: Mapping[str, bytes]) -> None:
        if server.image is None:
            raise Terminal("There is no image to make the root disk from.")
        self._files.ensure_directory(server.id, config_drive)
        found = self._files.find(server.id)
        if found and found.disk:
            return
        _check_size(server, server.image.virtual_size)
        with self._images.use(server.image) as base:
            _check_size(server, base.virtual_size)
            if server.heir_of:
                self._files.link_base(server.id, base)
                self._shared.inherit(server.id, server.heir_of)
            else:
                self._files.make_disk(server, base)

    def fetch_disk(self, server: ServerIntent, config_drive: Mapping[str, bytes]) -> None:
        self._take_over(server, config_drive, lambda base, pull: self._files.adopt_disk(server, base, pull))

    def receive(self, server: ServerIntent, config_drive: Mapping[str, bytes]) -> None:
        self._take_over(server, config_drive, lambda base, pull: self._files.make_disk(server, base))

    def _take_over(
        self, server: ServerIntent, config_drive: Mapping[str, bytes], make: Callable[[Base, Pull], None]
    ) -> None:
        """The base image comes from the other host, too: glance may not have it any more."""
        if server.image is None or server.fetch is None:
            raise Terminal("There is nothing to fetch the root disk from.")
        self._files.ensure_directory(server.id, config_drive)
        found, pull = self._files.find(server.id), partial(self._take_file, server.fetch, server.id)
        if found and found.disk:
            return
        with self._images.use(server.image, lambda _, write: _must(pull(BASE, write))) as base:
            make(base, pull)

    def recall(self, server: ServerIntent) -> bool:
        return self._departures.recall(server.id)

    def find_gift(self, server_id: str, name: str) -> Path | None:
        """A file of a server that moves to another host; while its guest runs, only what it does not write."""
        found = self._find(server_id)
        return None if found and found.active and name != BASE else self._files.find_gift(server_id, name)

    def plug(self, server: ServerIntent) -> None:
        self._taps.plug(server.id, server.nics)

    def unplug(self, server: ServerIntent, port_ids: frozenset[str]) -> None:
        """The switch's ports go at once; a guest that does not let go of a NIC keeps it, without a wire."""
        found = self._find(server.id)
        nics = {port: tap for port, tap in found.read.nics.items() if port in port_ids} if found else {}
        self._taps.unplug(self._taps.devices_of(server.id, port_ids) | set(nics.values()), keep=nics.values())
        if found and nics:
            left = self._connection.call(lambda _: detach_nics(found, nics))
            self._taps.unplug([tap for port, tap in nics.items() if port not in left])

    def define(self, server: ServerIntent) -> None:
        found = self._find(server.id)
        marks = found.marks if found else Marks()
        self._define(server, replace(marks, generation=server.generation))
        if found is None or not found.active:
            return
        domain, traits = found.domain, self._domain_traits()
        for nic in server.nics:
            if nic.port_id not in found.read.nics:
                xml = domain_xml.render_nic(nic, traits)
                self._connection.call(
                    lambda _, xml=xml: domain.attachDeviceFlags(xml, libvirt.VIR_DOMAIN_AFFECT_LIVE)  # type: ignore[misc]
                )

    def destroy(self, server: ServerIntent) -> None:
        self.arrivals.close(server.id)
        self._departures.forget(server.id)
        found = self._find(server.id)
        taps = self._taps.devices_of(server.id) | {nic.tap for nic in server.nics}
        if found:
            taps |= set(found.read.nics.values())
            self._switch_off(found)
            self._connection.call(lambda _: unless_gone(lambda: found.domain.undefineFlags(_UNDEFINE)))
            if self._find(server.id):
                raise Retry(f"the domain of server {server.id} does not go")
        self._taps.unplug(taps)
        with self.arrivals.lock:
            self._files.remove(server.id)
        remove_place(self._config.run, server.id)
        log = self._config.state / "libvirt" / "log" / "qemu" / f"{domain_xml.domain_name(server.id)}.log"
        log.unlink(missing_ok=True)

    # ── power ────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self, server: ServerIntent) -> None:
        found = self._get(server.id)
        if found.state == "incoming":
            raise Retry(f"server {server.id} has not come in yet")
        if found.state in ("paused", "sent"):
            self._connection.call(lambda _: found.domain.resume())
        elif not found.active:
            self._start(found, replace(found.marks, stop_by=0, restart=bool(found.marks.verb)))

    def stop(self, server: ServerIntent) -> bool:
        found = self._find(server.id)
        if found is None or not found.active:
            if found:
                self._switch_off(found)
            return True
        marks, now, grace = found.marks, _boot_clock(), self._config.compute.stop_seconds
        if not now - grace < marks.stop_by <= now + grace:  # not asked yet, or for an order that was taken back
            marks = replace(marks, stop_by=now + grace)
            self._mark(found, marks)
        return self._shut_down(found, marks)

    def pause(self, server: ServerIntent) -> None:
        found = self._find(server.id)
        if found and found.state == "on":
            self._connection.call(lambda _: unless_gone(found.domain.suspend))

    def suspend(self, server: ServerIntent) -> None:
        """It will wake up running, also if it stood still."""
        found = self._find(server.id)
        if found and found.active:
            self._connection.call(
                lambda _: unless_gone(lambda: found.domain.managedSave(libvirt.VIR_DOMAIN_SAVE_RUNNING))
            )

    def clear(self, server: ServerIntent, verbs: frozenset[int]) -> None:
        end_copies(self._connection, self._find(server.id))
        self._files.remove_copies(server.id, verbs)

    # ── verbs ────────────────────────────────────────────────────────────────────────────────────────────────

    def perform(self, server: ServerIntent, verb: Verb) -> bool:
        if verb.name == LIVE:
            return self._departures.perform(server.id, verb, partial(self._find, server.id))
        work = {
            "reboot": self._reboot,
            "createImage": self._copy,
            "resize": self._resize,
            "revertResize": self._revert_resize,
            "confirmResize": self._confirm_resize,
        }.get(verb.name)
        if work is None:
            raise Terminal(f"This host cannot {verb.name} a server.")
        found = self._get(server.id)
        return found.marks.last_verb >= verb.id or work(server, verb, found)

    def rebuild(self, server: ServerIntent, verb: Verb, config_drive: Mapping[str, bytes]) -> bool:
        """The definition that is made for the verb says so, and the guest starts from no other: until then the
        new disk can be made again, for nobody has written on it.
        """
        found = self._find(server.id)
        if found and found.marks.last_verb >= verb.id:
            return True
        if server.image is None:
            raise Terminal("There is no image to make the root disk from.")
        _check_size(server, server.image.virtual_size)
        with self._images.use(server.image) as base:
            _check_size(server, base.virtual_size)
            if found:
                self._switch_off(found)
            self._files.remove_disk(server.id)
            self._files.ensure_directory(server.id, config_drive)
            self._files.make_disk(server, base)
        return self._begin(server, verb, found.marks.last_verb if found else 0)

    def _begin(self, server: ServerIntent, verb: Verb, last_verb: int) -> bool:
        """Define it anew for the verb, and start it from that if it is to be on."""
        if server.power != "on":
            self._define(server, Marks(generation=server.generation, last_verb=verb.id))
            return True
        marks = Marks(server.generation, last_verb, verb.id, restart=True)
        self._define(server, marks)
        self._start(self._get(server.id), marks)
        return True

    def _resize(self, server: ServerIntent, verb: Verb, found: Found) -> bool:
        """Until it starts as defined for the verb, its disks may be kept and fitted again."""
        if not self._asked_off(verb, found):
            return False
        self._switch_off(found)
        self._files.resize_disk(server)
        return self._begin(server, verb, found.marks.last_verb)

    def _revert_resize(self, server: ServerIntent, verb: Verb, found: Found) -> bool:
        self._switch_off(found)
        self._files.restore_disk(server)
        return self._begin(server, verb, found.marks.last_verb)

    def _confirm_resize(self, server: ServerIntent, verb: Verb, found: Found) -> bool:
        self._files.forget_kept(server.id)
        self._mark(found, replace(found.marks, last_verb=verb.id))
        return True

    def _copy(self, server: ServerIntent, verb: Verb, found: Found) -> bool:
        """The copy first; when it is complete, at another call, its way to glance."""
        server_id = found.read.server_id
        copy = self._files.copy_path(server_id, verb.id)
        if not copy.exists():
            take_copy(self._connection, self._files, found, verb.id)
            return False
        self._store_image(verb, copy)
        self._mark(found, replace(found.marks, last_verb=verb.id))
        self._files.remove_copies(server_id, [verb.id])
        return True

    def _reboot(self, server: ServerIntent, verb: Verb, found: Found) -> bool:
        """Off (by the guest itself unless it is a hard one), a new definition, on.

        The definition says which verb it is for; when the domain runs from it, the verb is done.
        """
        if verb.args.get("type") != "HARD" and not self._asked_off(verb, found):
            return False
        self._switch_off(found)
        marks = replace(found.marks, generation=server.generation, verb=verb.id, restart=True, stop_by=0)
        self._define(server, marks)
        self._start(self._get(server.id), marks)
        return True

    def _asked_off(self, verb: Verb, found: Found) -> bool:
        """Ask the guest to shut down for the verb; True when it is off."""
        if not found.active:
            return True
        marks = found.marks
        if marks.verb != verb.id:
            stop_by = _boot_clock() + self._config.compute.stop_seconds
            marks = replace(marks, verb=verb.id, restart=False, stop_by=stop_by)
            self._mark(found, marks)
        return self._shut_down(found, marks)

    def _shut_down(self, found: Found, marks: Marks) -> bool:
        """Press the power button, or pull the plug when the time is up; True when it is off."""
        server_id = found.read.server_id
        if found.state in ("paused", "sent") or _boot_clock() >= marks.stop_by:
            self._switch_off(found)
            return True
        if time.monotonic() - self._pressed.get(server_id, float("-inf")) >= PRESS_SECONDS:
            self._pressed[server_id] = time.monotonic()
            button = libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN
            self._connection.call(lambda _: unless_gone(lambda: found.domain.shutdownFlags(button)))
        return False

    def _switch_off(self, found: Found) -> None:
        self._pressed.pop(found.read.server_id, None)
        if found.active:
            self._connection.call(lambda _: unless_gone(found.domain.destroy))
        if found.state == "suspended":
            self._connection.call(lambda _: unless_gone(found.domain.managedSaveRemove))

    def _start(self, found: Found, marks: Marks) -> None:
        """``marks`` go into the definition before it runs; once it runs, a verb they tell of is done.

        Who was asleep wakes up with the marks of then, which may be older than the definition's.
        """
        if marks != found.read.marks:
            self._mark(found, marks)
        self._connection.call(lambda _: found.domain.create())
        if marks.restart or found.state == "suspended":
            self._mark(replace(found, state="on"), marks.seen(active=True))

    # ── domains ──────────────────────────────────────────────────────────────────────────────────────────────

    def _find(self, server_id: str) -> Found | None:
        return self._connection.call(lambda connection: find_domain(connection, server_id))

    def _get(self, server_id: str) -> Found:
        found = self._find(server_id)
        if found is None:
            raise Retry(f"server {server_id} is not defined yet")
        return found

    def _define(self, server: ServerIntent, marks: Marks) -> None:
        files = self._files.paths(server.id)
        xml = domain_xml.render(server, marks, files, self._domain_traits())
        self._connection.call(lambda connection: define(connection, server.id, xml))

    def _mark(self, found: Found, marks: Marks) -> None:
        """Write the marks into the definition, and into the running domain."""
        flags = libvirt.VIR_DOMAIN_AFFECT_CONFIG | (libvirt.VIR_DOMAIN_AFFECT_LIVE if found.active else 0)
        element = (domain_xml.render_marks(marks), domain_xml.METADATA_KEY, domain_xml.NAMESPACE)
        kind = libvirt.VIR_DOMAIN_METADATA_ELEMENT
        self._connection.call(lambda _: found.domain.setMetadata(kind, *element, flags))

    def _domain_traits(self) -> Traits:
        virt_type, emulator, disk_cache = self._traits
        return Traits(virt_type, emulator, disk_cache, self._taps.userspace())

    @cached_property
    def _traits(self) -> tuple[str, str, str]:
        """The kind of domain, the emulator, the cache mode: found out once, as long as this process lives."""
        emulator = shutil.which(EMULATOR)
        if emulator is None:
            raise Retry(f"no {EMULATOR} on this host; install qemu-system-x86")
        self._files.directory.mkdir(parents=True, exist_ok=True)
        disk_cache = "none" if direct_io(self._files.directory) else "writeback"
        return kvm.virt_type(self._config), emulator, disk_cache


def _must(found: bool) -> None:
    if not found:
        raise Retry("the image beneath the disk is not on the host that it comes from")


def _check_size(server: ServerIntent, image_bytes: int) -> None:
    """A flavor without a disk size takes the image's own."""
    if server.root_gb and image_bytes > server.root_gb * GIB:
        raise Terminal(
            f"Flavor's disk is too small for requested image. Flavor disk is {server.root_gb * GIB} bytes, "
            f"image is {image_bytes} bytes."
        )


def _boot_clock() -> int:
    """Seconds since the machine's boot: the same for every process, and no operator sets it."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME))
