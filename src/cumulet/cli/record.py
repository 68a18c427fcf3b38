"""What the node's parent writes down in the run directory, for every command that asks what runs.

A process is named by its number and its start time, so that a recycled number fools nobody.
"""

import os
from pathlib import Path

import msgspec

from cumulet.core.config import Config
from cumulet.host import process

TITLE = "cumulet-node"
"""The parent's name in ``ps``."""


class Member(msgspec.Struct):
    """One supervised process; ``pid`` 0: it waits for its next start."""

    name: str
    pid: int
    ticks: int  # the process's start time
    started_at: str
    starts: int
    part: bool  # libvirtd and Open vSwitch, as opposed to a service of the map
    problem: str = ""  # how it ended


class State(msgspec.Struct):
    """``node.json``: the parent and its children; rewritten whenever that changes."""

    pid: int
    members: list[Member]


def state_file(config: Config) -> Path:
    return config.run / "node.json"


def parent_file(config: Config) -> Path:
    """The parent's pid file, there before it has any child."""
    return config.run / "node.pid"


def keeper_file(config: Config) -> Path:
    """The pid file of the keeper, who starts the parent again where there is no systemd."""
    return config.run / "keeper.pid"


def find_parent(config: Config) -> process.Process | None:
    """The node's parent, if one lives."""
    return process.find(str(parent_file(config)), TITLE)


def find_keeper(config: Config) -> process.Process | None:
    return process.find(str(keeper_file(config)), str(keeper_file(config)))


def read_state(config: Config) -> State | None:
    """What a parent, alive or dead, wrote last."""
    try:
        return msgspec.json.decode(state_file(config).read_bytes(), type=State)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def write_state(config: Config, members: list[Member]) -> None:
    temporary = state_file(config).with_suffix(".new")
    temporary.write_bytes(msgspec.json.encode(State(os.getpid(), members)))
    temporary.rename(state_file(config))


def write_parent(config: Config) -> None:
    """Name this process as the parent."""
    own = process.look(os.getpid())
    assert own
    parent_file(config).write_text(f"{own.pid} {own.started}\n")


def forget(config: Config) -> None:
    state_file(config).unlink(missing_ok=True)
    parent_file(config).unlink(missing_ok=True)


def members(config: Config) -> dict[str, Member]:
    """What the living parent says of its children, by name; empty if no parent lives."""
    parent, state = find_parent(config), read_state(config)
    if parent is None or state is None or state.pid != parent.pid:
        return {}
    return {member.name: member for member in state.members}


def lives(member: Member) -> bool:
    return member.pid > 0 and process.look(member.pid) == process.Process(member.pid, member.ticks)
