"""Time as the database keeps it: UTC text of fixed width, so that order of text is order of time."""

from datetime import UTC, datetime, timedelta

LENGTH = 27  # 2026-11-22T13:08:40.123456Z


def now() -> str:
    """The present, e.g. ``2026-11-22T13:08:40.123456Z``."""
    return text(datetime.now(UTC))


def text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds")[: LENGTH - 1] + "Z"  # strftime is slow


def parse(value: str) -> datetime:
    """Read what ``text`` wrote, or any ISO 8601 time; raises ValueError."""
    moment = datetime.fromisoformat(value)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def later(seconds: float, since: str | None = None) -> str:
    """``seconds`` after ``since`` (default: now); negative for earlier."""
    start = parse(since) if since else datetime.now(UTC)
    return text(start + timedelta(seconds=seconds))


def short(value: str) -> str:
    """Without the fraction: ``2026-11-22T13:08:40Z``, the form of nova, neutron and glance."""
    return value[:19] + "Z"
