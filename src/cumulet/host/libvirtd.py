"""The cloud's own libvirtd: one per node, in a mount namespace of its own, a supervised child in the foreground.

libvirtd has five fixed places (configuration, state, log, cache, run directory). A second one on a machine would
fight over them, so this one sees its own directories bind-mounted there, and nobody else does: the machine's own
libvirtd, if any, is not touched. Mounts that are made later are seen inside (propagation "slave").

`prepare` writes the directories and configuration; it may be repeated while libvirtd runs. `argv` is what to
supervise: this module as a program, which makes the namespace and becomes libvirtd. Guests are not its children in
the end (QEMU goes into the background), so they outlive its SIGTERM and its kill -9, and the supervisor's; the next
libvirtd finds them again. The supervisor should be a child subreaper: libvirt waits for the end of a QEMU until
somebody has reaped it, and a slow PID 1 costs up to two seconds for every destroy.

libvirt looks at /dev/kvm twice, as root when it asks QEMU what it can do and as QEMU's user afterwards; where the
two disagree it asks again at every definition, which takes up to 20 seconds. So QEMU's user is given a usable
/dev/kvm, and one that is of no use is hidden.

What may go wrong: a run directory that survived a reboot names pids that are strangers' now, and libvirtd would
kill them. So the run directory is emptied whenever the machine (or the container: process 1) is another one.
"""

import ctypes
import grp
import os
import pwd
import shutil
import stat
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

from cumulet.host import kvm

QEMU_USER = "libvirt-qemu"
"""libvirt refuses to start where this user does not exist, whatever its configuration says."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_FIRST_PROCESS = Path("/proc/1/stat")
_CGROUP2 = Path("/sys/fs/cgroup/cgroup.controllers")
_PLACES = {
    "etc": "/etc/libvirt",
    "lib": "/var/lib/libvirt",
    "log": "/var/log/libvirt",
    "cache": "/var/cache/libvirt",
}
_RUN_PLACE = "/run/libvirt"
_CLONE_NEWNS, _MS_BIND, _MS_REC, _MS_SLAVE = 0x20000, 0x1000, 0x4000, 0x80000
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class LibvirtdError(Exception):
    """libvirtd could not be prepared or started; the message says what is missing."""


def prepare(state_dir: Path, run_dir: Path, qemu_user: str = QEMU_USER) -> None:
    """Make users, directories and configuration files; may be repeated, also while libvirtd runs."""
    for name in {QEMU_USER, qemu_user}:
        _ensure_user(name)
    state, run = state_dir / "libvirt", run_dir / "libvirt"
    for folder in (state, *(state / name for name in _PLACES), run):
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
    incarnation = _incarnation()
    if _read(run / "incarnation") != incarnation:
        _sweep(state, run)
        _write(run / "incarnation", incarnation)
    host_uuid = _read(state / "uuid") or str(uuid.uuid4())
    _write(state / "uuid", host_uuid)
    _write(state / "qemu_user", qemu_user)
    _write(state / "etc" / "libvirtd.conf", "\n".join(_daemon_options(host_uuid)))
    _write(state / "etc" / "qemu.conf", "\n".join(_qemu_options(qemu_user)))


def argv(state_dir: Path, run_dir: Path) -> list[str]:
    """The child to supervise; after its start its command line is libvirtd's and still names ``run_dir``."""
    return [sys.executable, "-m", "cumulet.host.libvirtd", str(state_dir), str(run_dir)]


def uri(run_dir: Path) -> str:
    """Where a client finds it."""
    return f"qemu:///system?socket={run_dir}/libvirt/libvirt-sock"


def _daemon_options(host_uuid: str) -> Iterator[str]:
    yield 'auth_unix_rw = "none"'
    yield 'auth_unix_ro = "none"'
    yield 'unix_sock_group = "root"'
    yield 'unix_sock_rw_perms = "0700"'
    yield 'unix_sock_ro_perms = "0700"'
    yield f'host_uuid = "{host_uuid}"'  # two hosts with the same one count as one host in a migration
    yield 'log_outputs = "3:stderr"'
    yield "keepalive_interval = 5"
    yield "keepalive_count = 3"


def _qemu_options(user: str) -> Iterator[str]:
    yield f'user = "{user}"'
    yield f'group = "{grp.getgrgid(pwd.getpwnam(user).pw_gid).gr_name}"'
    yield "dynamic_ownership = 0"  # who may open what is the agent's business
    yield "remember_owner = 0"
    yield 'security_driver = "none"'
    yield 'stdio_handler = "file"'  # virtlogd would be one more daemon whose end loses the logs of running guests
    yield "namespaces = []"
    if not _CGROUP2.exists():
        yield "cgroup_controllers = []"


