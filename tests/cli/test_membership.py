"""A node joins, is drained and is forgotten: what the commands do with what the APIs say."""

from pathlib import Path
from typing import Any

import pytest

from cumulet.cli import membership
from cumulet.cli.cloud import Cloud, Json
from cumulet.core.config import Config
from cumulet.core.errors import BadRequest, Unavailable
from cumulet.core.secrets import ensure

TOKEN = "0" * 32 + "." + "f" * 64


class Apis(Cloud):
    """The answers of nova and neutron for two network nodes and a compute node with a server."""

    def __init__(self, place: Path) -> None:
        ensure(place)
        super().__init__(Config(etc_dir=str(place)))
        self.services: list[Json] = [
            {"id": "s1", "host": "h1", "binary": "nova-compute", "status": "enabled", "state": "up"},
            {"id": "s2", "host": "n1", "binary": "nova-scheduler", "status": "enabled", "state": "up"},
        ]
        self.agents: list[Json] = [
            {"id": f"{host}-{kind[0]}", "host": host, "agent_type": kind, "admin_state_up": True, "alive": True}
            for host in ("n1", "n2")
            for kind in ("DHCP agent", "L3 agent", "Metadata agent")
        ]
        self.served: dict[str, list[str]] = {"n1-D": ["net1"], "n1-L": ["router1"], "n2-D": [], "n2-L": []}
        self.servers: dict[str, list[Json]] = {"h1": [{"id": "vm1", "name": "first", "status": "ACTIVE"}]}

    def get(self, service: str, path: str) -> Json:
        place, _, query = path.partition("?")
        host = query.rpartition("host=")[2]
        if place == "/os-services":
            return {"services": [one for one in self.services if one["host"] == host]}
        if place == "/servers/detail":
            return {"servers": self.servers.get(host, [])}
        if place == "/v2.0/agents":
            return {"agents": self.agents}
        agent, collection = place.split("/")[-2:]
        key = {"dhcp-networks": "networks", "l3-routers": "routers"}[collection]
        return {key: [{"id": one} for one in self.served[agent]]}

    def put(self, service: str, path: str, body: Any) -> Json:
        key = path.split("/")[-1]
        for one in [*self.services, *self.agents]:
            if one["id"] == key:
                one.update(body.get("agent", body))
        return {}

    def delete(self, service: str, path: str) -> None:
        """Taken from the agent: the other one of its kind gets it."""
        agent, _, key = path.split("/")[-3:]
        self.served[agent].remove(key)
        self.served[agent.replace("n1", "n2")].append(key)

    def one(self, key: str) -> Json:
        return next(one for one in [*self.services, *self.agents] if one["id"] == key)


@pytest.fixture
def apis(tmp_path: Path) -> Apis:
    return Apis(tmp_path)


def test_a_drained_compute_node_takes_nothing_new_and_names_what_it_has(apis: Apis) -> None:
    assert membership.drained(apis, "h1") == ["server vm1  first  ACTIVE"]
    assert apis.one("s1")["status"] == "disabled"
    assert apis.one("s1")["disabled_reason"] == "drained"
    apis.servers.clear()
    assert membership.drained(apis, "h1") == []


def test_a_drained_network_node_gives_what_it_serves_to_the_other(apis: Apis) -> None:
    assert membership.drained(apis, "n1") == []
    assert (apis.served["n2-D"], apis.served["n2-L"]) == (["net1"], ["router1"])
    assert [apis.one(key)["admin_state_up"] for key in ("n1-D", "n1-L", "n1-M", "n2-L")] == [
        False, False, True, True,
    ]  # fmt: skip
    assert apis.one("s2")["status"] == "enabled"


@pytest.mark.parametrize("trouble", ["alive", "admin_state_up"])
def test_what_nobody_else_can_take_stays_and_is_named(apis: Apis, trouble: str) -> None:
    apis.one("n2-L")[trouble] = False
    assert membership.drained(apis, "n1") == ["router router1"]
    assert apis.served["n1-L"] == ["router1"]


@pytest.mark.parametrize(
    ("url", "token", "words"),
    [
        ("http://127.0.0.1:1", "x", "not a token of 'cumulet node token'"),
        ("10.0.0.1", TOKEN, "10.0.0.1 is not the URL of a controller"),
        ("ftp://10.0.0.1", TOKEN, "is not the URL of a controller"),
    ],
)
def test_what_is_wrong_with_a_wish_to_join_is_said(url: str, token: str, words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        membership.fetch(url, token)


def test_a_controller_that_does_not_answer_is_named() -> None:
    with pytest.raises(Unavailable, match="does not answer: Connection refused"):
        membership.fetch("http://127.0.0.1:1", TOKEN)
