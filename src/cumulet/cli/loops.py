"""``cumulet loops``: each reconcile loop on each node: its last pass, the keys that fail, how often and why.

This node's services are asked now; those elsewhere told theirs with their last sign of life.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping

import msgspec
import sqlalchemy as sa

from cumulet.cli import status, times
from cumulet.cli.database import reading
from cumulet.core import clock
from cumulet.core import config as configuration
from cumulet.core.config import Config
from cumulet.core.db import Transaction
from cumulet.core.log import clean
from cumulet.core.reconcile import KeyStatus, LoopStatus
from cumulet.core.tables import agents


class Line(msgspec.Struct):
    """One loop.  ``silent``: why nothing newer is known of it."""

    host: str
    service: str
    loop: LoopStatus
    silent: str = ""


def main(options: argparse.Namespace) -> int:
    config = configuration.load(options.config)
    status.require_running(config, "loops", "services answer root on their status sockets")
    asked = status.loops(config, ())
    with reading(config) as tx:
        lines = list(read(config, tx, asked))
    found = sorted(lines, key=lambda line: (line.host != config.node.name, line.host, line.service))
    if options.json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(found), indent=1).decode() + "\n")
    else:
        print(text(found))
    return 1 if any(line.silent or line.loop.read_failure or line.loop.failing for line in found) else 0


def read(config: Config, tx: Transaction, asked: Mapping[str, list[LoopStatus]]) -> Iterator[Line]:
    """``asked``: the loops of this node's services, which are left out of what is written down."""
    here = config.node.name
    for service, loops in asked.items():
        for loop in loops:
            yield Line(here, service, loop)
    oldest = clock.later(-config.agents.down_seconds)
    for row in tx.all(sa.select(agents).order_by(agents.c.host, agents.c.binary)):
        if row.host == here and row.binary in asked:
            continue
        silent = f"silent since {times.at(row.seen_at)}" if row.seen_at < oldest else ""
        for loop in msgspec.convert(row.loops, list[LoopStatus]):
            yield Line(row.host, row.binary, loop, silent)


def text(lines: list[Line]) -> str:
    """The loops by node; below each what keeps it from being done.  What hosts tell is printed as plain text."""
    shown, host = [], ""
    for line in lines:
        if line.host != host:
            host = line.host
            shown.append(f"node {clean(host)}")
        loop = line.loop
        passed = f"last pass {times.at(loop.last_pass)}" if loop.last_pass else "no pass yet"
        state = line.silent or (f"{len(loop.failing)} failing" if loop.failing else "all right")
        name = f"{line.service}/{loop.name}"
        shown.append(clean(f"  {name:<44}{loop.keys:>6} keys  {state}; {passed}"))
        if loop.read_failure:
            shown.append(clean(f"      cannot read its intent: {loop.read_failure}"))
        shown += [clean(f"      {key}: {reason(failure)}") for key, failure in loop.failing.items()]
    return "\n".join(shown)


def reason(failure: KeyStatus) -> str:
    tries = f"{failure.tries} {'try' if failure.tries == 1 else 'tries'} since {times.at(failure.since)}"
    following = f", next in {failure.next_try_seconds:.0f} s" if failure.next_try_seconds is not None else ""
    return f"{failure.kind}: {failure.reason}; {tries}{following}"