def _ensure_user(name: str) -> None:
    try:
        pwd.getpwnam(name)
        return
    except KeyError:
        pass
    options = ["--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"]
    if group := _kvm_group():
        options += ["--groups", group]
    command = ["useradd", *options, "--shell", "/usr/sbin/nologin", "--", name]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, env={"PATH": _SYSTEM_PATH}
    )
    if done.returncode not in (0, 9):  # 9: it is there now
        raise LibvirtdError(f"useradd {name}: {done.stderr.strip()}")


def _kvm_group() -> str:
    """The group that may open /dev/kvm, if it is not root's."""
    try:
        number = os.stat(kvm.DEVICE).st_gid
        return grp.getgrgid(number).gr_name if number else ""
    except (FileNotFoundError, KeyError):
        return ""


def _incarnation() -> str:
    """Names this run of the machine: its boot, and (in a container) the start of process 1."""
    started = _FIRST_PROCESS.read_text().rpartition(")")[2].split()[19]
    return f"{_BOOT_ID.read_text().strip()} {started}"


def _sweep(state: Path, run: Path) -> None:
    """Take away what the last incarnation left: pid files of strangers, directories of guests that are gone."""
    for folder in (*run.iterdir(), *(state / "lib" / "qemu").glob("domain-*")):
        if folder.is_dir() and not folder.is_symlink():
            shutil.rmtree(folder)
        else:
            folder.unlink()


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return ""


def _write(path: Path, text: str) -> None:
    """Replace the file at once, if it says something else."""
    if _read(path) == text.strip():
        return
    partial = path.with_name(f"{path.name}.new")
    partial.write_text(text + "\n")
    partial.replace(path)


def become(state_dir: Path, run_dir: Path) -> None:
    """Put this process into a mount namespace of its own and make it libvirtd; returns only by LibvirtdError."""
    program = shutil.which("libvirtd", path=f"{os.environ.get('PATH', '')}:{_SYSTEM_PATH}")
    if program is None:
        raise LibvirtdError("no libvirtd on this machine; install libvirt-daemon")
    places = {state_dir / "libvirt" / name: place for name, place in _PLACES.items()}
    places[run_dir / "libvirt"] = _RUN_PLACE
    for place in (*places.values(), "/run/lock"):
        os.makedirs(place, exist_ok=True)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS):
        raise LibvirtdError(f"make a mount namespace: {os.strerror(ctypes.get_errno())}")
    _mount(libc, None, "/", _MS_REC | _MS_SLAVE)
    for source, place in places.items():
        _mount(libc, str(source), place, _MS_BIND)
    if not _share_kvm(_read(state_dir / "libvirt" / "qemu_user") or QEMU_USER):
        hidden = run_dir / "libvirt" / "no-kvm"
        hidden.touch(mode=0)
        _mount(libc, str(hidden), kvm.DEVICE, _MS_BIND)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("LISTEN_", "NOTIFY_"))}
    os.execve(program, ["libvirtd", "--pid-file", str(run_dir / "libvirt" / "libvirtd.pid")], environment)


def _share_kvm(user: str) -> bool:
    """Whether root and QEMU's user see the same of KVM; where only root may use it, let the user's group in."""
    try:
        status = os.stat(kvm.DEVICE)
    except FileNotFoundError:
        return True
    entry = pwd.getpwnam(user)
    groups = os.getgrouplist(user, entry.pw_gid)
    if status.st_mode & 0o006 == 0o006 or (status.st_gid in groups and status.st_mode & 0o060 == 0o060):
        return True
    if not kvm.usable():
        return False
    os.chown(kvm.DEVICE, -1, entry.pw_gid)
    os.chmod(kvm.DEVICE, stat.S_IMODE(status.st_mode) | 0o060)
    return True


def _mount(libc: ctypes.CDLL, source: str | None, target: str, flags: int) -> None:
    if libc.mount(source.encode() if source else None, target.encode(), None, ctypes.c_ulong(flags), None):
        raise LibvirtdError(f"mount {source or ''} at {target}: {os.strerror(ctypes.get_errno())}")


def main(arguments: list[str]) -> int:
    if len(arguments) != 2:
        print("usage: python -m cumulet.host.libvirtd STATE_DIR RUN_DIR", file=sys.stderr)
        return 2
    try:
        become(Path(arguments[0]).absolute(), Path(arguments[1]).absolute())
    except (LibvirtdError, OSError) as error:
        print(f"libvirtd: {error}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
