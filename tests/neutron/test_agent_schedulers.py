"""Which agent serves what: by hand of an administrator, and when agents die."""

from typing import Any

import pytest
import sqlalchemy as sa

from cumulet.core import clock
from cumulet.core.reconcile import Loop
from cumulet.core.tables import agents
from cumulet.neutron.bindings import DHCP_AGENT, L3_AGENT
from cumulet.neutron.failover import Failover
from tests.neutron.conftest import Cloud


def agent(cloud: Cloud, binary: str, host: str) -> str:
    return str(cloud.get("admin", f"/agents?binary={binary}&host={host}")["agents"][0]["id"])


def hosts(cloud: Cloud, url: str) -> list[str]:
    return [one["host"] for one in cloud.get("admin", url)["agents"]]


def intent(cloud: Cloud, host: str, what: str, key: str) -> Any:
    return cloud.get(f"host:{host}", f"/hosts/{host}/{what}").get(key)


def test_a_network_and_its_agents(cloud: Cloud) -> None:
    cloud.alive("n1", DHCP_AGENT, L3_AGENT)
    network, _ = cloud.network()
    one, dhcp = agent(cloud, DHCP_AGENT, "n1"), f"/networks/{network}/dhcp-agents"
    assert hosts(cloud, dhcp) == ["n1"]
    found = cloud.get("admin", f"/agents/{one}/dhcp-networks")["networks"]
    assert [(view["id"], view["provider:network_type"]) for view in found] == [(network, "vxlan")]
    assert cloud.get("admin", f"/agents/{agent(cloud, L3_AGENT, 'n1')}/dhcp-networks") == {"networks": []}
    body = {"network_id": network}
    taken = cloud.refused("admin", "POST", f"/agents/{one}/dhcp-networks", body)
    assert taken == (409, "NetworkHostedByDHCPAgent")
    cloud.alive("n2", DHCP_AGENT)
    two = agent(cloud, DHCP_AGENT, "n2")
    assert cloud.call("admin", "POST", f"/agents/{two}/dhcp-networks", body)[0] == 201
    assert hosts(cloud, dhcp) == ["n1", "n2"]
    servers = cloud.get("admin", f"/ports?network_id={network}&device_owner=network:dhcp")["ports"]
    assert sorted(port["fixed_ips"][0]["ip_address"] for port in servers) == ["10.0.0.2", "10.0.0.3"]
    assert [intent(cloud, host, "dhcp", network)["metadata_v6"] for host in ("n1", "n2")] == [True, False]
    cloud.hinted()
    cloud.good("admin", "DELETE", f"/agents/{one}/dhcp-networks/{network}")
    assert ("neutron.dhcp.n1", network) in cloud.hinted()
    assert hosts(cloud, dhcp) == ["n2"]
    assert intent(cloud, "n1", "dhcp", network)["absent"]
    again = cloud.refused("admin", "DELETE", f"/agents/{one}/dhcp-networks/{network}")
    assert again == (409, "NetworkNotHostedByDhcpAgent")


def test_what_is_taken_from_its_last_agent_goes_to_another(cloud: Cloud) -> None:
    cloud.alive("n1", DHCP_AGENT, L3_AGENT)
    network, subnet = cloud.network()
    router = cloud.create("alice", "router", name="r")["id"]
    cloud.good("alice", "PUT", f"/routers/{router}/add_router_interface", {"subnet_id": subnet})
    cloud.alive("n2", DHCP_AGENT, L3_AGENT)
    before = intent(cloud, "n1", "dhcp", network)
    cloud.good("admin", "DELETE", f"/agents/{agent(cloud, DHCP_AGENT, 'n1')}/dhcp-networks/{network}")
    after = intent(cloud, "n2", "dhcp", network)
    same = ("port_id", "mac", "ips")
    assert [after[name] for name in same] == [before[name] for name in same]
    one = agent(cloud, L3_AGENT, "n1")
    cloud.good("admin", "DELETE", f"/agents/{one}/l3-routers/{router}")
    assert hosts(cloud, f"/routers/{router}/l3-agents") == ["n2"]
    assert intent(cloud, "n1", "routers", router)["absent"]
    bound = {port["binding:host_id"] for port in cloud.get("admin", f"/ports?network_id={network}")["ports"]}
    assert bound == {"n2"}
    gone = cloud.refused("admin", "DELETE", f"/agents/{one}/l3-routers/{router}")
    assert gone == (409, "RouterNotHostedByL3Agent")


