"""What a host that sends a guest may say to the destination's libvirtd: what such a migration needs, and no more.

libvirt's messages begin with their length and say which procedure they call.  Anything but those of a migration
from host to host ends the connection: no other guest of this host can be named to its libvirtd on this way, none be
stopped or looked at, no file be read.  What is in the messages is libvirt's to judge; the definition of the guest
that comes in is the sender's.
"""

import struct

from cumulet.core.errors import Terminal

_HEADER = struct.Struct(">IIII")  # length, program, version, procedure
_LONGEST = 32 << 20  # libvirt's own bound
REMOTE, KEEPALIVE = 0x20008086, 0x6B656570
PROCEDURES = frozenset(
    {
        1,  # open
        2,  # close
        60,  # does it support this feature?
        66,  # which authentication?
        303,  # prepare a migration
        306,  # finish it
        360,  # tell me when the connection closes
        361,  # no more
    }
)


class Gate:
    def __init__(self) -> None:
        self._head = b""
        self._left = 0  # of the message that goes through

    def check(self, data: bytes) -> None:
        """Terminal if it calls what is not to be called."""
        view = memoryview(data)
        while view:
            if self._left:
                passed = min(self._left, len(view))
                self._left, view = self._left - passed, view[passed:]
                continue
            wanted = _HEADER.size - len(self._head)
            self._head, view = self._head + bytes(view[:wanted]), view[wanted:]
            if len(self._head) == _HEADER.size:
                length, program, _, procedure = _HEADER.unpack(self._head)
                if not _HEADER.size <= length <= _LONGEST or not _allowed(program, procedure):
                    raise Terminal(f"it asks libvirtd for procedure {procedure} of program {program:#x}")
                self._head, self._left = b"", length - _HEADER.size


def _allowed(program: int, procedure: int) -> bool:
    return program == KEEPALIVE or (program == REMOTE and procedure in PROCEDURES)
