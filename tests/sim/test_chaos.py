"""The campaign finds nothing in a cloud that is right, is the same each time, and sees what is wrong.

Each in a process of its own, as an operator runs it: the order of sets, and what a process remembers by id, would
make it another campaign each time.
"""

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from cumulet.sim.chaos import Campaign
from cumulet.sim.report import Report


def campaign(seed: int, rounds: int) -> Report:
    words = ["chaos", "--sim", "--rounds", str(rounds), "--seed", str(seed), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "cumulet.cli.main", *words], capture_output=True, text=True, check=False
    )
    report = msgspec.json.decode(done.stdout, type=Report)
    assert done.returncode == (1 if report.problems else 0)
    return report


@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_is_stuck_leaked_or_lost(seed: int) -> None:
    report = campaign(seed, 25)
    assert report.problems == []
    assert (report.stuck, report.leaked, report.lost) == (0, 0, 0)
    assert report.rounds == 25
    assert report.deaths > 5
    assert report.slowest_recovery_s > 0


def test_the_same_seed_is_the_same_campaign() -> None:
    assert campaign(3, 6) == campaign(3, 6)


def test_what_is_wrong_is_seen(tmp_path: Path) -> None:
    """A server that nobody promised, a tap that nobody has, a promised server that is gone with its disk."""
    game = Campaign(tmp_path, 4)
    game.world.create_server("stranger")
    game.world.settle()
    game.world.hosts["h1"].hypervisor.taps["nobody's"] = "nobody"
    game.users.promises.servers["never-made"] = "ACTIVE"
    game._written["never-made"] = 2
    found = game._problems()
    wanted_ones = (
        "stuck: server",
        "leaked: tap nobody's on h1",
        "leaked: machine",
        "lost: server never-made",
        "lost: writes of server never-made",
    )
    for wanted in wanted_ones:
        assert any(problem.startswith(wanted) for problem in found), (wanted, found)
