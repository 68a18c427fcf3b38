"""``cumulet trace REQUEST-ID``: one timeline of what every service did for a request, from the logs and the rows.

A request id goes with a request through the services, into the rows that it changes, from there into what hosts
are told, and into every line that is logged on the way.  Logs of other nodes are on those nodes.
"""

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import sqlalchemy as sa

from cumulet.cli import happenings, logs, status, times
from cumulet.cli.database import reading
from cumulet.core import config as configuration
from cumulet.core.config import Config
from cumulet.core.db import Transaction
from cumulet.core.errors import Unavailable
from cumulet.core.log import clean
from cumulet.nova.tables import server_actions

REQUEST = re.compile(r"req-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Moment(msgspec.Struct):
    """``service``: who logged it, or ``row`` for what the database says."""

    time: str
    host: str
    service: str
    text: str


def main(options: argparse.Namespace) -> int:
    config = configuration.load(options.config)
    status.require_root("trace", "it reads logs and the database")
    if not REQUEST.fullmatch(options.request):
        sys.exit(f"{options.request[:80]!r} is no request id; every answer's X-Openstack-Request-Id is one")
    found = sorted(gather(config, options.request), key=lambda moment: moment.time)
    if options.json:
        print(msgspec.json.format(msgspec.json.encode(found), indent=1).decode())
    elif not found:
        sys.exit(f"nothing is known of {options.request} on this node")
    else:
        print("\n".join(line(moment) for moment in found))
    return 0


def gather(config: Config, request_id: str) -> Iterator[Moment]:
    for name in logs.NAMES:
        yield from logged(config.logs / f"{name}.log", config.node.name, request_id)
    try:
        with reading(config) as tx:
            yield from rows(tx, request_id)
    except Unavailable:
        return  # a node without the database has its logs


def logged(file: Path, host: str, request_id: str) -> Iterator[Moment]:
    """The lines of a service's log that belong to the request."""
    try:
        opened = file.open("rb")
    except FileNotFoundError:
        return
    wanted = request_id.encode()
    with opened:
        for raw in opened:
            record = logs.decode(raw.decode(errors="replace")) if wanted in raw else {}
            if record and (record.get("request_id") == request_id or request_id in record["message"]):
                level = "" if record["level"] == "INFO" else f"{record['level']} "
                yield Moment(record["time"], host, record["service"], f"{level}{record['message']}")


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
