"""``cumulet audit THING``: who changed what of a thing, and with ``--at`` what it was at that time.

Told from the notifications of the last week; a thing may be gone long since.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from cumulet.cli import happenings, status, times
from cumulet.cli.database import reading
from cumulet.cli.happenings import Event
from cumulet.core import clock
from cumulet.core import config as configuration
from cumulet.core.errors import BadRequest
from cumulet.core.log import clean

Json = dict[str, Any]
OWN = frozenset({"updated_at", "revision_number", "eventTime", "message"})
"""Fields that change with every change."""


class Change(msgspec.Struct):
    """``fields``: from, to; of the first time that a thing is told of, nothing is known before."""

    time: str
    type: str
    user_id: str
    project_id: str
    request_id: str
    fields: dict[str, tuple[Any, Any]]


def main(options: argparse.Namespace) -> int:
    config = configuration.load(options.config)
    status.require_root("audit", "it reads the database")
    at = _moment(options.at) if options.at else ""
    with reading(config) as tx:
        events = list(happenings.about(tx, options.thing))
    if not events:
        sys.exit(f"nothing was told of {options.thing!r} in the last week")
    found = state_at(events, at) if at else list(changes(events))
    if options.json:
        print(msgspec.json.format(msgspec.json.encode(found), indent=1).decode())
    elif at:
        print(_state_text(options.thing, at, state_at(events, at)))
    else:
        print("\n".join(text(change) for change in changes(events)))
    return 0


def changes(events: Sequence[Event]) -> Iterator[Change]:
    """What each event changed against what was known before it."""
    known: dict[str, Json] = {}
    for event in events:
        before = known.get(event.thing, {})
        after = event.state if event.state is not None else {}
        fields = {key: (before.get(key), value) for key, value in after.items() if _changed(before, key, value)}
        known[event.thing] = {**before, **after} if event.state is not None else {}
        yield Change(event.time, event.type, event.user_id, event.project_id, event.request_id, fields)


def state_at(events: Sequence[Event], at: str) -> Json | None:
    """All that was told of it until then; None if it was not there."""
    known: Json | None = None
    for event in events:
        if event.time <= at:
            known = None if event.state is None else {**(known or {}), **event.state}
    return known


def text(change: Change) -> str:
    who = f"user {change.user_id or '-'} project {change.project_id or '-'}"
    head = f"{times.short(change.time)}  {change.type}  by {who}  [{change.request_id}]"
    lines = [
        f"    {key}: {_shown(old)} -> {_shown(new)}" for key, (old, new) in change.fields.items() if old is not None
    ]
    return "\n".join(clean(line) for line in (head, *lines))


def _changed(before: Json, key: str, value: Any) -> bool:
    return key not in OWN and (key not in before or before[key] != value)


def _state_text(thing: str, at: str, state: Json | None) -> str:
    if state is None:
        return f"{thing} was not there at {times.short(at)}"
    return "\n".join(clean(f"{key}: {_shown(value)}") for key, value in state.items())


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _moment(given: str) -> str:
    """A time as the database writes it; without a zone it is meant by this machine's clock."""
    from datetime import datetime

    try:
        return clock.text(datetime.fromisoformat(given).astimezone())
    except (ValueError, OverflowError):
        raise BadRequest(f"not a time: {given[:60]!r}; such as 2026-11-22T14:08:36") from None
