"""Two hypervisors to test by one contract: the simulated host, and libvirt with all that it stands on.

The real one has a network namespace, an Open vSwitch and a libvirtd of its own.  Its guests are boot sectors: one
that says on the serial port that it has booted and goes off when the power button is pressed, one that is deaf.
"""

import contextlib
import hashlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import libvirt
import msgspec

from cumulet.core.config import Compute, Config, Node
from cumulet.core.errors import Retry
from cumulet.glance.inspection import check
from cumulet.host import libvirtd, netns, openvswitch
from cumulet.host.ovsdb import Ovsdb
from cumulet.nova.compute.hypervisor import Hypervisor
from cumulet.nova.compute.libvirt import LibvirtHypervisor
from cumulet.nova.model import ImageSource, Nic, ServerIntent, Verb
from cumulet.sim.hypervisor import SimHypervisor

STOP_SECONDS = 2
MIB = 1 << 20
BOOTED = "BOOTED\n"

# Starts the command in its arguments, again whenever it ends, and reaps whatever becomes an orphan below it.
SUPERVISOR = """
import os, signal, subprocess, sys
from cumulet.cli.parts import become_subreaper
become_subreaper()
stopping = []
child = subprocess.Popen(sys.argv[1:])
def stop(*_):
    stopping.append(True)
    os.kill(child.pid, signal.SIGTERM)
signal.signal(signal.SIGTERM, stop)
while True:
    try:
        pid, _ = os.wait()
    except ChildProcessError:
        break
    if pid == child.pid:
        if stopping:
            break
        child = subprocess.Popen(sys.argv[1:])
"""

_counter = itertools.count(1)


