"""``cumulet lab``: a cloud of several nodes on one machine, to look at, to test, and to break.

Each node is a machine of namespaces (``host.machine``) with disks of its own, on which ``cumulet up`` runs as it
would on a machine of metal; the cables between them lead to one more machine, ``outside`` (``lab_wiring``).  What
the lab is is in its run directory: the topology, and a pid file for each machine.  Killing the machines is all that
there is to take down but for the disks: nothing is made in the machine's own namespaces.
"""

import argparse
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cumulet.cli import lab_wiring, lock, up
from cumulet.cli.lab_wiring import OUTSIDE, Wiring
from cumulet.core import secrets
from cumulet.core import topology as topologies
from cumulet.core.errors import BadRequest
from cumulet.core.topology import Topology
from cumulet.host import machine, netns, process
from cumulet.host.machine import Machine, MachineError
from cumulet.host.netlink import checksum_off

RUN, DISKS = Path("/run/cumulet-lab"), Path("/srv/cumulet-lab")
CACHE = Path("/var/cache/cumulet/image")
ETC, STATE, LOGS = "/etc/cumulet", "/var/lib/cumulet", "/var/log/cumulet"
UP_SECONDS, MAP_SECONDS = 120.0, 20.0
REFERENCE = Path(__file__).parent / "reference.toml"
"""The four nodes of the map."""
SETTINGS = """set -e
echo 1 > /proc/sys/net/ipv4/ip_forward
bridged=/proc/sys/net/bridge/bridge-nf-call-iptables
[ ! -e $bridged ] || echo 0 > $bridged"""
"""Outside: what the bridges carry is not filtered, what is routed is."""


@dataclass(frozen=True)
class Lab:
    name: str
    topology: Topology

    @property
    def run(self) -> Path:
        return RUN / self.name

    @property
    def disks(self) -> Path:
        return DISKS / self.name

    @functools.cached_property
    def wiring(self) -> Wiring:
        return lab_wiring.plan(self.topology)

    @property
    def nodes(self) -> list[str]:
        return [node.name for node in self.topology.nodes]

    def machine(self, name: str) -> Machine:
        return Machine(name, self.run, self.disks / name)

    def node(self, name: str) -> Machine:
        """BadRequest if there is no node of this name."""
        return self.machine(topologies.get_node(self.topology, name).name)

    def controller(self) -> str:
        return topologies.controllers(self.topology)[0].name


# ── commands ─────────────────────────────────────────────────────────────────────────────────────────────────


