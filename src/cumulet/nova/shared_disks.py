"""Which hosts have servers' files on one file system, by what they say of it with their inventories.

A guest that goes live from such a host goes only to one that has the same, and its disks are not sent; a server
that is evacuated from one keeps its disks.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy.engine import Row

from cumulet.nova.model import STORE


def store_of(host: Row[Any] | None) -> str:
    """Empty: its servers' files are its own."""
    inventory = (host.details.get("inventory") if host else None) or {}
    return str((inventory.get("details") or {}).get(STORE) or "")


def sharing(hosts: Mapping[str, Row[Any]], host: str) -> frozenset[str]:
    """The hosts that have the file system of this one, itself among them; none if its files are its own."""
    store = store_of(hosts.get(host))
    return frozenset(name for name, row in hosts.items() if store_of(row) == store) if store else frozenset()
