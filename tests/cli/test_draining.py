"""A node's servers are moved away: what is ordered of whom, in what order, and who stays."""

from pathlib import Path
from typing import Any

import pytest

from cumulet.cli.cloud import Cloud, Json, Refused
from cumulet.cli.draining import COLD, HOST, LIVE, TOGETHER, move_servers
from cumulet.core.config import Config
from cumulet.core.secrets import ensure

KINDS = {"os-migrateLive": LIVE, "migrate": COLD, "confirmResize": "confirm"}


class Nova(Cloud):
    """Servers that take two looks to move.  ``refuses``: by server the orders that it does not take."""

    def __init__(self, place: Path, **servers: str) -> None:
        ensure(place)
        super().__init__(Config(etc_dir=str(place)))
        self.servers = {name: _server(name, status) for name, status in servers.items()}
        self.refuses: dict[str, tuple[str, ...]] = {}
        self.fails: set[str] = set()
        self.orders: list[tuple[str, str]] = []
        self.looks: dict[str, int] = {}
        self.most = 0

    def get(self, service: str, path: str) -> Json:
        place, _, query = path.partition("?")
        if place == "/servers/detail":
            self.most = max(
                self.most, sum(one["status"] in ("MIGRATING", "RESIZE") for one in self.servers.values())
            )
            host = query.rpartition("host=")[2]
            return {"servers": [dict(one) for one in self.servers.values() if one[HOST] == host]}
        name = place.rpartition("/")[2]
        if name not in self.servers:
            raise Refused(404, "no such server")
        self._go_on(self.servers[name])
        return {"server": self.servers[name]}

    def post(self, service: str, path: str, body: Any) -> Json:
        name, kind = path.split("/")[2], KINDS[next(iter(body))]
        if kind in self.refuses.get(name, ()):
            raise Refused(409, f"cannot {kind}")
        self.orders.append((name, kind))
        one = self.servers[name]
        one["before"] = one["status"] if kind != "confirm" else one["before"]
        one["status"] = {LIVE: "MIGRATING", COLD: "RESIZE", "confirm": one["before"]}[kind]
        return {}

    def _go_on(self, one: Json) -> None:
        self.looks[one["name"]] = self.looks.get(one["name"], 0) + 1
        if one["status"] not in ("MIGRATING", "RESIZE") or self.looks[one["name"]] < 2:
            return
        if one["name"] in self.fails:
            one["status"] = one["before"]
            return
        one[HOST] = "h2"
        one["status"] = "VERIFY_RESIZE" if one["status"] == "RESIZE" else one["before"]


def _server(name: str, status: str) -> Json:
    return {"id": name, "name": name, "status": status, "before": "ACTIVE", HOST: "h1"}


def drain(nova: Nova, cold: bool = False) -> dict[str, str]:
    return move_servers(nova, "h1", cold, lambda line: None, lambda seconds: None)


def test_each_moves_as_it_is_and_a_few_at_a_time(tmp_path: Path) -> None:
    nova = Nova(tmp_path, a="ACTIVE", b="SHUTOFF", c="PAUSED", d="ACTIVE", e="ACTIVE")
    assert drain(nova) == {}
    assert {one[HOST] for one in nova.servers.values()} == {"h2"}
    assert sorted(nova.orders) == [
        ("a", LIVE),
        ("b", COLD),
        ("b", "confirm"),
        ("c", LIVE),
        ("d", LIVE),
        ("e", LIVE),
    ]
    assert nova.servers["b"]["status"] == "SHUTOFF"
    assert nova.most == TOGETHER


@pytest.mark.parametrize(("cold", "left"), [(False, {"a": "cannot live"}), (True, {})])
def test_who_cannot_be_moved_live_stays_unless_told_otherwise(tmp_path: Path, cold: bool, left: Any) -> None:
    nova = Nova(tmp_path, a="ACTIVE", b="ACTIVE")
    nova.refuses["a"] = (LIVE,)
    assert drain(nova, cold) == left
    assert nova.servers["b"][HOST] == "h2"
    assert nova.servers["a"][HOST] == ("h2" if cold else "h1")


def test_a_move_that_comes_to_nothing_is_told_and_not_tried_for_ever(tmp_path: Path) -> None:
    nova = Nova(tmp_path, a="ACTIVE", b="ERROR")
    nova.fails.add("a")
    nova.refuses["b"] = (COLD,)
    stays = drain(nova)
    assert stays["b"] == "cannot cold"
    assert stays["a"].startswith("its move has come to nothing")


def test_moves_that_are_under_way_are_waited_for(tmp_path: Path) -> None:
    nova = Nova(tmp_path, a="MIGRATING")
    assert drain(nova) == {}
    assert nova.orders == []
    assert nova.servers["a"][HOST] == "h2"
