"""What the simulated host cannot show: libvirtd's death, strangers, leftovers, who owns what, a real guest."""

import json
import os
import re
import stat
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import libvirt
import pytest
from msgspec.structs import replace

from cumulet.core.config import Compute
from cumulet.core.errors import Retry, Terminal
from cumulet.host import libvirtd
from cumulet.host.netlink import Netlink, create_tap
from cumulet.host.ovsdb import Ovsdb
from cumulet.nova.compute.connection import Connection
from cumulet.nova.compute.hypervisor import Hypervisor
from cumulet.nova.compute.libvirt import LibvirtHypervisor
from cumulet.nova.model import Domain, Fetch, ImageSource, ServerIntent, Verb
from tests.host.hypervisor_rig import BOOTED, MIB, LibvirtRig, boot_sector, make_nic, make_server, until

pytestmark = pytest.mark.host

BUILD = Path(__file__).parents[2] / "images" / "build"
STEPS = ("make_disk", "plug", "define", "start")
T = TypeVar("T")


def take(hypervisor: Hypervisor, step: str, server: ServerIntent) -> None:
    getattr(hypervisor, step)(server, *([{}] if step == "make_disk" else []))


def bring_up(rig: LibvirtRig, server: ServerIntent) -> None:
    for step in STEPS:
        take(rig.hypervisor, step, server)


class Crash(Exception):
    """The process ends here."""