def _command(work: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    @functools.wraps(work)
    def wrapped(options: argparse.Namespace) -> int:
        if os.geteuid() != 0:
            sys.exit("cumulet lab needs root: it makes namespaces")
        if not topologies.HOST_NAME.fullmatch(options.name):
            sys.exit(f"{options.name!r} is no name for a lab: letters, digits and hyphens")
        try:
            return work(options)
        except (MachineError, process.ProcessError) as error:
            sys.exit(str(error))

    return wrapped


@_command
def start(options: argparse.Namespace) -> int:
    """``lab up``: every machine that is not there, and a cloud that works."""
    with alone(options.name, "lab up"):
        lab = _begin(options.name, options.file)
        image = guest_image()
        begun = time.monotonic()
        _start_outside(lab)
        known = known_secrets(lab)
        for name in lab.nodes:
            _prepare(lab, name, known, image)
            start_node(lab, name)
        bring_up(lab, lab.nodes)
        print(f"\n{_map(lab)}\n{_farewell(lab, time.monotonic() - begun)}")
    return 0


@_command
def stop(options: argparse.Namespace) -> int:
    """``lab down``: nothing is left of it, whatever state it was in."""
    with alone(options.name, "lab down"):
        run = RUN / options.name
        names = [file.stem for file in run.glob("*.pid")]
        for name in names:
            machine.stop(Machine(name, run, DISKS / options.name / name))
        for place in (DISKS / options.name, run):
            shutil.rmtree(place, ignore_errors=True)
        for place in (DISKS, RUN):
            _remove_empty(place)
        _lock(options.name).unlink()
        print(f"lab {options.name} is down" if names else f"there is no lab {options.name!r}")
    return 0


@_command
def execute(options: argparse.Namespace) -> int:
    """``lab exec``: become a command on a node."""
    lab = find(options.name)
    found = lab.machine(OUTSIDE) if options.node == OUTSIDE else lab.node(options.node)
    words = options.words[1:] if options.words[:1] == ["--"] else options.words
    command = machine.command(found, words or ["bash"])
    os.chdir("/")
    os.execvpe(command[0], command, environment())


@_command
def kill(options: argparse.Namespace) -> int:
    """``lab kill``: the node loses its power; its disks stay."""
    lab = find(options.name)
    print(f"{options.node} is off" if machine.stop(lab.node(options.node)) else f"{options.node} is off already")
    return 0


@_command
def boot(options: argparse.Namespace) -> int:
    """``lab boot``: a node that is off comes back with its disks."""
    lab = find(options.name)
    lab.node(options.node)
    with alone(options.name, "lab boot"):
        start_node(lab, options.node)
        bring_up(lab, [options.node])
    return 0


@_command
def cut(options: argparse.Namespace) -> int:
    """``lab cut``: no frame of the management network reaches the node or comes from it."""
    lab = find(options.name)
    lab.node(options.node)
    if options.seconds != 0:
        set_management(lab, options.node, "down")
    if options.seconds is None:
        print(f"{options.node} is cut off; 'cumulet lab cut {options.node} 0' mends it")
        return 0
    try:
        time.sleep(options.seconds)
    finally:
        set_management(lab, options.node, "up")
    print(f"{options.node} is connected")
    return 0


# ── machines ─────────────────────────────────────────────────────────────────────────────────────────────────


def _begin(name: str, file: Path | None) -> Lab:
    """The lab that is there, whose topology must be the one asked for; else a new one."""
    kept = RUN / name / "cloud.toml"
    if not kept.exists():
        lab = Lab(name, topologies.load(file or REFERENCE))
        lab.wiring  # noqa: B018 - what is wrong with it is said before anything is made
        shutil.rmtree(lab.disks, ignore_errors=True)  # of a lab that a reboot of this machine ended
        lab.disks.mkdir(parents=True)
        lab.run.mkdir(parents=True, exist_ok=True)
        kept.write_bytes((file or REFERENCE).read_bytes())
        return lab
    if file and file.read_bytes() != kept.read_bytes():
        raise BadRequest(f"lab {name!r} was made from another topology: 'cumulet lab down' first")
    return find(name)


def find(name: str) -> Lab:
    try:
        return Lab(name, topologies.load(RUN / name / "cloud.toml"))
    except BadRequest as error:
        if (RUN / name).exists():
            raise
        raise BadRequest(f"there is no lab {name!r}: 'cumulet lab up' makes one") from error


def _start_outside(lab: Lab) -> None:
    outside = lab.machine(OUTSIDE)
    if machine.find(outside):
        return
    machine.start(outside, persistent=False)
    mtu = lab.topology.network.mtu
    _batch(outside, lab_wiring.outside_commands(lab.wiring, mtu))
    _run(outside, ["nft", "-f", "-"], lab_wiring.RULES)
    _run(outside, ["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"])
    bridged = (
        "/proc/sys/net/bridge/bridge-nf-call-iptables"  # a kernel without it does not filter what bridges carry
    )
    _run(outside, ["sh", "-c", f"[ ! -e {bridged} ] || echo 0 > {bridged}"])


def start_node(lab: Lab, name: str) -> None:
    """Power, and cables."""
    if machine.find(lab.machine(name)):
        return
    outside, node = lab.machine(OUTSIDE), lab.machine(name)
    with _whole(node):
        pid = machine.start(node)
        ends = [cable.end for cable in lab.wiring.cables[name]]
        _run(outside, ["sh", "-c", "for end; do ip link delete $end 2> /dev/null || true; done", "sh", *ends])
        _batch(outside, lab_wiring.cable_commands(lab.wiring, name, pid, lab.topology.network.mtu))
        _checksum_off(outside, ends)
        _batch(node, lab_wiring.node_commands(lab.wiring, lab.topology, name))


@contextmanager
def _whole(found: Machine) -> Iterator[None]:
    """A machine that does not get all of its cables is switched off again."""
    try:
        yield
    except BaseException:
        machine.stop(found)
        raise


def _checksum_off(outside: Machine, ends: Sequence[str]) -> None:
    """A userspace switch reads what the kernel sends on them: without this, checksums that nobody has written."""
    namespace = os.open(f"/proc/{machine.find(outside)}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with netns.enter_fd(namespace):
            for end in ends:
                checksum_off(end)
    finally:
        os.close(namespace)


def _prepare(lab: Lab, name: str, known: secrets.Secrets, image: Path) -> None:
    """The node's disks, with what a deployment would put there."""
    node = topologies.get_node(lab.topology, name)
    found = lab.machine(name)
    config = topologies.node_config(lab.topology, node)
    files = {
        f"{ETC}/cumulet.toml": topologies.render(config),
        "/etc/hosts": lab_wiring.hosts(lab.topology),
        "/etc/hostname": f"{name}\n",
    }
    fresh = not found.disks.exists()
    machine.prepare(found, [ETC, STATE, LOGS], files)
    if not fresh:
        return
    if config.controls:
        shutil.copyfile(lab.run / "cloud.toml", found.layer("/etc") / "cumulet" / "cloud.toml")
        secrets.write(found.layer("/etc") / "cumulet", known)
        guest = found.layer("/var/lib") / "cumulet" / "guest"
        guest.mkdir()
        shutil.copyfile(image, guest / "cirros.qcow2")
    else:
        own = secrets.host_secrets(known, name, metadata=topologies.runs(node, "neutron-metadata-agent"))
        secrets.write(found.layer("/etc") / "cumulet", own)


def known_secrets(lab: Lab) -> secrets.Secrets:
    return secrets.ensure(lab.run)


def set_management(lab: Lab, name: str, state: str) -> None:
    (cable,) = [one for one in lab.wiring.cables[name] if one.bridge == lab_wiring.MANAGEMENT]
    _run(lab.machine(OUTSIDE), ["ip", "link", "set", cable.end, state])


def _batch(found: Machine, lines: Iterator[str]) -> None:
    _run(found, ["ip", "-batch", "-"], "\n".join(lines) + "\n")


def _run(found: Machine, words: Sequence[str], text: str = "") -> None:
    done = subprocess.run(
        machine.network_command(found, words), input=text, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise MachineError(f"on {found.name}: {' '.join(words)}: {(done.stderr or done.stdout).strip()}")


def try_on(found: Machine, words: Sequence[str]) -> str:
    """What a command on a node printed, whatever came of it."""
    command = machine.command(found, words)
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment(), cwd="/", check=False
    ).stdout


def environment() -> dict[str, str]:
    """What commands on nodes get: little of the caller's, and the programs of this checkout first."""
    kept = {name: os.environ[name] for name in ("TERM", "LANG", "PYTHONDONTWRITEBYTECODE") if name in os.environ}
    path = f"{up.HOME}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**kept, "PATH": path, "HOME": "/root", "OS_CLOUD": "cumulet"}


def _say(text: str) -> None:
    print(f"  {text}", flush=True)


# ── the cloud on them ────────────────────────────────────────────────────────────────────────────────────────


def bring_up(lab: Lab, names: Sequence[str], tell: Callable[[str], None] = _say) -> None:
    """``cumulet up`` on each, side by side."""
    begun, running = time.monotonic(), {}
    for name in names:
        command = machine.command(lab.machine(name), cumulet("up", "--yes", "--no-server"))
        with (lab.run / f"{name}.up").open("w") as log:
            running[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment(), cwd="/"
            )
    try:
        _wait(lab, running, begun, tell)
    finally:
        for one in running.values():
            one.kill()
            one.wait()


def _wait(lab: Lab, running: dict[str, subprocess.Popen[bytes]], begun: float, tell: Callable[[str], None]) -> None:
    while running:
        for name, one in list(running.items()):
            if one.poll() is None:
                continue
            del running[name]
            if one.returncode:
                said = (lab.run / f"{name}.up").read_text()
                raise MachineError(f"node {name} does not come up:\n{said.strip()}")
            tell(f"{name:<28}up after {time.monotonic() - begun:.1f} s")
        if time.monotonic() - begun > UP_SECONDS:
            raise MachineError(f"{', '.join(running)} not up after {UP_SECONDS:.0f} s; logs: {lab.run}/*.up")
        time.sleep(0.02)


def cumulet(*words: str) -> list[str]:
    return [sys.executable, "-m", "cumulet.cli.main", "--config", f"{ETC}/cumulet.toml", *words]


def _map(lab: Lab) -> str:
    """What runs on each node, as the controller tells it, once everything has told of itself."""
    command = machine.command(lab.machine(lab.controller()), cumulet("where"))
    deadline = time.monotonic() + MAP_SECONDS
    while True:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment(), cwd="/", check=False)
        if done.returncode == 0 or time.monotonic() > deadline:
            return done.stdout
        time.sleep(0.2)


def _farewell(lab: Lab, seconds: float) -> str:
    option = "" if lab.name == "lab" else f"--name {lab.name} "
    config = topologies.node_config(lab.topology, topologies.get_node(lab.topology, lab.controller()))
    execute = f"cumulet lab exec {option}{lab.controller()}"
    return "\n".join(
        (
            f"Lab        {lab.name}: {len(lab.nodes)} nodes, up after {seconds:.1f} s",
            f"Identity   {config.keystone_url}   user admin, project admin, domain Default",
            f"Password   in {ETC}/openrc on {lab.controller()}",
            f"Log in     {execute} openstack server list",
            f"Server     {execute} cumulet launch first",
            f"End        cumulet lab down {option}".rstrip(),
        )
    )


def guest_image() -> Path:
    """The guest image, built once for each version of what it is made from."""
    digest = hashlib.sha256()
    source = up.HOME / "images"
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        digest.update(f"{file.relative_to(source)}\0".encode() + file.read_bytes())
    image = CACHE / f"guest-{digest.hexdigest()[:16]}.qcow2"
    with lock.held(CACHE / "guest.lock", "lab up"):
        if not image.exists():
            _build(source / "build", image)
    return image


def _build(program: Path, image: Path) -> None:
    print("building the guest image from Debian packages", flush=True)
    for old in CACHE.glob("guest-*.qcow2"):
        old.unlink()
    done = subprocess.run([program, image], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"the guest image could not be built: {(done.stderr or done.stdout).strip()[-500:]}")


def _remove_empty(place: Path) -> None:
    try:
        place.rmdir()
    except OSError:
        return


@contextmanager
def alone(name: str, command: str) -> Iterator[None]:
    with lock.held(_lock(name), command):
        yield


def _lock(name: str) -> Path:
    return RUN.with_name(f"{RUN.name}-{name}.lock")
