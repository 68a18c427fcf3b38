"""A request is traced over all nodes: who asks leaves a row, hosts find it at their next sign of life and answer.

The row is the order, as everywhere: nobody calls a host, one that was away answers when it is back, and what came
too late is there for the next who asks.  After an hour all of it is forgotten.
"""

from collections.abc import Sequence

import msgspec
import sqlalchemy as sa

from cumulet.core import clock
from cumulet.core.db import Transaction
from cumulet.core.errors import Conflict
from cumulet.core.http import Request, Route
from cumulet.core.moments import Moment, Moments
from cumulet.core.policy import HOST
from cumulet.core.tables import trace_answers, traces

KEPT_SECONDS = 3600
_MINE = (trace_answers.c.request_id == traces.c.request_id) & (trace_answers.c.host == sa.bindparam("host"))
_WISHES = sa.select(traces.c.request_id).where(~sa.exists().where(_MINE)).order_by(traces.c.asked_at).limit(10)


def order(tx: Transaction, request_id: str) -> None:
    """Have all hosts say what they know of it; those that have said it before are asked again."""
    forget(tx)
    tx.write(sa.delete(trace_answers).where(trace_answers.c.request_id == request_id))
    tx.write(sa.delete(traces).where(traces.c.request_id == request_id))
    tx.write(traces.insert(), {"request_id": request_id, "asked_at": clock.now()})


def wishes(tx: Transaction, host: str) -> list[str]:
    """The requests that ``host`` has yet to tell of."""
    return [row.request_id for row in tx.all(_WISHES, {"host": host})]


def answer(tx: Transaction, host: str, request_id: str, moments: Sequence[Moment]) -> None:
    """What ``host`` knows.  Of several of its agents the first one counts, and nobody asked for what is unknown."""
    if request_id not in wishes(tx, host):
        return
    told = [{**msgspec.to_builtins(moment), "host": host} for moment in moments]
    row = {"request_id": request_id, "host": host, "answered_at": clock.now(), "moments": told}
    tx.write(trace_answers.insert(), row)


def read(tx: Transaction, request_id: str) -> dict[str, list[Moment]]:
    """What each host has answered so far."""
    rows = tx.all(sa.select(trace_answers).where(trace_answers.c.request_id == request_id))
    return {row.host: msgspec.convert(row.moments, list[Moment]) for row in rows}


def forget(tx: Transaction) -> None:
    old = sa.select(traces.c.request_id).where(traces.c.asked_at < clock.later(-KEPT_SECONDS))
    for row in tx.all(old):
        tx.write(sa.delete(trace_answers).where(trace_answers.c.request_id == row.request_id))
        tx.write(sa.delete(traces).where(traces.c.request_id == row.request_id))


def report(request: Request) -> None:
    try:
        with request.db.transaction() as tx:
            answer(tx, request.params["host"], request.params["request_id"], request.body)
    except Conflict:
        return  # another agent of the host was quicker


ROUTE = Route("POST", "/hosts/{host}/traces/{request_id}", report, HOST, 204, body=Moments)