class Countdown:
    """Lets so many things happen and no more."""

    def __init__(self, left: int) -> None:
        self.left = left

    def tick(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Crash


class DyingConnection(Connection):
    def __init__(self, uri: str, countdown: Countdown) -> None:
        super().__init__(uri)
        self.countdown = countdown

    def call(self, work: Callable[[Any], T]) -> T:
        self.countdown.tick()
        return super().call(work)


class DyingSwitch(Ovsdb):
    countdown: Countdown

    def transact(self, *arguments: Any, **more: Any) -> Any:
        self.countdown.tick()
        return super().transact(*arguments, **more)


def doomed(rig: LibvirtRig, steps: int) -> LibvirtHypervisor:
    """A hypervisor whose process ends after so many calls of libvirt and the switch."""
    hypervisor = LibvirtHypervisor(rig.host.config, "h1", rig.fetch, rig.store)
    countdown = Countdown(steps)
    hypervisor._connection = DyingConnection(libvirtd.uri(rig.host.config.run), countdown)
    switch = DyingSwitch(rig.host.switch.path)
    switch.countdown = countdown
    hypervisor._taps._switch = switch
    return hypervisor


def crash_everywhere(
    rig: LibvirtRig, work: Callable[[LibvirtHypervisor], object], after: Callable[[], None]
) -> int:
    """Do the work with a process that dies after 0, 1, 2, … calls, until one gets through; how often it died."""
    for steps in range(100):
        hypervisor = doomed(rig, steps)
        try:
            work(hypervisor)
        except Crash:
            after()
        else:
            return steps
        finally:
            hypervisor.close()
    raise AssertionError("it never gets through")


@pytest.mark.parametrize("step", STEPS)
def test_making_survives_a_crash_anywhere(libvirt_rig: LibvirtRig, step: str) -> None:
    server = libvirt_rig.make_server(make_nic(), make_nic())
    number = STEPS.index(step)
    ready: list[Domain] = []

    def prepare() -> None:
        """As after a crash: whatever was left goes, or is good enough to go on."""
        bring_up(libvirt_rig, server)
        ready.append(libvirt_rig.hypervisor.look_at(server.id))
        libvirt_rig.hypervisor.destroy(replace(server, nics=()))
        assert libvirt_rig.hypervisor.look_at(server.id) == Domain()
        for earlier in STEPS[:number]:
            take(libvirt_rig.hypervisor, earlier, server)

    prepare()
    deaths = crash_everywhere(libvirt_rig, lambda hypervisor: take(hypervisor, step, server), prepare)
    assert step == "make_disk" or deaths >= 1
    assert len(set(ready)) == 1


def test_destroy_survives_a_crash_anywhere(libvirt_rig: LibvirtRig) -> None:
    server = libvirt_rig.make_server(make_nic())
    bring_up(libvirt_rig, server)

    def after() -> None:
        """What is left is seen, or nothing is left."""
        left = libvirt_rig.hypervisor.look().get(server.id, Domain())
        assert left == libvirt_rig.hypervisor.look_at(server.id)

    gone = replace(server, nics=())
    assert crash_everywhere(libvirt_rig, lambda hypervisor: hypervisor.destroy(gone), after) >= 3
    assert libvirt_rig.hypervisor.look_at(server.id) == Domain()
    assert leftovers(libvirt_rig, server) == []


def leftovers(rig: LibvirtRig, server: ServerIntent) -> list[str]:
    """Anything on the host that names the server or one of its taps."""
    found = [str(path) for path in rig.host.directory.rglob(f"*{server.id}*")]
    found += [port for port in rig.host.switch.ports("br-int") if port in {nic.tap for nic in server.nics}]
    with Netlink() as netlink:
        return found + [link for link in netlink.links() if link in {nic.tap for nic in server.nics}]


@pytest.mark.parametrize("kind", ["SOFT", "HARD"])
def test_reboot_survives_a_crash_anywhere(libvirt_rig: LibvirtRig, kind: str) -> None:
    server = libvirt_rig.make_server()
    bring_up(libvirt_rig, server)
    hypervisor = libvirt_rig.hypervisor
    verb = Verb(1, "reboot", {"type": kind})

    def after() -> None:
        nonlocal verb
        until(lambda: hypervisor.perform(server, verb), "the reboot")
        seen = hypervisor.look_at(server.id)
        assert (seen.state, seen.last_verb) == ("on", verb.id)
        verb = Verb(verb.id + 1, "reboot", {"type": kind})

    def work(dying: LibvirtHypervisor) -> None:
        until(lambda: dying.perform(server, verb), "the reboot")

    assert crash_everywhere(libvirt_rig, work, after) >= 5
    assert hypervisor.look_at(server.id).last_verb == verb.id


def test_guests_outlive_libvirtd(libvirt_rig: LibvirtRig) -> None:
    server = libvirt_rig.make_server(make_nic())
    bring_up(libvirt_rig, server)
    pid, before = libvirt_rig.host.qemu_pid(server.id), libvirt_rig.hypervisor.look()
    libvirt_rig.woken.clear()
    libvirt_rig.host.kill_libvirtd()
    until(lambda: libvirt_rig.woken.count("*") >= 2, "hints that it went and came")

    def seen() -> bool:
        try:
            return libvirt_rig.hypervisor.look() == before
        except Retry:
            return False

    until(seen, "the same as before")
    assert libvirt_rig.host.qemu_pid(server.id) == pid
    until(lambda: libvirt_rig.hypervisor.diagnostics(server.id), "libvirtd to have the guest's monitor again")
    libvirt_rig.woken.clear()
    libvirt_rig.crash_guest(server.id)
    until(lambda: server.id in libvirt_rig.woken, "events of the new connection")
    assert libvirt_rig.hypervisor.look_at(server.id).state == "crashed"


def test_a_guest_that_dies_while_libvirtd_is_away_is_seen(libvirt_rig: LibvirtRig) -> None:
    server = libvirt_rig.make_server()
    bring_up(libvirt_rig, server)
    libvirt_rig.crash_guest(server.id)
    libvirt_rig.host.kill_libvirtd()
    until(lambda: _state(libvirt_rig, server) == "crashed", "the crash")


def _state(rig: LibvirtRig, server: ServerIntent) -> str:
    try:
        return rig.hypervisor.look_at(server.id).state
    except Retry:
        return ""


def test_strangers_are_left_alone(libvirt_rig: LibvirtRig) -> None:
    stranger = make_server(libvirt_rig.polite)
    xml = f"""<domain type="qemu"><name>instance-{stranger.id}</name><uuid>{stranger.id}</uuid><memory>8192</memory>
      <os><type>hvm</type></os><metadata><o:server xmlns:o="urn:other:1"/></metadata></domain>"""
    connection = libvirt.open(libvirtd.uri(libvirt_rig.host.config.run))
    try:
        domain = connection.defineXML(xml)
        before = domain.XMLDesc()
        hypervisor = libvirt_rig.hypervisor
        assert stranger.id not in hypervisor.look()
        assert hypervisor.look_at(stranger.id) == Domain()
        hypervisor.make_disk(stranger, {})
        with pytest.raises(Retry, match="not ours"):
            hypervisor.define(stranger)
        assert hypervisor.stop(stranger)
        with pytest.raises(Retry):
            hypervisor.start(stranger)
        hypervisor.destroy(stranger)
        assert domain.XMLDesc() == before
        domain.undefine()
    finally:
        connection.close()


def test_many_at_once_fetch_their_image_once(libvirt_rig: LibvirtRig) -> None:
    image = libvirt_rig.add_image(boot_sector(polite=True) + bytes(8 * MIB))
    servers = [replace(libvirt_rig.make_server(make_nic()), image=image) for _ in range(6)]
    failures: list[Exception] = []

    def work(server: ServerIntent) -> None:
        try:
            bring_up(libvirt_rig, server)
        except (Retry, Terminal) as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(server,)) for server in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    seen = libvirt_rig.hypervisor.look()
    assert [seen[server.id].state for server in servers] == ["on"] * 6
    assert libvirt_rig.fetched == [image.id]