def test_a_router_and_its_agent(cloud: Cloud) -> None:
    router = cloud.create("alice", "router", name="r")["id"]
    cloud.alive("n1", L3_AGENT, DHCP_AGENT)
    cloud.alive("n2", L3_AGENT)
    one, two = agent(cloud, L3_AGENT, "n1"), agent(cloud, L3_AGENT, "n2")
    for _ in range(2):
        assert cloud.call("admin", "POST", f"/agents/{two}/l3-routers", {"router_id": router})[0] == 201
    assert hosts(cloud, f"/routers/{router}/l3-agents") == ["n2"]
    assert [view["id"] for view in cloud.get("admin", f"/agents/{two}/l3-routers")["routers"]] == [router]
    assert cloud.get("admin", f"/agents/{one}/l3-routers") == {"routers": []}
    taken = cloud.refused("admin", "POST", f"/agents/{one}/l3-routers", {"router_id": router})
    assert taken == (409, "RouterHostedByL3Agent")


def test_bad_requests(cloud: Cloud) -> None:
    cloud.alive("n1", L3_AGENT, DHCP_AGENT)
    network, _ = cloud.network()
    router = cloud.create("alice", "router", name="r")["id"]
    l3, dhcp = agent(cloud, L3_AGENT, "n1"), agent(cloud, DHCP_AGENT, "n1")
    for who, status in (("alice", 403), ("rita", 403)):
        assert cloud.refused(who, "GET", f"/agents/{dhcp}/dhcp-networks")[0] == status
        assert cloud.refused(who, "POST", f"/agents/{dhcp}/dhcp-networks", {"network_id": network})[0] == status
        assert cloud.refused(who, "GET", f"/networks/{network}/dhcp-agents")[0] == status
        assert cloud.refused(who, "DELETE", f"/agents/{l3}/l3-routers/{router}")[0] == status
    posts: tuple[tuple[str, dict[str, str], tuple[int, str]], ...] = (
        (f"/agents/{l3}/dhcp-networks", {"network_id": network}, (404, "InvalidDHCPAgent")),
        (f"/agents/{dhcp}/l3-routers", {"router_id": router}, (404, "InvalidL3Agent")),
        (f"/agents/{dhcp}/dhcp-networks", {"network_id": "x"}, (404, "NetworkNotFound")),
        (f"/agents/{l3}/l3-routers", {"router_id": "x"}, (404, "RouterNotFound")),
        ("/agents/x/l3-routers", {"router_id": router}, (404, "AgentNotFound")),
        (f"/agents/{l3}/l3-routers", {}, (400, "HTTPBadRequest")),
    )
    for url, body, expected in posts:
        assert cloud.refused("admin", "POST", url, body) == expected
    cloud.good("admin", "PUT", f"/agents/{l3}", {"agent": {"admin_state_up": False}})
    disabled = cloud.refused("admin", "POST", f"/agents/{l3}/l3-routers", {"router_id": router})
    assert disabled == (404, "InvalidL3Agent")


# ── failover ─────────────────────────────────────────────────────────────────────────────────────────────────


