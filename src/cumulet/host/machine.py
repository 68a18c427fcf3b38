"""A machine made of namespaces: its own network, mounts, processes, host name and memory shared between processes.

It has the programs of the machine below it, and disks of its own: what is written to ``PLACES`` goes to layers in
a directory that outlives it.  /run and /dev/shm are empty at each start, as after a boot.  It is held by its
process 1, a shell that buries orphans: when that dies the kernel ends every process of the machine at once and
takes away its mounts, devices and namespaces, so ending it is a power cut.

What it has not of its own: the kernel and its settings beyond the network's, /dev, /tmp, the clock, memory, CPUs.
"""

import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from cumulet.host import process

PLACES = ("/etc", "/root", "/var/cache", "/var/lib", "/var/log")
_NAMESPACES = ("--net", "--mount", "--uts", "--ipc", "--pid")
_ENTER = ("-n", "-m", "-u", "-i", "-p")
_SECONDS = 20.0
_OPAQUE = "trusted.overlay.opaque"
_INIT = """set -e
disks=$1 name=$2 hidden=$3 ready=$4
shift 4
hostname "$name"
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
for place; do
    layers=$disks$place
    mount -t overlay -o lowerdir=$place,upperdir=$layers/upper,workdir=$layers/work overlay $place
done
mount -t tmpfs -o mode=755 tmpfs "$hidden"
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/lock /run/netns
echo ready >&$ready
eval "exec $ready>&-"
while :; do sleep 3600 & wait $!; done"""


class MachineError(Exception):
    """A machine did not start or did not end; the message has its last words."""


@dataclass(frozen=True)
class Machine:
    """``run``: where its pid file and log are; ``disks``: its directory, in one that machines do not see."""

    name: str
    run: Path
    disks: Path

    @property
    def pid_file(self) -> Path:
        return self.run / f"{self.name}.pid"

    @property
    def log(self) -> Path:
        return self.run / f"{self.name}.log"

    def layer(self, place: str) -> Path:
        """What was written to ``place``, one of ``PLACES``."""
        return Path(f"{self.disks}{place}/upper")


def prepare(machine: Machine, empty: Sequence[str], files: Mapping[str, str]) -> None:
    """Its disks, unless it has any: with ``files`` on them, and directories ``empty`` whatever is below."""
    if machine.disks.exists():
        return
    partial = Machine(machine.name, machine.run, machine.disks.with_name(f".{machine.name}"))
    shutil.rmtree(partial.disks, ignore_errors=True)
    for place in PLACES:
        Path(f"{partial.disks}{place}/work").mkdir(parents=True)
        partial.layer(place).mkdir()
        shutil.copystat(place, partial.layer(place))
    for path in empty:
        found = _beneath(partial, path)
        found.mkdir(parents=True)
        os.setxattr(found, _OPAQUE, b"y")
    for path, text in files.items():
        _beneath(partial, path).write_text(text)
    partial.disks.rename(machine.disks)


def _beneath(machine: Machine, path: str) -> Path:
    place = next(one for one in PLACES if path.startswith(f"{one}/"))
    return machine.layer(place) / path.removeprefix(f"{place}/")


def start(machine: Machine, persistent: bool = True) -> int:
    """Its process 1, by its number here; the one that runs, if it does.  Not ``persistent``: it has no disks."""
    running = find(machine)
    if running:
        return running
    machine.run.mkdir(parents=True, exist_ok=True)
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    words = [machine.disks, machine.name, machine.disks.parent, writer, *(PLACES if persistent else ())]
    unshare = ["unshare", *_NAMESPACES, "--fork", "--kill-child=KILL", "--propagation", "slave", "--"]
    try:
        process.start(
            [*unshare, "/bin/sh", "-c", _INIT, str(machine.pid_file), *map(str, words)],
            str(machine.pid_file),
            log_path=str(machine.log),
        )
    finally:
        os.close(writer)
    with closing(os.fdopen(reader)) as pipe:
        said = pipe.readline()
    found = find(machine)
    if said.strip() != "ready" or not found:
        raise MachineError(f"machine {machine.name} does not start: {_last_words(machine)}")
    return found


def find(machine: Machine) -> int:
    """Its process 1, by its number here; 0 if it does not run."""
    holder = process.find(str(machine.pid_file), str(machine.pid_file))
    if holder is None:
        return 0
    with suppress(FileNotFoundError, ProcessLookupError):
        return int((Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text().split() or ["0"])[0])
    return 0


def stop(machine: Machine) -> bool:
    """Cut its power.  Returns when nothing of it runs any more; False if nothing did."""
    found = find(machine)
    first = process.look(found) if found else None
    if first:
        with suppress(ProcessLookupError):
            os.kill(first.pid, signal.SIGKILL)
        if not process.wait_ended(first, _SECONDS):
            raise MachineError(f"machine {machine.name} does not end: something of it hangs in the kernel")
    process.terminate(str(machine.pid_file), str(machine.pid_file))
    return first is not None


def command(machine: Machine, words: Sequence[str]) -> list[str]:
    """What to execute for ``words`` to run on the machine."""
    pid = find(machine)
    if not pid:
        raise MachineError(f"machine {machine.name} is off")
    return ["nsenter", "-t", str(pid), *_ENTER, "--", *words]


def network_command(machine: Machine, words: Sequence[str]) -> list[str]:
    """As ``command``, with this machine's own files and process numbers: only the network is the other's."""
    pid = find(machine)
    if not pid:
        raise MachineError(f"machine {machine.name} is off")
    return ["nsenter", "-t", str(pid), "-n", "--", *words]


def _last_words(machine: Machine) -> str:
    lines = machine.log.read_text(errors="replace").splitlines() if machine.log.exists() else []
    return lines[-1] if lines else "it says nothing"
