"""What a server's other host means to the one that reads its intent (``nova.hosts``), while the server moves."""

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace
from sqlalchemy.engine import Row

from cumulet.core.secrets import sign
from cumulet.nova import live_moves, moves
from cumulet.nova.console_tokens import CONSOLE_PORT
from cumulet.nova.model import FETCHES, LIVE, Fetch, ServerIntent, Verb
from cumulet.nova.services import host_address
from cumulet.nova.shared_disks import sharing


def needs_hosts(row: Row[Any]) -> bool:
    """Whether ``add`` has to know where the other host is found."""
    return moves.is_arriving(row) or row.move_type == LIVE


def add(
    intent: ServerIntent, row: Row[Any], others: Sequence[Row[Any]], hosts: Mapping[str, Row[Any]], secret: str
) -> ServerIntent:
    """The intent, with what a server's other host means to this one."""
    if intent.absent:
        return intent
    if live_moves.is_receiving(row):
        return _receiving(intent, row, hosts, secret)
    if row.wanted == "keep":
        ticket = _files_ticket(row, secret) if row.move_uuid else ""
        return replace(intent, kept=True, ticket=ticket, verbs=())
    if row.move_type == LIVE and row.host == row.move_source:
        intent = _sending(intent, row, hosts, secret)
    held = any(not moves.is_quiet(other, other.seen_generation, other.seen_power) for other in others)
    if not moves.is_arriving(row):
        return replace(intent, held=True) if held else intent
    if row.move_type == LIVE:
        return replace(intent, held=held)
    if row.move_type == moves.EVACUATION and row.host in sharing(hosts, row.move_source):
        intent = replace(intent, heir_of=row.move_source)
    fetch = None
    if row.move_type in moves.ON_TRIAL:
        address = host_address(hosts.get(row.move_source))
        fetch = Fetch(row.move_source, address, CONSOLE_PORT, _files_ticket(row, secret))
        if not held and _fetches_first(row, hosts):
            return replace(intent, held=True, fetching=True, fetch=fetch, launched=False)
    return replace(intent, held=held, fetch=fetch, launched=False)


def _fetches_first(row: Row[Any], hosts: Mapping[str, Row[Any]]) -> bool:
    """Whether the disk is fetched before the host is let go on; a host of the version before does both at once."""
    host = hosts.get(row.host)
    return bool(row.move_held and row.move_ready_at is None and host and host.details.get(FETCHES))


def _receiving(intent: ServerIntent, row: Row[Any], hosts: Mapping[str, Row[Any]], secret: str) -> ServerIntent:
    """``kept`` is for a nova-compute that knows of no live migration: it starts nothing then."""
    fetch = Fetch(
        row.move_source, host_address(hosts.get(row.move_source)), CONSOLE_PORT, _files_ticket(row, secret)
    )
    changes = {"receiving": True, "kept": True, "fetch": fetch, "ticket": _guest_ticket(row, secret)}
    return replace(intent, verbs=(), launched=False, **changes)


def _sending(intent: ServerIntent, row: Row[Any], hosts: Mapping[str, Row[Any]], secret: str) -> ServerIntent:
    """The verb is withheld until the other host can receive it."""
    if row.move_destination is None:
        return replace(intent, verbs=_but_sending(intent))
    args = {
        "host": row.move_destination,
        "address": host_address(hosts.get(row.move_destination)),
        "port": CONSOLE_PORT,
        "ticket": _guest_ticket(row, secret),
        "force": row.move_wanted == "force",
        "abort": row.move_wanted == "abort",
    }
    orders = tuple(replace(verb, args=args) for verb in intent.verbs if verb.name == LIVE)
    verbs = (*_but_sending(intent), *(orders if row.move_ready_at else ()))
    return replace(intent, verbs=verbs, ticket=_files_ticket(row, secret))


def _but_sending(intent: ServerIntent) -> tuple[Verb, ...]:
    return tuple(verb for verb in intent.verbs if verb.name != LIVE)


def _guest_ticket(row: Row[Any], secret: str) -> str:
    """Proof of the host that a server leaves that its guest may come in where it goes to."""
    return sign(secret, f"guest:{row.move_uuid}:{row.move_source}:{row.move_destination}")


def _files_ticket(row: Row[Any], secret: str) -> str:
    """Proof that a server's files are for the host that it moves to; good as long as the move is not finished."""
    return sign(secret, f"files:{row.move_uuid}:{row.move_source}:{row.move_destination}")
