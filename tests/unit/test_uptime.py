"""A host's uptime in the words of uptime(1)."""

import re
from datetime import datetime
from pathlib import Path

import pytest

from cumulet.nova.compute.uptime import RECORD, USER_PROCESS, count_users, read_uptime, say

WORDS = re.compile(r"\s*(.+)\sup\s+(.+),\s+(.+)\susers?,\s+load average:\s(.+)")
"""How the openstack client takes it apart."""


@pytest.mark.parametrize(
    ("seconds", "users", "parts"),
    [
        (59, 0, ("17:37:14", "0 min", "0", "0.33, 0.36, 0.34")),
        (9180.7, 3, ("17:37:14", "2:33", "3", "0.33, 0.36, 0.34")),
        (86400, 1, ("17:37:14", "1 day, 0 min", "1", "0.33, 0.36, 0.34")),
        (93 * 86400 + 66300, 12, ("17:37:14", "93 days, 18:25", "12", "0.33, 0.36, 0.34")),
    ],
)
def test_words(seconds: float, users: int, parts: tuple[str, ...]) -> None:
    found = WORDS.fullmatch(say(datetime(2026, 1, 2, 17, 37, 14), seconds, users, (0.33, 0.36, 0.34)))
    assert found
    assert found.groups() == parts


def test_who_is_logged_in(tmp_path: Path) -> None:
    here = RECORD.pack(USER_PROCESS, 1, b"pts/0", b"0", b"root", b"")
    gone = RECORD.pack(8, 1, b"pts/1", b"1", b"", b"")
    assert count_users(here + gone + here + here[:100]) == 2
    file = tmp_path / "utmp"
    file.write_bytes(here)
    assert "  1 user,  load average: " in read_uptime(file)
    assert "  0 users,  load average: " in read_uptime(tmp_path / "none")