def until(seen: Callable[[], object], what: str, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not seen():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def boot_sector(polite: bool) -> bytes:
    """Real-mode code for a q35 machine, whose power management registers SeaBIOS puts at port 0x600."""
    text = BOOTED.encode() + b"\0"
    start = bytes.fromhex("31c08ed8fb")  # ds = 0; interrupts on
    say = bytes.fromhex("ac84c07406baf803eeebf5")  # until a zero byte: out 0x3f8
    listen = bytes.fromhex("ba0206b80001ef")  # power button enabled: out 0x602, 0x100
    wait = bytes.fromhex("f4ba0006edf6c40174f6")  # until in 0x600 says that it was pressed: halt
    off = bytes.fromhex("ba0406b80020efebed")  # soft off: out 0x604, 0x2000
    deaf = bytes.fromhex("f4ebfd")  # halt for ever
    tail = say + (listen + wait + off if polite else deaf)
    message_at = 0x7C00 + len(start) + 3 + len(tail)
    code = start + b"\xbe" + message_at.to_bytes(2, "little") + tail + text
    return code.ljust(510, b"\0") + b"\x55\xaa"


def make_image(content: bytes, disk_format: str = "raw") -> tuple[ImageSource, bytes]:
    source = ImageSource(
        id=str(uuid.uuid4()),
        disk_format=disk_format,
        size=len(content),
        virtual_size=len(content),
        sha512=hashlib.sha512(content).hexdigest(),
        ticket="",
    )
    return source, content


def make_nic(mtu: int = 1450) -> Nic:
    number = next(_counter)
    return Nic(str(uuid.uuid4()), f"fa:16:3e:00:{number >> 8:02x}:{number & 255:02x}", mtu, "net", True)


def make_server(image: ImageSource, *nics: Nic, root_gb: int = 1) -> ServerIntent:
    return ServerIntent(
        id=str(uuid.uuid4()),
        project_id="p",
        name="s",
        vcpus=1,
        memory_mb=32,
        root_gb=root_gb,
        image=image,
        power="on",
        absent=False,
        generation=1,
        nics=nics,
    )


class Rig(Protocol):
    """A hypervisor and what a test may do to it from outside."""

    hypervisor: Hypervisor
    woken: list[str]
    stored: list[str]  # the images that glance was sent

    def make_image(self) -> ImageSource:
        """Another image that boots."""

    def make_server(self, *nics: Nic, polite: bool = True, root_gb: int = 1) -> ServerIntent: ...

    def restart_agent(self) -> None:
        """Another process on the same host: what was only remembered is forgotten."""

    def end_guest(self, server_id: str) -> None: ...
    def crash_guest(self, server_id: str) -> None: ...
    def boots(self, server_id: str) -> int: ...


class SimRig:
    def __init__(self) -> None:
        self.woken: list[str] = []
        self.stored: list[str] = []
        self.image = self.make_image()
        self.sim = SimHypervisor(
            clock=time.monotonic,
            stop_seconds=STOP_SECONDS,
            upload=lambda verb: self.stored.append(verb.args["image_id"]),
        )
        self.sim.listen(self.woken.append)
        self.hypervisor: Hypervisor = self.sim

    def make_image(self) -> ImageSource:
        return make_image(boot_sector(polite=True))[0]

    def make_server(self, *nics: Nic, polite: bool = True, root_gb: int = 1) -> ServerIntent:
        server = make_server(self.image, *nics, root_gb=root_gb)
        if not polite:
            self.sim.deaf.add(server.id)
        return server

    def restart_agent(self) -> None:
        """All of it is outside the agent."""

    def end_guest(self, server_id: str) -> None:
        self.sim.end_guest(server_id)

    def crash_guest(self, server_id: str) -> None:
        self.sim.end_guest(server_id, "crashed")

    def boots(self, server_id: str) -> int:
        return self.sim.machines[server_id].starts


class Host:
    """A node of its own: network namespace (the caller stands in it), Open vSwitch, libvirtd."""

    def __init__(self, space: str) -> None:
        self.space = space
        self.directory = Path(tempfile.mkdtemp(prefix="cum-"))  # short: unix sockets are in it
        self.directory.chmod(0o755)
        node = Node(name="h1", state_dir=str(self.directory / "state"), run_dir=str(self.directory / "run"))
        self.config = Config(node=node, compute=Compute(virt_type="qemu", stop_seconds=STOP_SECONDS))
        self.switch = Ovsdb(openvswitch.database_socket(str(self.config.run / "openvswitch")))
        self.children: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        state, run = str(self.config.state / "openvswitch"), str(self.config.run / "openvswitch")
        openvswitch.prepare(state, run)
        server, switch = openvswitch.ovsdb_server(state, run), openvswitch.ovs_vswitchd(state, run)
        self.children.append(subprocess.Popen(server.argv, env={**os.environ, **server.env}))
        until(lambda: os.path.exists(self.switch.path), "the switch's database")
        self.children.append(subprocess.Popen(switch.argv, env={**os.environ, **switch.env}))
        with self.switch.change() as change:
            change.ensure_bridge("br-int", "netdev")
        libvirtd.prepare(self.config.state, self.config.run)
        command = libvirtd.argv(self.config.state, self.config.run)
        with (self.directory / "libvirtd.log").open("wb") as log:
            supervisor = [sys.executable, "-c", SUPERVISOR, *command]
            self.children.append(subprocess.Popen(supervisor, stdout=log, stderr=log))

    def kill_libvirtd(self, number: int = signal.SIGKILL) -> None:
        os.kill(int((self.config.run / "libvirt" / "libvirtd.pid").read_text()), number)

    def qemu_pid(self, server_id: str) -> int:
        return int((self.config.run / "libvirt" / "qemu" / f"instance-{server_id}.pid").read_text())

    def stop(self) -> None:
        """QEMU first: it outlives libvirtd."""
        for pid_file in (self.config.run / "libvirt" / "qemu").glob("instance-*.pid"):
            with contextlib.suppress(ProcessLookupError, ValueError):
                os.kill(int(pid_file.read_text()), signal.SIGKILL)
        self.switch.close()
        for child in reversed(self.children):
            child.terminate()
            child.wait(20)
        shutil.rmtree(self.directory)


class LibvirtRig:
    def __init__(self, host: Host) -> None:
        self.host = host
        self.woken: list[str] = []
        self.fetched: list[str] = []
        self.stored: list[str] = []
        self.images: dict[str, bytes] = {}
        self.polite = self.add_image(boot_sector(polite=True))
        self.deaf = self.add_image(boot_sector(polite=False))
        self.hypervisor: Hypervisor = self.make_hypervisor()

    def add_image(self, content: bytes, disk_format: str = "raw") -> ImageSource:
        source, data = make_image(content, disk_format)
        self.images[source.id] = data
        return source

    def make_image(self) -> ImageSource:
        return self.add_image(boot_sector(polite=True))

    def store(self, verb: Verb, file: Path) -> None:
        """What glance does: look into it.  It must boot without anything beneath it."""
        check(file, "qcow2")
        self.stored.append(verb.args["image_id"])

    def make_hypervisor(self, config: Config | None = None) -> LibvirtHypervisor:
        hypervisor = LibvirtHypervisor(config or self.host.config, "h1", self.fetch, self.store)
        hypervisor.listen(self.woken.append)
        until(lambda: _answers(hypervisor), "libvirtd")
        return hypervisor

    def fetch(self, image: ImageSource, write: Callable[[bytes], object]) -> None:
        self.fetched.append(image.id)
        data = self.images[image.id]
        for at in range(0, len(data), MIB):
            write(data[at : at + MIB])

    def make_server(self, *nics: Nic, polite: bool = True, root_gb: int = 1) -> ServerIntent:
        return make_server(self.polite if polite else self.deaf, *nics, root_gb=root_gb)

    def restart_agent(self) -> None:
        self.close()
        self.hypervisor = self.make_hypervisor()

    def end_guest(self, server_id: str) -> None:
        """As its own poweroff would: QEMU's monitor is libvirt's, so the power button is pressed there."""
        connection = libvirt.open(libvirtd.uri(self.host.config.run))
        connection.lookupByUUIDString(server_id).shutdown()
        connection.close()

    def crash_guest(self, server_id: str) -> None:
        os.kill(self.host.qemu_pid(server_id), signal.SIGKILL)

    def boots(self, server_id: str) -> int:
        return self.hypervisor.console_log(server_id).count(BOOTED.encode())

    def sweep(self) -> None:
        for server_id in self.hypervisor.look():
            self.hypervisor.destroy(msgspec.structs.replace(make_server(self.polite), id=server_id))

    def close(self) -> None:
        assert isinstance(self.hypervisor, LibvirtHypervisor)
        self.hypervisor.close()


def _answers(hypervisor: LibvirtHypervisor) -> bool:
    try:
        hypervisor.look()
    except Retry:
        return False
    return True


@contextlib.contextmanager
def a_host() -> Iterator[Host]:
    """In a network namespace of its own, which the calling thread enters."""
    name = f"cumtest-{uuid.uuid4().hex[:8]}"
    netns.create(name)
    try:
        with netns.enter(name):
            host = Host(name)
            try:
                host.start()
                yield host
            finally:
                host.stop()
    finally:
        netns.delete(name)
