"""The hints of ``POST /servers`` that choose hosts: beside other servers, apart from them, or near an address.

``check`` refuses what makes no sense when it is written; ``read_hints`` says what a hint means for the hosts that
there are now.  Other servers count if they are of the same project: nobody gets beside a stranger's server by
naming it.  The hint ``group`` is a server group's (``nova.server_groups``); any other is kept and means nothing.
"""

import re
from collections.abc import Iterable, Mapping
from ipaddress import ip_address, ip_network
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest
from cumulet.core.tables import agents
from cumulet.nova.scheduling import Hint
from cumulet.nova.server_wishes import UUID
from cumulet.nova.services import host_address
from cumulet.nova.tables import server_hosts, servers

SAME, DIFFERENT, NEAR, BLOCK = "same_host", "different_host", "build_near_host_ip", "cidr"
MOST_NAMED = 100
_LENGTH = re.compile(r"/[0-9a-f.:]{1,39}")
_PLACES = sa.select(servers.c.id, servers.c.project_id, server_hosts.c.host).join_from(servers, server_hosts)


def check(hints: Mapping[str, Any]) -> None:
    """BadRequest for a hint that no server and no host could fulfil."""
    for name in (SAME, DIFFERENT):
        named = _named(hints, name)
        if len(named) > MOST_NAMED or not all(isinstance(one, str) and UUID.fullmatch(one) for one in named):
            raise _bad(name, f"It is the id of a server, or a list of at most {MOST_NAMED} of them")
    if NEAR in hints:
        try:
            _block(hints)
        except ValueError as error:
            raise _bad(NEAR, f"With {BLOCK} it is no block of addresses: {str(error)[:300]}") from error
    elif BLOCK in hints and not (isinstance(hints[BLOCK], str) and _LENGTH.fullmatch(hints[BLOCK])):
        raise _bad(BLOCK, "It is the length of a prefix: /24")


def _bad(name: str, reason: str) -> BadRequest:
    return BadRequest(f"Invalid input for field/attribute {name}. {reason}", kind="ValidationError")


def _named(hints: Mapping[str, Any], name: str) -> list[Any]:
    value = hints.get(name, [])
    return value if isinstance(value, list) else [value]


def _block(hints: Mapping[str, Any]) -> Any:
    """The addresses that are near."""
    length = str(hints.get(BLOCK, "/24"))
    if not _LENGTH.fullmatch(length):
        raise ValueError(f"{length!r} is not the length of a prefix")
    return ip_network(f"{ip_address(str(hints[NEAR]))}{length}", strict=False)


def read_hints(tx: Transaction, rows: Iterable[Row[Any]]) -> dict[str, tuple[Hint, ...]]:
    """By server, for ``rows`` with ``id``, ``project_id`` and ``scheduler_hints``; no query if there are none."""
    hinted = [row for row in rows if {SAME, DIFFERENT, NEAR} & row.scheduler_hints.keys()]
    if not hinted:
        return {}
    named = {one for row in hinted for name in (SAME, DIFFERENT) for one in _named(row.scheduler_hints, name)}
    running = sa.and_(servers.c.id.in_(named), server_hosts.c.wanted == "run")
    where = {(row.id, row.project_id): row.host for row in (tx.all(_PLACES.where(running)) if named else ())}
    addresses = _addresses(tx) if any(NEAR in row.scheduler_hints for row in hinted) else {}
    return {row.id: tuple(_hints(row, where, addresses)) for row in hinted}


def _addresses(tx: Transaction) -> dict[str, str]:
    rows = tx.all(sa.select(agents.c.host, agents.c.details).where(agents.c.binary == "nova-compute"))
    return {row.host: host_address(row) for row in rows}


def _hints(row: Row[Any], where: Mapping[tuple[str, str], str], addresses: Mapping[str, str]) -> Iterable[Hint]:
    hints = row.scheduler_hints
    for name, inside in ((SAME, True), (DIFFERENT, False)):
        if named := _named(hints, name):
            places = (where.get((one, row.project_id)) for one in named)
            yield Hint(name, frozenset(host for host in places if host), inside=inside)
    if NEAR in hints:
        block = _block(hints)
        yield Hint(NEAR, frozenset(host for host, ip in addresses.items() if _inside(ip, block)))


def _inside(address: str, block: Any) -> bool:
    try:
        return ip_address(address) in block
    except ValueError:
        return False
