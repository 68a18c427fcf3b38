"""``cumulet events``: what has happened in the cloud, as its notifications tell it; ``--follow`` goes on."""

import argparse
import sys
import time

import msgspec

from cumulet.cli import happenings, status, times
from cumulet.cli.database import reading
from cumulet.cli.happenings import Event
from cumulet.core import clock
from cumulet.core import config as configuration
from cumulet.core.config import Config
from cumulet.core.log import clean

LOOK_SECONDS = 0.5
OVERLAP_SECONDS = 10.0
"""How much later than another one a transaction may end that began before it."""


def main(options: argparse.Namespace) -> int:
    config = configuration.load(options.config)
    status.require_root("events", "it reads the database")
    with reading(config) as tx:
        found = happenings.newest(tx, max(options.lines, 0))
    _print(found, options)
    if options.follow:
        _follow(config, found, options)
    return 0


def line(event: Event) -> str:
    """``14:08:36.123  compute.instance.create.end  vm1 (5c1d…)  user … project …  [req-…]``."""
    thing = f"{event.name} ({event.thing})" if event.name else event.thing
    who = f"user {event.user_id or '-'} project {event.project_id or '-'}"
    return clean(f"{times.short(event.time, 3)}  {event.type:<34}  {thing}  {who}  [{event.request_id}]")


def _print(found: list[Event], options: argparse.Namespace) -> None:
    for event in found:
        if options.type in event.type:
            print(msgspec.json.encode(event).decode() if options.json else line(event))
    sys.stdout.flush()


def _follow(config: Config, seen: list[Event], options: argparse.Namespace) -> None:
    """New ones as they come, each once, until Ctrl-C."""
    known = {event.id: event.time for event in seen}
    started = clock.now()
    while True:
        since = max(started, clock.later(-OVERLAP_SECONDS)) if not known else clock.later(-OVERLAP_SECONDS)
        with reading(config) as tx:
            found = happenings.after(tx, since, frozenset(known))
        _print(found, options)
        known = {key: at for key, at in known.items() if at >= since} | {event.id: event.time for event in found}
        time.sleep(LOOK_SECONDS)