def test_files_are_qemus_and_nobody_elses(libvirt_rig: LibvirtRig) -> None:
    server = libvirt_rig.make_server()
    libvirt_rig.hypervisor.make_disk(server, {"openstack/latest/meta_data.json": b"{}"})
    libvirt_rig.hypervisor.define(server)
    libvirt_rig.hypervisor.start(server)
    place = libvirt_rig.host.config.state / "servers" / server.id
    base = (place / "base").resolve()
    for path in (place, place / "disk", place / "config.iso", place / "console.log", base):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o007, path
    assert stat.S_IMODE(place.stat().st_mode) == 0o710
    assert base.stat().st_uid == 0
    assert not base.stat().st_mode & 0o020
    told = json.loads(
        subprocess.run(
            ["qemu-img", "info", "-U", "--output=json", place / "disk"], capture_output=True, check=True
        ).stdout
    )
    assert (told["format"], told["virtual-size"]) == ("qcow2", 1 << 30)
    assert (told["backing-filename"], told["backing-filename-format"]) == (str(base), "raw")
    status = Path(f"/proc/{libvirt_rig.host.qemu_pid(server.id)}/status").read_text()
    assert re.search(r"^CapEff:\s*0+$", status, re.MULTILINE)
    assert not re.search(r"^Uid:\s*0\b", status, re.MULTILINE)


def test_a_flavors_other_disks(libvirt_rig: LibvirtRig) -> None:
    """A file system and swap space, prepared; made anew by nothing but a rebuild, and gone with the server."""
    server = replace(libvirt_rig.make_server(), ephemeral_gb=1, swap_mb=16)
    bring_up(libvirt_rig, server)
    place = libvirt_rig.host.config.state / "servers" / server.id
    for name, size, kind in (("ephemeral", 1 << 30, "ext4"), ("swap", 16 * MIB, "swap")):
        said = subprocess.run(
            ["blkid", "-p", "-s", "TYPE", "-o", "value", place / name], capture_output=True, text=True, check=True
        )
        assert ((place / name).stat().st_size, said.stdout.strip()) == (size, kind)
        assert stat.S_IMODE((place / name).stat().st_mode) == 0o600
    before = (place / "swap").stat().st_ino
    libvirt_rig.hypervisor.make_disk(server, {})
    assert (place / "swap").stat().st_ino == before
    libvirt_rig.hypervisor.destroy(server)
    assert not place.exists()


