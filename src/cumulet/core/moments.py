"""What services on this node have logged of one request: for ``cumulet trace``, here or on a controller that asks.

Bounded: the newest part of each log, so many lines, and so much of each.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

LAST_BYTES = 64 << 20  # of each log
MOST, LONGEST = 1000, 500


class Moment(msgspec.Struct):
    """``service``: who logged it, or ``row`` for what the database says."""

    time: Annotated[str, Meta(max_length=64)]
    host: Annotated[str, Meta(max_length=255)]
    service: Annotated[str, Meta(max_length=255)]
    text: Annotated[str, Meta(max_length=LONGEST)]


Moments = Annotated[list[Moment], Meta(max_length=MOST)]


def gather(logs: Path, host: str, request_id: str) -> list[Moment]:
    """Of all services' logs here, the latest ones if there are too many."""
    found = [moment for file in sorted(logs.glob("*.log")) for moment in logged(file, host, request_id)]
    return sorted(found, key=lambda moment: moment.time)[-MOST:]


def logged(file: Path, host: str, request_id: str) -> Iterator[Moment]:
    """The lines of a service's log that belong to the request."""
    try:
        opened = file.open("rb")
    except (FileNotFoundError, PermissionError):
        return
    wanted = request_id.encode()
    with opened:
        opened.seek(max(0, file.stat().st_size - LAST_BYTES))
        for raw in opened:
            record = decode(raw) if wanted in raw else {}
            if record and (record.get("request_id") == request_id or request_id in str(record["message"])):
                level = "" if record["level"] == "INFO" else f"{record['level']} "
                text = f"{level}{record['message']}"[:LONGEST]
                yield Moment(str(record["time"]), host, str(record["service"]), text)


def decode(line: bytes | str) -> dict[str, Any]:
    """The record of a JSON line, empty for any other."""
    try:
        found = msgspec.json.decode(line)
    except (msgspec.DecodeError, ValueError):
        return {}
    return found if isinstance(found, dict) and {"time", "service", "level", "message"} <= found.keys() else {}
