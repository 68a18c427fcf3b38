"""Moments and ages as people read them: the clock on this machine's wall, and how long ago that was."""

from datetime import UTC, datetime

from cumulet.core import clock

UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def short(moment: str, digits: int = 0, now: datetime | None = None) -> str:
    """``14:08:36``, with the date in front if that is another day; ``digits`` of the second's fraction."""
    there = clock.parse(moment).astimezone()
    today = (now or datetime.now(UTC)).astimezone().date()
    text = there.strftime("%H:%M:%S") + (f".{there.microsecond:06}"[: digits + 1] if digits else "")
    return text if there.date() == today else f"{there:%Y-%m-%d} {text}"


def age(moment: str, now: datetime | None = None) -> str:
    """``3 min`` since then; the largest unit of which there are at least two (``90 s``, ``30 h``)."""
    seconds = max(0, int(((now or datetime.now(UTC)) - clock.parse(moment)).total_seconds()))
    size, unit = next((one for one in UNITS if seconds >= 2 * one[0]), UNITS[-1])
    return f"{seconds // size} {unit}"


def at(moment: str, now: datetime | None = None) -> str:
    """``14:08:36 (3 min ago)``."""
    return f"{short(moment, now=now)} ({age(moment, now)} ago)"
