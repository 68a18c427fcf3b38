"""The shield: keeps the host's own IP stack from hearing what arrives for the switch.

The kernel's datapath takes each frame away from the host; the userspace datapath only reads a copy.  Without a
shield the host answers ARP for all of its addresses on every guest's device, and hears underlay traffic twice.
One netdev chain per device drops at ingress, after the copy was taken.  Chains are named by the device's index, so
that a device which was deleted and made again under its name counts as the new one it is.
"""

import contextlib
import socket
from collections.abc import Collection

from cumulet.host.nft import Nft

FAMILY, TABLE = "netdev", "cumulet"
_PRIORITY = -500


def ensure_shield(nft: Nft, devices: Collection[str]) -> bool:
    """Shield exactly these devices, so far as they exist; True when something changed."""
    wanted: dict[str, str] = {}
    for name in devices:
        with contextlib.suppress(OSError):  # it is gone
            wanted[f"in_{socket.if_nametoindex(name)}"] = name
    have = {
        entry["chain"]["name"]
        for entry in nft.list_json(f"list chains {FAMILY}")
        if "chain" in entry and entry["chain"]["table"] == TABLE
    }
    missing, surplus = wanted.keys() - have, have - wanted.keys()
    if not missing and not surplus:
        return False
    lines = [f"add table {FAMILY} {TABLE}"]
    lines += [f"delete chain {FAMILY} {TABLE} {chain}" for chain in sorted(surplus)]
    hook = 'type filter hook ingress device "{}" priority {} ; policy drop ;'
    lines += [
        f"add chain {FAMILY} {TABLE} {chain} {{ {hook.format(wanted[chain], _PRIORITY)} }}"
        for chain in sorted(missing)
    ]
    nft.run("\n".join(lines) + "\n")
    return True
