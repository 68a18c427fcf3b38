"""Network devices by ioctl, where netlink has no say: taps, and checksum offload.

Both act in the calling thread's namespace.
"""

import array
import errno
import fcntl
import os
import re
import socket
import struct

NAME_MAX = 15

_TUN = "/dev/net/tun"
_TUNSETIFF = 0x400454CA
_TUNSETPERSIST = 0x400454CB
_TUNSETOWNER = 0x400454CC
_IFF_TAP = 0x0002
_IFF_NO_PI = 0x1000
_IFF_VNET_HDR = 0x4000
_SIOCETHTOOL = 0x8946
_ETHTOOL_GTXCSUM = 0x16
_ETHTOOL_STXCSUM = 0x17
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,14}")


class DeviceError(OSError):
    """A device refused what was asked."""


def check_name(name: str) -> str:
    """The name itself when the kernel and every tool take it as a device name; raises DeviceError."""
    if not _NAME.fullmatch(name):
        raise DeviceError(
            errno.EINVAL, f"bad network device name {name!r} (1 to {NAME_MAX} of A-Z a-z 0-9 _ . : -)"
        )
    return name


def create_tap(name: str, owner_uid: int | None = None, vnet_hdr: bool = False) -> None:
    """Make a persistent tap, or take the one that is there; `owner_uid` may then open it without privilege.

    A tap that a guest holds open at this moment is left as it is. Deleted by `Netlink.delete_link`.
    """
    flags = _IFF_TAP | _IFF_NO_PI | (_IFF_VNET_HDR if vnet_hdr else 0)
    request = struct.pack("16sH14x", check_name(name).encode(), flags)
    try:
        fd = os.open(_TUN, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise DeviceError(error.errno, f"make tap {name}: {_TUN}: {error.strerror}") from error
    try:
        fcntl.ioctl(fd, _TUNSETIFF, request)
        if owner_uid is not None:
            fcntl.ioctl(fd, _TUNSETOWNER, owner_uid)
        fcntl.ioctl(fd, _TUNSETPERSIST, 1)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise DeviceError(error.errno, f"make tap {name}: {error.strerror}") from error
    finally:
        os.close(fd)


def checksum_off(dev: str) -> bool:
    """Make the kernel fill in checksums before a frame leaves by this device; True when it changed.

    Needed at the end whose kernel sends (inside the namespace, not the switch's end) wherever a userspace
    datapath reads the other end: it sees frames without their offload metadata, so unfinished checksums would
    go out as they are: ping works and every TCP connection times out.
    """
    if not _ethtool(dev, _ETHTOOL_GTXCSUM, 0):
        return False
    _ethtool(dev, _ETHTOOL_STXCSUM, 0)
    if _ethtool(dev, _ETHTOOL_GTXCSUM, 0):
        raise DeviceError(errno.EOPNOTSUPP, f"device {dev} does not give up checksum offload")
    return True


def _ethtool(dev: str, command: int, value: int) -> int:
    """One ETHTOOL_[GS] command with a single 32-bit value (struct ethtool_value); the value that came back."""
    data = array.array("I", (command, value))
    request = struct.pack("16sP16x", check_name(dev).encode(), data.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        try:
            fcntl.ioctl(control, _SIOCETHTOOL, request)
        except OSError as error:
            raise DeviceError(error.errno, f"checksum offload of device {dev}: {error.strerror}") from error
    return data[1]
