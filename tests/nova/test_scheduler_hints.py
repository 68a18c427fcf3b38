"""Hints of POST /servers: beside other servers, apart from them, near an address."""

from typing import Any

import pytest

from cumulet.core import clock
from cumulet.core.heartbeat import Heartbeat, beat
from tests.nova.api_cloud import Cloud


@pytest.fixture
def cloud() -> Cloud:
    """Three hosts in two blocks of addresses."""
    cloud = Cloud()
    for host, address in (("h1", "192.0.2.1"), ("h2", "192.0.2.200"), ("h3", "198.51.100.1")):
        cloud.add_host(host)
        with cloud.db.transaction() as tx:
            beat(tx, "nova-compute", host, Heartbeat(clock.now(), {"inventory": {"address": address}}))
    return cloud


def ask(cloud: Cloud, who: str = "alice", zone: str = "", **hints: Any) -> tuple[int, Any]:
    server = {"name": "vm", "imageRef": cloud.image, "flavorRef": cloud.flavor, "networks": "none"}
    server |= {"availability_zone": zone} if zone else {}
    return cloud.call(who, "POST", "/servers", {"server": server, "os:scheduler_hints": hints})


def place(cloud: Cloud, who: str = "alice", zone: str = "", **hints: Any) -> tuple[str, str]:
    """A new server's id and its host; the filter that left none where there is none."""
    status, answer = ask(cloud, who, zone, **hints)
    assert status == 202, answer
    server_id = answer["server"]["id"]
    cloud.place()
    shown = cloud.show("admin", server_id)
    host = shown["OS-EXT-SRV-ATTR:host"]
    return server_id, host or shown["fault"]["message"].split("'")[-2]


def test_beside_and_apart(cloud: Cloud) -> None:
    first, home = place(cloud)
    assert {place(cloud, same_host=first)[1] for _ in range(3)} == {home}
    second, other = place(cloud, different_host=[first])
    assert other != home
    assert cloud.show("alice", second)["scheduler_hints"] == {"different_host": [first]}
    assert cloud.show("alice", first)["scheduler_hints"] == {}
    (third,) = {"h1", "h2", "h3"} - {home, other}
    assert place(cloud, different_host=[first, second])[1] == third
    assert place(cloud, same_host=[first, second])[1] in (home, other)
    assert place(cloud, same_host=[first], different_host=[second])[1] == home
    assert place(cloud, same_host=first, different_host=first)[1] == "different_host"


def test_only_servers_of_the_own_project_count(cloud: Cloud) -> None:
    first, home = place(cloud, "bob")
    assert place(cloud, same_host=first)[1] == "same_host"
    assert place(cloud, "admin", f"nova:{home}", different_host=first)[1] == home
    assert place(cloud, same_host="00000000-0000-0000-0000-000000000000")[1] == "same_host"


def test_near_an_address(cloud: Cloud) -> None:
    assert {place(cloud, build_near_host_ip="192.0.2.77")[1] for _ in range(4)} <= {"h1", "h2"}
    assert place(cloud, build_near_host_ip="192.0.2.77", cidr="/25")[1] == "h1"
    assert place(cloud, build_near_host_ip="198.51.100.9")[1] == "h3"
    assert place(cloud, build_near_host_ip="203.0.113.1")[1] == "build_near_host_ip"


def test_in_a_rehearsal(cloud: Cloud) -> None:
    first, home = place(cloud, "admin")
    body = {
        "server": {"name": "vm", "imageRef": cloud.image, "flavorRef": cloud.flavor, "networks": "none"},
        "os:scheduler_hints": {"different_host": first},
    }
    headers = {"X-Auth-Token": "admin", "OpenStack-API-Version": "compute 2.100", "X-Cumulet-Dry-Run": "1"}
    _, answer, _ = cloud.app.call("POST", "/v2.1/servers", body, headers)
    refused = {one["host"]: one["refused_by"] for one in answer["dry_run"]["servers"][0]["hosts"]}
    assert {host for host, by in refused.items() if by == "different_host"} == {home}


@pytest.mark.parametrize(
    "hints",
    [
        {"same_host": "not an id"},
        {"same_host": 7},
        {"different_host": ["00000000-0000-0000-0000-000000000000", None]},
        {"different_host": {"a": "b"}},
        {"build_near_host_ip": "nowhere"},
        {"build_near_host_ip": "192.0.2.1", "cidr": "/77"},
        {"build_near_host_ip": "192.0.2.1", "cidr": "24"},
        {"cidr": 24},
    ],
)
def test_nonsense(cloud: Cloud, hints: dict[str, Any]) -> None:
    assert ask(cloud, **hints)[0] == 400


def test_hints_that_mean_nothing_are_kept(cloud: Cloud) -> None:
    assert place(cloud, colour="red", query="[]", cidr="/24")[1] in ("h1", "h2", "h3")
