"""``cumulet trace REQUEST-ID``: one timeline of what every service did for a request, from the logs and the rows.

A request id goes with a request through the services, into the rows that it changes, from there into what hosts
are told, and into every line that is logged on the way.  On a controller the other nodes are asked for their lines
(``core.tracing``): they answer with their next sign of life.  Elsewhere it is this node's logs alone.
"""

import argparse
import re
import sys
import time
from collections.abc import Iterator

import msgspec
import sqlalchemy as sa

from cumulet.cli import happenings, status, times
from cumulet.cli.database import reading, writing
from cumulet.core import clock, moments, tracing
from cumulet.core import config as configuration
from cumulet.core.config import Config
from cumulet.core.db import Transaction
from cumulet.core.errors import Unavailable
from cumulet.core.log import clean
from cumulet.core.moments import Moment
from cumulet.core.tables import agents
from cumulet.nova.tables import server_actions

REQUEST = re.compile(r"req-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
LATE_SECONDS, LOOK_SECONDS = 3.0, 0.2


def main(options: argparse.Namespace) -> int:
    config = configuration.load(options.config)
    status.require_root("trace", "it reads logs and the database")
    if not REQUEST.fullmatch(options.request):
        sys.exit(f"{options.request[:80]!r} is no request id; every answer's X-Openstack-Request-Id is one")
    wait = config.agents.heartbeat_seconds + LATE_SECONDS if options.wait is None else options.wait
    found, silent = gather(config, options.request, wait)
    found.sort(key=lambda moment: moment.time)
    for host, seen_at in silent.items():
        print(f"{host} has not answered; its last sign of life was at {times.at(seen_at)}", file=sys.stderr)
    if options.json:
        print(msgspec.json.format(msgspec.json.encode(found), indent=1).decode())
    elif not found:
        sys.exit(f"nothing is known of {options.request}")
    else:
        print("\n".join(line(moment) for moment in found))
    return 0


def gather(config: Config, request_id: str, wait: float) -> tuple[list[Moment], dict[str, str]]:
    """What is known, and the hosts that did not answer within ``wait`` seconds, with their last sign of life."""
    own = moments.gather(config.logs, config.node.name, request_id)
    try:
        with reading(config) as tx:
            own += rows(tx, request_id)
    except Unavailable:
        return own, {}  # a node without the database has its logs
    told, silent = ask(config, request_id, wait)
    return own + [moment for answer in told.values() for moment in answer], silent


def ask(config: Config, request_id: str, wait: float) -> tuple[dict[str, list[Moment]], dict[str, str]]:
    """What the other nodes answer."""
    expected = {host: at for host, at in others(config).items() if at >= clock.later(-config.agents.down_seconds)}
    if not expected:
        return {}, others(config)
    with writing(config) as tx:
        tracing.order(tx, request_id)
    deadline = time.monotonic() + wait
    while True:
        with reading(config) as tx:
            told = tracing.read(tx, request_id)
        if expected.keys() <= told.keys() or time.monotonic() >= deadline:
            told.pop(config.node.name, None)
            return told, {host: at for host, at in others(config).items() if host not in told}
        time.sleep(LOOK_SECONDS)


def others(config: Config) -> dict[str, str]:
    """The other hosts, with their last sign of life."""
    latest = sa.select(agents.c.host, sa.func.max(agents.c.seen_at).label("seen_at")).group_by(agents.c.host)
    with reading(config) as tx:
        return {row.host: row.seen_at for row in tx.all(latest) if row.host != config.node.name}


def rows(tx: Transaction, request_id: str) -> Iterator[Moment]:
    """What the request ordered and what came of it, and what the world was told."""
    for event in happenings.of_request(tx, request_id):
        yield Moment(event.time, "", "row", f"told {event.type} of {event.name or event.thing}")
    mine = sa.select(server_actions).where(server_actions.c.request_id == request_id)
    for row in tx.all(mine):
        yield Moment(row.started_at, "", "row", f"ordered {row.action} of server {row.server_id}")
        if row.finished_at:
            outcome = f"failed: {row.fault}" if row.fault else "done"
            yield Moment(
                row.finished_at, row.host or "", "row", f"{row.action} of server {row.server_id} {outcome}"
            )


def line(moment: Moment) -> str:
    return clean(f"{times.short(moment.time, 3)}  {moment.host:<14}{moment.service:<26}{moment.text}")
