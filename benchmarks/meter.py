"""The cloud's processes that ``cumulet.host.usage`` is asked about: the members that ``node.json`` names."""

import os
from contextlib import suppress
from pathlib import Path

import msgspec


def members(run_dir: Path, *, parts: bool) -> dict[str, int]:
    """Name → pid of the node's parent and services, or of its parts (libvirtd, Open vSwitch)."""
    node = msgspec.json.decode((run_dir / "node.json").read_bytes())
    found = {member["name"]: member["pid"] for member in node["members"] if member["part"] is parts}
    return found if parts else {"cumulet-node": node["pid"], **found}


def everything(run_dir: Path) -> list[int]:
    return [*members(run_dir, parts=False).values(), *members(run_dir, parts=True).values()]


def called(name: str) -> list[int]:
    """The processes with this command name."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and (entry / "comm").read_text().strip() == name:
                found.append(int(entry.name))
    return found


def cores() -> int:
    return os.cpu_count() or 1
