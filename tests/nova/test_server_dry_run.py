"""POST /servers with X-Cumulet-Dry-Run: says where a server would go and why, and writes nothing."""

from typing import Any

import pytest
import sqlalchemy as sa

from cumulet.core.tables import metadata
from tests.nova.api_cloud import Cloud

HEADER = "X-Cumulet-Dry-Run"


@pytest.fixture
def cloud() -> Cloud:
    cloud = Cloud()
    cloud.add_host("h1", vcpus=1)
    cloud.add_host("h2", vcpus=2)
    return cloud


def content(cloud: Cloud) -> dict[str, list[Any]]:
    with cloud.db.read() as tx:
        return {name: [tuple(row) for row in tx.all(sa.select(one))] for name, one in metadata.tables.items()}


def rehearse(cloud: Cloud, who: str = "alice", word: str = "1", hints: Any = None, **wish: Any) -> tuple[int, Any]:
    server = {"name": "vm", "imageRef": cloud.image, "flavorRef": cloud.flavor, "networks": "none", **wish}
    body = {"server": server} | ({"os:scheduler_hints": hints} if hints else {})
    headers = {"X-Auth-Token": who, "OpenStack-API-Version": "compute 2.100", HEADER: word}
    before = content(cloud)
    cloud.hints.clear()
    status, answer, _ = cloud.app.call("POST", "/v2.1/servers", body, headers)
    assert content(cloud) == before, "nothing at all is written"
    assert cloud.hints == []
    return status, answer


def test_where_and_why(cloud: Cloud) -> None:
    network = cloud.network()
    status, answer = rehearse(cloud, "admin", networks=[{"uuid": network}], max_count=4)
    assert status == 200
    servers = answer["dry_run"]["servers"]
    assert [one["host"] for one in servers] == ["h1", "h2", "h2", None]
    first, last = servers[0], servers[3]
    assert first["claim"] == {"VCPU": 1, "MEMORY_MB": 512, "DISK_GB": 1}
    assert first["fault"] is None
    assert [(one["host"], one["refused_by"], one["weight"]) for one in first["hosts"]] == [
        ("h1", None, 1000000),
        ("h2", None, 1000000),
    ]
    assert servers[1]["hosts"][0]["refused_by"] == "vcpus (needs 1)"
    assert last["fault"].endswith("0 left after 'vcpus' (needs 1)")
    assert last["claim"] == {}
    addresses = {one["ports"][0]["fixed_ips"][0] for one in servers}
    assert len(addresses) == 4
    assert {one["ports"][0]["network_id"] for one in servers} == {network}


def test_what_would_be_is_what_comes(cloud: Cloud) -> None:
    _, answer = rehearse(cloud, "admin")
    server = cloud.create("admin")
    cloud.place()
    assert cloud.show("admin", server)["OS-EXT-SRV-ATTR:host"] in ("h1", "h2")
    assert cloud.show("admin", server)["hostId"] in {
        one["hostId"] for one in answer["dry_run"]["servers"][0]["hosts"]
    }


def test_zones_and_groups(cloud: Cloud) -> None:
    (server,) = rehearse(cloud, "admin", availability_zone="nova:h2")[1]["dry_run"]["servers"]
    assert (server["host"], server["hosts"][0]["refused_by"]) == ("h2", "host (h2)")
    wish = {"server_group": {"name": "g", "policy": "anti-affinity"}}
    group = cloud.good("admin", "POST", "/os-server-groups", wish)["server_group"]["id"]
    servers = rehearse(cloud, "admin", hints={"group": group}, max_count=3)[1]["dry_run"]["servers"]
    assert sorted(str(one["host"]) for one in servers) == ["None", "h1", "h2"]
    assert servers[2]["hosts"][0]["refused_by"] == "server_group (anti-affinity)"


def test_users_do_not_see_hosts(cloud: Cloud) -> None:
    (server,) = rehearse(cloud, "alice")[1]["dry_run"]["servers"]
    assert "host" not in server
    assert server["hostId"] == server["hosts"][0]["hostId"]
    assert set(server["hosts"][0]) == {"hostId", "refused_by"}


def test_what_a_real_one_refuses(cloud: Cloud) -> None:
    assert rehearse(cloud, "rita")[0] == 403
    assert rehearse(cloud, "alice", flavorRef="nope")[0] == 400
    assert rehearse(cloud, "alice", min_count=11)[0] == 403, "the quota"
    assert rehearse(cloud, "alice", word="perhaps")[0] == 400


def test_no_is_no_dry_run(cloud: Cloud) -> None:
    server = {"name": "vm", "imageRef": cloud.image, "flavorRef": cloud.flavor, "networks": "none"}
    headers = {"X-Auth-Token": "alice", "OpenStack-API-Version": "compute 2.100", HEADER: "0"}
    status, answer, _ = cloud.app.call("POST", "/v2.1/servers", {"server": server}, headers)
    assert (status, set(answer)) == (202, {"server"})
