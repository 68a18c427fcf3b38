"""Signs of life: who runs where, since when, and which of its loops fail.

Controller services write their own row; agents tell their controller, which writes it.  Not part of a
reconcile pass: an idle pass writes nothing.
"""

import uuid
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
import sqlalchemy as sa

from cumulet.core import clock, tracing
from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest
from cumulet.core.http import Reply, Request, Route
from cumulet.core.policy import HOST
from cumulet.core.reconcile import LoopStatus
from cumulet.core.tables import agents

NAMESPACE = uuid.UUID("6f1d9a3e-52a5-4a4f-9c35-2d4a0f7d6d0b")


MOST_FAILING = 50  # keys of each loop that are told of


class Heartbeat(msgspec.Struct, forbid_unknown_fields=True):
    started_at: str
    details: dict[str, Any]
    loops: Annotated[list[LoopStatus], msgspec.Meta(max_length=20)] = []


class Wishes(msgspec.Struct):
    """What a host is asked for when it says that it lives, if anything."""

    traces: list[str] = []  # ids of requests of which it is to tell (``core.tracing``)


def agent_id(binary: str, host: str) -> str:
    return str(uuid.uuid5(NAMESPACE, f"{binary}@{host}"))


def beat(tx: Transaction, binary: str, host: str, heartbeat: Heartbeat) -> None:
    """Write that ``binary`` on ``host`` is alive."""
    now = clock.now()
    loops = msgspec.to_builtins(heartbeat.loops)
    seen = {"seen_at": now, "started_at": heartbeat.started_at, "details": heartbeat.details, "loops": loops}
    key = agent_id(binary, host)
    if not tx.write(_BEAT, {"key": key, **seen}):
        tx.write(agents.insert(), {"id": key, "binary": binary, "host": host, "created_at": now, **seen})


_BEAT = (
    sa.update(agents)
    .where(agents.c.id == sa.bindparam("key"))
    .values({name: sa.bindparam(name) for name in ("seen_at", "started_at", "details", "loops")})
)
"""Made once: most of what an idle cloud does is to say so."""


def route(binaries: frozenset[str], check: Callable[[dict[str, Any]], object] = dict) -> Route:
    """Where the agents of a controller report that they live.

    ``check`` raises BadRequest for details that are not what the controller's other parts read in them: a host that
    lies must not break the views of those that do not.
    """

    def report(request: Request) -> Reply | None:
        if request.params["binary"] not in binaries:
            return None
        check_time(request.body.started_at)
        check(request.body.details)
        with request.db.transaction() as tx:
            beat(tx, request.params["binary"], request.params["host"], request.body)
            wanted = tracing.wishes(tx, request.params["host"])
        return Reply(Wishes(wanted), 200) if wanted else None

    return Route("POST", "/hosts/{host}/heartbeat/{binary}", report, HOST, 204, body=Heartbeat, also=(200,))


def check_time(text: str) -> None:
    try:
        good = text == clock.text(clock.parse(text))
    except (ValueError, OverflowError):
        good = False
    if not good:
        raise BadRequest(f"not a time: {text[:100]!r}")
