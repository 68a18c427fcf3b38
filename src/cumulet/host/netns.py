"""Network namespaces by setns(2): make, enter, list and delete them without spawning a process.

A namespace is a bind mount under /run/netns, as `ip netns` makes it, so that an operator's tools see ours. The
directory is made a shared mount of its own before the first one, as `ip netns` does: if that tool did it later, it
would hide our mounts below its own, and no namespace could be deleted any more.
setns acts on the calling thread only, and a socket stays for ever in the namespace in which it was opened:
enter, open the socket, leave; then use it from any thread. Never `await` inside `enter`.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import re
import socket
import struct
import threading
from collections.abc import Iterator

DIRECTORY = "/run/netns"

_CLONE_NEWNET = 0x40000000
_MS_BIND, _MS_REC, _MS_SHARED = 0x1000, 0x4000, 1 << 20
_MNT_DETACH = 2
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1
_IP_FREEBIND = 15
_IPV6_FREEBIND = 78
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}")
_SYSCTL_PART = re.compile(r"[A-Za-z0-9_.:-]+")
_THIS_THREAD = "/proc/thread-self/ns/net"

_libc = ctypes.CDLL(None, use_errno=True)


class NetnsError(OSError):
    """A namespace could not be made, entered or deleted."""


def _path(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise NetnsError(errno.EINVAL, f"bad network namespace name {name!r}")
    return f"{DIRECTORY}/{name}"


def _failure(what: str) -> NetnsError:
    number = ctypes.get_errno()
    return NetnsError(number, f"{what}: {os.strerror(number)}")


def _setns(fd: int, what: str) -> None:
    if _libc.setns(fd, _CLONE_NEWNET):
        raise _failure(what)


def open_current() -> int:
    """A descriptor of the calling thread's namespace, for `enter_fd`; it pins it until the caller closes it."""
    return os.open(_THIS_THREAD, os.O_RDONLY | os.O_CLOEXEC)


@contextlib.contextmanager
def enter_fd(fd: int) -> Iterator[None]:
    """As `enter`, for a descriptor from `open_current`."""
    before = open_current()
    try:
        _setns(fd, "enter network namespace")
        try:
            yield
        finally:
            _setns(before, "return to the previous network namespace")
    finally:
        os.close(before)


@contextlib.contextmanager
def enter(name: str) -> Iterator[None]:
    """Put the calling thread into the namespace and back again. NetnsError when there is no such namespace."""
    try:
        fd = os.open(_path(name), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NetnsError(errno.ENOENT, f"no network namespace {name}") from None
    try:
        with enter_fd(fd):
            yield
    finally:
        os.close(fd)


def exists(name: str) -> bool:
    """Whether the name is a living namespace; the empty file a crash left behind is not."""
    try:
        return os.stat(_path(name)).st_dev == os.stat(_THIS_THREAD).st_dev
    except FileNotFoundError:
        return False


def holds(name: str, pid: int) -> bool:
    """Whether the process is in the namespace, and not in an older one of that name."""
    try:
        there, its = os.stat(_path(name)), os.stat(f"/proc/{pid}/ns/net")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return (there.st_dev, there.st_ino) == (its.st_dev, its.st_ino)


def list_names(prefix: str = "") -> list[str]:
    """The namespaces whose name begins so, sorted."""
    try:
        names = os.listdir(DIRECTORY)
    except FileNotFoundError:
        return []
    return sorted(n for n in names if n.startswith(prefix) and _NAME.fullmatch(n) and exists(n))


def create(name: str) -> bool:
    """Make the namespace, with its loopback up; False when it is there already."""
    path = _path(name)
    if exists(name):
        return False
    _ensure_directory()
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0))
    failures: list[OSError] = []

    def make() -> None:
        # The thread ends in its new namespace; the bind mount keeps the namespace alive.
        try:
            if _libc.unshare(_CLONE_NEWNET):
                raise _failure(f"create network namespace {name}")
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
                fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP))
            source = f"/proc/self/task/{threading.get_native_id()}/ns/net"
            if _libc.mount(source.encode(), path.encode(), None, _MS_BIND, None):
                raise _failure(f"mount network namespace {name}")
        except OSError as error:
            failures.append(error)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if failures:
        os.unlink(path)
        raise failures[0]
    return True


def delete(name: str) -> bool:
    """Delete the namespace; False when there is none. Its devices go when the last process and socket in it do."""
    path = _path(name)
    while not _libc.umount2(path.encode(), _MNT_DETACH):
        pass  # mounted more than once by a rival: take all of them off
    if ctypes.get_errno() not in (errno.EINVAL, errno.ENOENT):
        raise _failure(f"unmount network namespace {name}")
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno != errno.EBUSY:  # hidden below a mount that was made later: the file is empty to us
            raise
    return True


def _ensure_directory() -> None:
    """The directory, a shared mount of its own; under the lock that `ip netns` takes for the same."""
    os.makedirs(DIRECTORY, exist_ok=True)
    place = DIRECTORY.encode()
    lock = os.open(DIRECTORY, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _libc.mount(b"", place, b"none", _MS_SHARED | _MS_REC, None):
            return
        if ctypes.get_errno() != errno.EINVAL or _libc.mount(place, place, b"none", _MS_BIND | _MS_REC, None):
            raise _failure(f"mount {DIRECTORY}")
        if _libc.mount(b"", place, b"none", _MS_SHARED | _MS_REC, None):
            raise _failure(f"share {DIRECTORY}")
    finally:
        os.close(lock)


def sysctl(key: str, value: int | str) -> bool:
    """Set a `net.` sysctl of the calling thread's namespace; True when it changed.

    The parts are separated by "/" if there is one in the key (device names may hold dots), else by ".".
    """
    parts = key.split("/" if "/" in key else ".")
    if parts[0] != "net" or any(p in (".", "..") or not _SYSCTL_PART.fullmatch(p) for p in parts):
        raise NetnsError(errno.EINVAL, f"bad network sysctl {key!r}")
    try:
        with open("/proc/sys/" + "/".join(parts), "r+", encoding="ascii") as file:
            if file.read().split() == str(value).split():
                return False
            file.seek(0)
            file.write(str(value))
    except OSError as error:
        raise NetnsError(error.errno, f"set sysctl {key} to {value}: {error.strerror}") from error
    return True


def listen_tcp(name: str, host: str, port: int, backlog: int = 128) -> socket.socket:
    """A non-blocking listening socket inside the namespace, usable from any thread outside it.

    The address, IPv4 or IPv6, need not be there yet (IP_FREEBIND). Port 0 takes a free one.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with enter(name):
        listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
        else:
            listener.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        listener.bind((host, port))
        listener.listen(backlog)
    except OSError as error:
        listener.close()
        raise NetnsError(error.errno, f"listen on {host} port {port} in {name}: {error.strerror}") from error
    return listener
