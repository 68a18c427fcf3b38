"""``cumulet why THING``: what is wanted, what is seen, what it waits for and since when.

Reads the database (this command runs on a controller, as root) and asks every service of this node for the
loops that fail; agents elsewhere tell theirs with their heartbeats.
"""

import argparse
import sys
from datetime import UTC, datetime
from typing import Any

import msgspec

from cumulet.cli import status, stories, times
from cumulet.cli.culprits import Culprits, Waiting
from cumulet.cli.database import reading
from cumulet.cli.stories import Story
from cumulet.core import config as configuration

KINDS = {
    "waiting": "waits",
    "failed": "FAILS",
    "terminal": "HAS GIVEN UP",
    "silent": "IS SILENT",
    "pending": "is due",
}
BARE = frozenset({"action", "state", "wiring"})
"""Facts whose value says what they are."""


def main(options: argparse.Namespace) -> int:
    config = configuration.load(options.config)
    status.require_running(config, "why", "it reads the database")
    healths = status.healths(config)
    loops = status.loops(config, healths)
    with reading(config) as tx:
        found = stories.find(tx, options.thing, Culprits(config, tx, healths, loops))
    if not found:
        sys.exit(f"there is no server, port, network, router or floating IP {options.thing!r}")
    if options.json:
        print(msgspec.json.format(msgspec.json.encode(found), indent=1).decode())
    else:
        print("\n\n".join(text(story, datetime.now(UTC)) for story in found))
    return 0


def text(story: Story, now: datetime, indent: str = "") -> str:
    """A story for people."""
    lines = [f"{indent}{story.kind} {story.name or ''}".rstrip() + f" ({story.id}) is {story.state}"]
    for title, rows in (("wanted", [story.wanted]), ("seen", story.seen), ("action", story.actions)):
        lines += [f"{indent}  {title:<9}{facts(row, now)}" for row in rows]
    if not story.seen:
        lines.append(f"{indent}  {'seen':<9}by no host")
    lines += [f"{indent}  {'waiting':<9}{reason(one, now)}" for one in story.waiting]
    if not story.waiting:
        lines.append(f"{indent}  {'waiting':<9}for nothing")
    return "\n".join([*lines, *(text(part, now, indent + "    ") for part in story.also)])


def facts(row: dict[str, Any], now: datetime) -> str:
    """``node1: power on, newest order, at 14:08:36 (3 min ago)``; what is empty or off is left out."""
    words = []
    for key, value in row.items():
        if key == "host" or value in (None, "", [], False):
            continue
        name = key.removesuffix("_at").replace("_", " ")
        if key == "at" or key.endswith("_at"):
            words.append(f"{name} {times.at(value, now)}")
        elif isinstance(value, list):
            words.append(f"{name} {' '.join(value)}")
        elif key == "order":
            words.append(f"{value} order")
        elif key in BARE:
            words.append(value)
        else:
            words.append(name if value is True else f"{name} {value}")
    return (f"{row['host']}: " if row.get("host") else "") + ", ".join(words)


def reason(one: Waiting, now: datetime) -> str:
    """``nova-compute on node1 waits: ports …; 4 tries since 14:08:36 (3 min ago), next in 2 s``."""
    place = f" on {one.host}" if one.host else ""
    line = f"{one.service}{place} {KINDS[one.kind]}: {one.reason}".replace("waits: waiting for", "waits for")
    more = []
    if one.tries:
        more.append(f"{one.tries} {'try' if one.tries == 1 else 'tries'}")
    if one.since:
        more.append(f"since {times.at(one.since, now)}")
    tail = " ".join(more)
    if one.next_try_seconds is not None:
        tail += f", next in {one.next_try_seconds:.0f} s"
    if one.loop:
        tail += f" (loop {one.loop})"
    return f"{line}; {tail.strip()}" if tail else line