def test_a_tap_that_a_crash_left_is_taken_away(libvirt_rig: LibvirtRig) -> None:
    server = libvirt_rig.make_server(make_nic())
    bring_up(libvirt_rig, server)
    orphan, other = make_nic().tap, "tap-of-others"
    create_tap(orphan)
    create_tap(other)
    libvirt_rig.restart_agent()
    libvirt_rig.hypervisor.look()
    with Netlink() as netlink:
        assert orphan not in netlink.links()
        assert netlink.delete_link(other)
        assert server.nics[0].tap in netlink.links()


def test_a_port_that_lost_its_device_is_plugged_again(libvirt_rig: LibvirtRig) -> None:
    nic = make_nic()
    server = libvirt_rig.make_server(nic)
    libvirt_rig.hypervisor.plug(server)
    with Netlink() as netlink:
        assert netlink.delete_link(nic.tap)
    seen = libvirt_rig.hypervisor.look_at(server.id)
    assert seen == libvirt_rig.hypervisor.look()[server.id]
    assert seen.taps == frozenset()
    assert seen.power == "off"  # something is left, so a tombstone would be obeyed
    libvirt_rig.hypervisor.plug(server)
    assert libvirt_rig.hypervisor.look_at(server.id).taps == frozenset({nic.port_id})
    port = libvirt_rig.host.switch.ports("br-int")[nic.tap]
    assert port.ofport is not None
    assert port.ofport > 0
    assert port.external_ids["vm-id"] == server.id
    with Netlink() as netlink:
        link = netlink.links()[nic.tap]
        assert (link.mtu, link.up) == (1450, True)


def test_console_log_is_bounded(libvirt_rig: LibvirtRig) -> None:
    server = libvirt_rig.make_server()
    bring_up(libvirt_rig, server)
    until(lambda: libvirt_rig.boots(server.id), "the first boot")
    log = libvirt_rig.host.config.state / "servers" / server.id / "console.log"
    config = replace(libvirt_rig.host.config, compute=Compute(virt_type="qemu", console_log_bytes=1000))
    small = libvirt_rig.make_hypervisor(config)
    try:
        with log.open("ab") as file:
            file.write(b"x" * 2500 + b"end")
        assert small.console_log(server.id) == b"x" * 997 + b"end"
        small.look()
        assert log.read_bytes() == b"x" * 997 + b"end"
        until(lambda: libvirt_rig.hypervisor.perform(server, Verb(1, "reboot", {"type": "HARD"})), "a reboot")
        until(lambda: libvirt_rig.boots(server.id), "words of the guest after the cut")
    finally:
        small.close()


def bad_images(rig: LibvirtRig, folder: Path) -> list[tuple[ImageSource, type[Exception]]]:
    good = rig.add_image(boot_sector(polite=True))
    secret = folder / "secret.raw"
    secret.write_bytes(bytes(MIB))
    backed = folder / "backed.qcow2"
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(secret), str(backed)]
    subprocess.run(command, check=True)
    return [
        (replace(good, sha512="0" * 128), Retry),
        (replace(good, size=good.size + 1), Retry),
        (replace(good, size=good.size - 1), Retry),
        (replace(good, disk_format="vmdk"), Terminal),
        (rig.add_image(backed.read_bytes(), "qcow2"), Terminal),
        (rig.add_image(backed.read_bytes(), "raw"), Terminal),
    ]


def test_bad_images_leave_nothing(libvirt_rig: LibvirtRig, tmp_path: Path) -> None:
    cache = libvirt_rig.host.config.state / "images-cache"
    for image, error in bad_images(libvirt_rig, tmp_path):
        server = make_server(image)
        with pytest.raises(error):
            libvirt_rig.hypervisor.make_disk(server, {})
        assert not libvirt_rig.hypervisor.look_at(server.id).disk
        assert not list(cache.glob(f"*{image.id}*"))


