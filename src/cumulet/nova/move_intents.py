"""What a server's other host means to the one that reads its intent (``nova.hosts``), while the server moves."""

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace
from sqlalchemy.engine import Row

from cumulet.core.secrets import sign
from cumulet.nova import moves
from cumulet.nova.console_tokens import CONSOLE_PORT
from cumulet.nova.model import Fetch, ServerIntent
from cumulet.nova.services import host_address


def add(
    intent: ServerIntent, row: Row[Any], others: Sequence[Row[Any]], hosts: Mapping[str, Row[Any]], secret: str
) -> ServerIntent:
    """The intent, with what a server's other host means to this one."""
    if intent.absent:
        return intent
    if row.wanted == "keep":
        ticket = _files_ticket(row, secret) if row.move_uuid else ""
        return replace(intent, kept=True, ticket=ticket, verbs=())
    held = any(not moves.is_quiet(other, other.seen_generation, other.seen_power) for other in others)
    if not moves.is_arriving(row):
        return replace(intent, held=True) if held else intent
    fetch = None
    if row.move_type in moves.ON_TRIAL:
        address = host_address(hosts.get(row.move_source))
        fetch = Fetch(row.move_source, address, CONSOLE_PORT, _files_ticket(row, secret))
    return replace(intent, held=held, fetch=fetch, launched=False)


def _files_ticket(row: Row[Any], secret: str) -> str:
    """Proof that a server's files are for the host that it moves to; good as long as the move is not finished."""
    return sign(secret, f"files:{row.move_uuid}:{row.move_source}:{row.move_destination}")