class Watched:
    """The loop with a clock of the test's own, and a network and a router on the host n1."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud, self.now = cloud, 0.0
        cloud.alive("n1", DHCP_AGENT, L3_AGENT)
        public, _ = cloud.public_network()
        self.network, subnet = cloud.network()
        gateway = {"network_id": public}
        self.router = cloud.create("alice", "router", name="r", external_gateway_info=gateway)["id"]
        cloud.good("alice", "PUT", f"/routers/{self.router}/add_router_interface", {"subnet_id": subnet})
        port = cloud.create("alice", "port", network_id=self.network)["id"]
        self.floating = cloud.create("alice", "floatingip", floating_network_id=public, port_id=port)["id"]
        self.reboot()

    def reboot(self) -> None:
        self.loop: Loop[Any] = Loop(
            Failover(self.cloud.db, self.cloud.config, lambda: self.now).reconciler(), clock=lambda: self.now
        )

    def silence(self, host: str, seconds: float) -> None:
        with self.cloud.db.transaction() as tx:
            tx.write(sa.update(agents).where(agents.c.host == host).values(seen_at=clock.later(-seconds)))

    def pass_(self, seconds: float) -> list[str]:
        """Some time later: the hosts of the router."""
        self.now += seconds
        self.loop.resync()
        self.loop.run_once()
        return hosts(self.cloud, f"/routers/{self.router}/l3-agents")

    def report(self, host: str) -> None:
        generation = intent(self.cloud, host, "routers", self.router)["generation"]
        seen = {self.router: {"generation": generation, "running": True, "floating": [self.floating]}}
        self.cloud.good(f"host:{host}", "POST", f"/hosts/{host}/routers", seen)

    def status(self) -> str:
        return str(self.cloud.get("alice", f"/floatingips/{self.floating}")["floatingip"]["status"])


@pytest.fixture
def watched(cloud: Cloud) -> Watched:
    return Watched(cloud)


def test_others_take_over_from_the_dead(watched: Watched) -> None:
    cloud = watched.cloud
    for _ in range(3):
        cloud.update("alice", "router", watched.router, name="again")  # generations that n2 will not have
    watched.report("n1")
    assert watched.status() == "ACTIVE"
    before = intent(cloud, "n1", "dhcp", watched.network)
    watched.silence("n1", 200)
    assert watched.pass_(100) == ["n1"]  # nobody else lives
    cloud.alive("n2", DHCP_AGENT, L3_AGENT)
    assert watched.pass_(31) == ["n1"]  # a suspect
    assert watched.pass_(36) == ["n2"]
    assert hosts(cloud, f"/networks/{watched.network}/dhcp-agents") == ["n2"]
    after = intent(cloud, "n2", "dhcp", watched.network)
    assert (after["port_id"], after["ips"]) == (before["port_id"], before["ips"])
    assert watched.status() == "DOWN"
    watched.report("n1")  # it was only cut off: what it says of its tombstone counts for nothing
    assert watched.status() == "DOWN"
    watched.report("n2")
    assert watched.status() == "ACTIVE"
    assert intent(cloud, "n1", "routers", watched.router)["absent"]
    assert intent(cloud, "n1", "dhcp", watched.network)["absent"]
    cloud.alive("n1", DHCP_AGENT, L3_AGENT)
    tombstone = intent(cloud, "n1", "routers", watched.router)["generation"]
    obeyed = {watched.router: {"generation": tombstone, "running": False}}
    cloud.good("host:n1", "POST", "/hosts/n1/routers", obeyed)
    assert intent(cloud, "n1", "routers", watched.router) is None
    assert watched.pass_(100) == ["n2"]
    assert watched.status() == "ACTIVE"


def test_after_a_long_sleep_nobody_loses_anything(watched: Watched) -> None:
    watched.silence("n1", 5000)
    watched.cloud.alive("n2", DHCP_AGENT, L3_AGENT)  # the first to be back
    assert watched.pass_(5000) == ["n1"]
    watched.cloud.alive("n1", DHCP_AGENT, L3_AGENT)
    assert watched.pass_(40) == ["n1"]
    watched.silence("n1", 200)
    assert watched.pass_(1) == ["n1"]  # a new suspicion begins anew
    watched.reboot()
    assert watched.pass_(36) == ["n1"]
    assert watched.pass_(36) == ["n2"]


def test_it_can_be_switched_off(watched: Watched) -> None:
    watched.cloud.config.agents.failover_seconds = 0
    watched.silence("n1", 5000)
    watched.cloud.alive("n2", DHCP_AGENT, L3_AGENT)
    assert [watched.pass_(100) for _ in range(3)] == [["n1"]] * 3