@pytest.fixture(scope="module")
def guest_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if built := os.environ.get("CUMULET_TEST_IMAGE"):
        return Path(built)
    path = tmp_path_factory.mktemp("image") / "guest.qcow2"
    subprocess.run([BUILD, path], check=True)
    return path


def test_the_guest_image_boots_and_reads_its_config_drive(libvirt_rig: LibvirtRig, guest_image: Path) -> None:
    content = guest_image.read_bytes()
    image = replace(libvirt_rig.add_image(content, "qcow2"), virtual_size=int.from_bytes(content[24:32], "big"))
    server = replace(make_server(image, make_nic()), memory_mb=128)
    metadata = json.dumps({"uuid": server.id, "hostname": "driven.novalocal"}).encode()
    libvirt_rig.hypervisor.make_disk(server, {"openstack/latest/meta_data.json": metadata})
    for step in STEPS[1:]:
        take(libvirt_rig.hypervisor, step, server)

    def done() -> bool:
        return b"BOOT-DONE" in libvirt_rig.hypervisor.console_log(server.id)

    until(done, "BOOT-DONE on the console", 120)
    assert b"host=driven" in libvirt_rig.hypervisor.console_log(server.id)
    patient = replace(libvirt_rig.host.config, compute=Compute(virt_type="qemu", stop_seconds=60))
    hypervisor = libvirt_rig.make_hypervisor(patient)
    until(lambda: hypervisor.stop(server), "the guest to be off", 50)
    hypervisor.close()
    assert libvirt_rig.hypervisor.look_at(server.id).state == "off"


def test_a_disk_goes_to_another_host(libvirt_rig: LibvirtRig, tmp_path: Path) -> None:
    """The other host has the same libvirtd and switch here, and files of its own; glance is not asked again."""
    server = libvirt_rig.make_server(make_nic())
    origin = libvirt_rig.hypervisor
    assert isinstance(origin, LibvirtHypervisor)
    bring_up(libvirt_rig, server)
    until(lambda: libvirt_rig.boots(server.id) == 1, "the guest's first words")
    assert origin.find_gift(server.id, "disk") is None, "not from under a guest"
    until(lambda: origin.stop(server), "off")
    broken: list[str] = ["disk"]

    def take(fetch: Fetch, server_id: str, name: str, write: Callable[[bytes], object]) -> bool:
        path = origin.find_gift(server_id, name)
        if path is None:
            return False
        write(path.read_bytes()[:100])
        if name in broken:
            broken.remove(name)
            raise Retry("the line broke")
        write(path.read_bytes()[100:])
        return True

    tmp_path.chmod(0o755)
    for above in tmp_path.parents[:2]:
        above.chmod(0o755)
    config = replace(libvirt_rig.host.config, node=replace(libvirt_rig.host.config.node, state_dir=str(tmp_path)))
    other = LibvirtHypervisor(config, "h2", libvirt_rig.fetch, libvirt_rig.store, take_file=take)
    moved = replace(server, root_gb=2, generation=2, fetch=Fetch("h1", "", 1, ""))
    libvirt_rig.fetched.clear()
    try:
        with pytest.raises(Retry):
            other.fetch_disk(moved, {"openstack/latest/meta_data.json": b"{}"})
        for _ in range(2):
            other.fetch_disk(moved, {"openstack/latest/meta_data.json": b"{}"})
        assert libvirt_rig.fetched == []
        disk = tmp_path / "servers" / server.id / "disk"
        shown = json.loads(subprocess.check_output(["qemu-img", "info", "--output=json", disk]))
        assert shown["virtual-size"] == 2 << 30
        assert shown["full-backing-filename"].startswith(f"{tmp_path}/images-cache/")
        origin.destroy(server)
        other.plug(moved)
        other.define(moved)
        other.start(moved)
        until(lambda: BOOTED.encode() in other.console_log(server.id), "the guest's words on the other host")
        other.destroy(moved)
        assert other.look_at(server.id) == Domain()
    finally:
        other.close()
