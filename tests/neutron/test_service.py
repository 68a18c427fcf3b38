"""neutron-server as a whole: discovery, extensions, agents, zones, quotas, tags, races."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from cumulet.core.errors import Retry
from cumulet.neutron import addresses, port_rows
from cumulet.neutron.policies import DEFAULTS
from cumulet.neutron.port_rows import NewPort
from cumulet.neutron.tables import networks
from tests import databases
from tests.neutron.conftest import Cloud


def test_discovery(cloud: Cloud) -> None:
    version = cloud.get("nobody", "/")["versions"][0]
    assert (version["id"], version["status"]) == ("v2.0", "CURRENT")
    assert version["links"] == [{"href": "http://127.0.0.1:9696/v2.0/", "rel": "self"}]
    found = {resource["collection"]: resource for resource in cloud.get("nobody", "/v2.0/")["resources"]}
    assert {"networks", "subnets", "ports", "routers", "floatingips", "security_groups", "extensions"} <= set(found)
    assert found["networks"]["name"] == "network"
    assert cloud.app.call("GET", "/healthcheck")[:2] == (200, b"OK")


def test_errors_have_neutrons_form(cloud: Cloud) -> None:
    status, answer = cloud.call("nobody", "GET", "/networks")
    assert (status, answer["error"]["code"]) == (401, 401)
    status, answer = cloud.call("alice", "GET", "/nothing")
    assert status == 404
    assert answer == {
        "NeutronError": {"type": "HTTPNotFound", "message": "The resource could not be found.", "detail": ""}
    }
    assert cloud.refused("alice", "PATCH", "/networks") == (405, "HTTPMethodNotAllowed")
    assert cloud.refused("alice", "POST", "/networks", b"{")[1] == "HTTPBadRequest"


def test_extensions(cloud: Cloud) -> None:
    aliases = {extension["alias"] for extension in cloud.get("alice", "/extensions")["extensions"]}
    assert {"router", "security-group", "external-net", "quotas", "binding", "provider", "agent"} <= aliases
    assert cloud.get("alice", "/extensions/router")["extension"]["alias"] == "router"
    for missing in (
        "external-gateway-multihoming",
        "Availability%20Zone",
        "trunk",
    ):
        assert missing not in aliases
        assert cloud.refused("alice", "GET", f"/extensions/{missing}")[0] == 404


def test_every_rule_of_a_route_exists(cloud: Cloud) -> None:
    for route in cloud.app.routes:
        assert route.policy in DEFAULTS or route.policy in ("public", "authenticated", "host"), route.path


def test_agents_and_zones(cloud: Cloud) -> None:
    cloud.alive("net1", "neutron-dhcp-agent", "neutron-openvswitch-agent", tunnel="192.0.2.1")
    assert cloud.get("alice", "/agents") == {"agents": []}, "not for her eyes"
    agents = cloud.get("admin", "/agents")["agents"]
    assert {agent["agent_type"] for agent in agents} == {"DHCP agent", "Open vSwitch agent"}
    agent = next(agent for agent in agents if agent["agent_type"] == "Open vSwitch agent")
    assert (agent["alive"], agent["admin_state_up"], agent["host"]) == (True, True, "net1")
    assert agent["configurations"] == {"tunnel_address": "192.0.2.1"}
    assert cloud.get("admin", f"/agents/{agent['id']}")["agent"] == agent
    assert len(cloud.get("admin", "/agents?alive=True&host=net1")["agents"]) == 2
    assert cloud.get("admin", "/agents?alive=False")["agents"] == []
    assert cloud.update("admin", "agent", agent["id"], admin_state_up=False)["admin_state_up"] is False
    cloud.good("admin", "DELETE", f"/agents/{agent['id']}")
    assert cloud.refused("admin", "GET", f"/agents/{agent['id']}") == (404, "AgentNotFound")
    zones = cloud.get("alice", "/availability_zones")["availability_zones"]
    assert {zone["resource"] for zone in zones} == {"network", "router"}
    network, _ = cloud.network(availability_zone_hints=["nova"])
    seen = cloud.get("alice", f"/networks/{network}")["network"]
    assert (seen["availability_zone_hints"], seen["availability_zones"]) == (["nova"], ["nova"])


def test_quotas(cloud: Cloud) -> None:
    assert cloud.get("alice", "/quotas/red")["quota"]["port"] == 500
    assert cloud.get("alice", "/quotas/red/default")["quota"]["router"] == 10
    assert cloud.refused("alice", "GET", "/quotas/blue")[0] == 403
    assert cloud.refused("alice", "PUT", "/quotas/red", {"quota": {"port": -1}})[0] == 403
    assert cloud.refused("alice", "GET", "/quotas")[0] == 403
    for wrong in ({"port": -2}, {"port": "many"}, {"ports": 1}):
        assert cloud.refused("admin", "PUT", "/quotas/red", {"quota": wrong})[0] == 400
    cloud.network()
    few = {"network": 0, "check_limit": True}
    assert cloud.refused("admin", "PUT", "/quotas/red", {"quota": few})[0] == 400
    assert cloud.good("admin", "PUT", "/quotas/red", {"quota": few | {"force": True}})["quota"]["network"] == 0
    some = {"network": 1, "check_limit": True}
    assert cloud.good("admin", "PUT", "/quotas/red", {"quota": some})["quota"]["network"] == 1
    assert cloud.good("admin", "PUT", "/quotas/red", {"quota": {"network": 7}})["quota"]["network"] == 7
    assert cloud.good("admin", "PUT", "/quotas/red", {"quota": {"network": 7}})["quota"]["network"] == 7
    details = cloud.get("alice", "/quotas/red/details")["quota"]
    assert details["network"] == {"limit": 7, "used": 1, "reserved": 0}
    assert cloud.get("alice", "/quotas/red/details.json")["quota"] == details
    assert cloud.get("admin", "/quotas")["quotas"][0]["project_id"] == "red"
    cloud.good("admin", "DELETE", "/quotas/red")
    assert cloud.get("alice", "/quotas/red")["quota"]["network"] == 100


def test_tags(cloud: Cloud) -> None:
    network, subnet = cloud.network()
    port = cloud.create("alice", "port", network_id=network)["id"]
    router = cloud.create("alice", "router")["id"]
    group = cloud.create("alice", "security_group", name="g")["id"]
    for url in (
        f"/networks/{network}",
        f"/subnets/{subnet}",
        f"/ports/{port}",
        f"/routers/{router}",
        f"/security-groups/{group}",
    ):
        assert cloud.good("alice", "PUT", f"{url}/tags", {"tags": ["red", "blue", "red"]})["tags"] == [
            "blue",
            "red",
        ]
        cloud.good("alice", "PUT", f"{url}/tags/green")
        cloud.good("alice", "GET", f"{url}/tags/green")
        assert cloud.refused("alice", "GET", f"{url}/tags/gree") == (404, "TagNotFound")
        cloud.good("alice", "DELETE", f"{url}/tags/blue")
        assert cloud.get("alice", f"{url}/tags") == {"tags": ["green", "red"]}
        assert cloud.refused("bob", "GET", f"{url}/tags")[0] == 404
        assert cloud.refused("rita", "PUT", f"{url}/tags", {"tags": []})[0] == 403
    for query, found in {
        "tags=green": 1,
        "tags=green,red": 1,
        "tags=green,blue": 0,
        "tags-any=green,blue": 1,
        "not-tags=green": 0,
        "not-tags-any=blue": 1,
        "tags=gree": 0,
    }.items():
        assert len(cloud.get("alice", f"/networks?{query}")["networks"]) == found, query
    cloud.good("alice", "DELETE", f"/networks/{network}/tags")
    assert cloud.get("alice", f"/networks/{network}")["network"]["tags"] == []
    for wrong in (["x" * 256], [""], ["a,b"], [str(n) for n in range(51)], "abc"):
        assert cloud.refused("alice", "PUT", f"/networks/{network}/tags", {"tags": wrong})[0] == 400, wrong
    assert cloud.refused("alice", "GET", "/quotas/red/tags")[0] == 404
    public, _ = cloud.public_network()
    assert cloud.get("bob", f"/networks/{public}/tags") == {"tags": []}
    assert cloud.refused("bob", "PUT", f"/networks/{public}/tags", {"tags": ["mine"]})[0] == 403


def test_of_two_that_choose_the_same_address_one_chooses_again(cloud: Cloud) -> None:
    key, _ = cloud.network()
    with pytest.raises(Retry), cloud.db.transaction() as tx:
        network = tx.find(sa.select(networks).where(networks.c.id == key))
        assert network is not None
        chosen = addresses.choose(tx, key, addresses.subnets_of(tx, key), "fa:16:3e:00:00:01", None)
        loser = port_rows.create_port_row(tx, NewPort(network, "red", wishes=[]))
        winner = port_rows.create_port_row(tx, NewPort(network, "red"))
        assert winner != loser
        addresses.write(tx, key, loser, chosen)


def test_many_at_once(tmp_path: Path) -> None:
    """Ports of one network, made side by side: each has an address of its own, and the quota holds."""
    cloud = Cloud(databases.url(tmp_path / "db"))
    network, _ = cloud.network()
    cloud.good("admin", "PUT", "/quotas/red", {"quota": {"port": 30}})

    def create(_: int) -> int:
        return cloud.call("alice", "POST", "/ports", {"port": {"network_id": network}})[0]

    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(create, range(40)))
    assert sorted(statuses) == [201] * 30 + [409] * 10
    ports = cloud.get("alice", "/ports")["ports"]
    assert len({port["fixed_ips"][0]["ip_address"] for port in ports}) == 30
    assert len({port["mac_address"] for port in ports}) == 30


def test_statements_are_known_to_mariadb(cloud: Cloud) -> None:
    """What SQLite runs in these tests compiles for MariaDB too."""
    from sqlalchemy.dialects import mysql

    compiled = 0

    def compile_again(connection: object, statement: object, *_: object) -> None:
        nonlocal compiled
        if isinstance(statement, sa.sql.expression.ClauseElement):
            text = str(statement.compile(dialect=mysql.dialect()))
            assert "RETURNING" not in text
            compiled += 1

    sa.event.listen(cloud.db.engine, "before_execute", compile_again)
    cloud.alive("net1", "neutron-dhcp-agent", "neutron-l3-agent", "neutron-openvswitch-agent")
    public, _ = cloud.public_network()
    network, subnet = cloud.network()
    router = cloud.create("alice", "router", external_gateway_info={"network_id": public})["id"]
    cloud.good("alice", "PUT", f"/routers/{router}/add_router_interface", {"subnet_id": subnet})
    port = cloud.create("alice", "port", network_id=network)["id"]
    cloud.create("alice", "floatingip", floating_network_id=public, port_id=port)
    for what in ("ports", "dhcp", "routers"):
        cloud.get("host:net1", f"/hosts/net1/{what}")
    for url in (
        "networks?tags=a",
        "subnets",
        "ports?status=ACTIVE",
        "routers?status=ERROR",
        "floatingips?status=DOWN",
    ):
        cloud.get("alice", f"/{url}&limit=1&sort_key=name" if "?" in url else f"/{url}")
    for table in sa.inspect(cloud.db.engine).get_table_names():
        assert len(table) < 64
    assert compiled > 100
