"""Moments as people read them."""

from datetime import UTC, datetime, timedelta

import pytest

from cumulet.cli import times
from cumulet.core import clock

NOW = datetime(2026, 11, 22, 14, 8, 36, tzinfo=UTC)


def ago(**past: float) -> str:
    return clock.text(NOW - timedelta(**past))


@pytest.mark.parametrize(
    ("past", "age"),
    [
        ({"seconds": 0}, "0 s"),
        ({"seconds": 119}, "119 s"),
        ({"minutes": 3}, "3 min"),
        ({"minutes": 119}, "119 min"),
        ({"hours": 30}, "30 h"),
        ({"days": 5}, "5 d"),
        ({"seconds": -5}, "0 s"),
    ],
)
def test_ages(past: dict[str, float], age: str) -> None:
    assert times.age(ago(**past), NOW) == age


def test_the_date_is_told_when_it_is_another_day() -> None:
    today, yesterday = times.at(ago(minutes=3), NOW), times.at(ago(days=2), NOW)
    assert today.endswith(" (3 min ago)")
    assert len(today.split()[0]) == len("14:05:36")
    assert yesterday.startswith("2026-11-")
    assert times.short(ago(seconds=0), 3, NOW).endswith(":36.000")
