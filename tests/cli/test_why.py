"""``why`` on a simulated cloud: it names the loop, the reason, the tries and since when."""

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from cumulet.cli import stories, why
from cumulet.cli.culprits import Culprits
from cumulet.cli.status import Health
from cumulet.cli.stories import Story
from cumulet.core import clock
from cumulet.core.reconcile import LoopStatus
from cumulet.core.tables import agents
from cumulet.sim.world import World
from tests.sim.conftest import make_world

__all__ = ["make_world"]
AGENTS = {"servers": "nova-compute", "ports": "neutron-openvswitch-agent", "dhcp": "neutron-dhcp-agent",
          "routers": "neutron-l3-agent", "place": "nova-scheduler"}  # fmt: skip


def tell(world: World, thing: str, silent: str = "") -> list[Story]:
    """What ``why`` would say; ``silent`` does not answer.  All hosts' loops count as this node's."""
    loops: dict[str, list[LoopStatus]] = {}
    for loop in world.loops:
        service = AGENTS.get(loop.reconciler.name)
        if service and service != silent:
            loops.setdefault(service, []).append(loop.status())
    healths = [Health(name, "compute", healthy=name != silent, answers=name != silent) for name in AGENTS.values()]
    for line in healths:
        line.problem = "" if line.answers else "does not answer"
    with world.db.read() as tx:
        return stories.find(tx, thing, Culprits(world.config, tx, healths, loops))


def text(found: list[Story]) -> str:
    return "\n".join(why.text(story, datetime.now(UTC)) for story in found)


def test_a_server_that_is_well_waits_for_nothing(make_world: Any) -> None:
    world: World = make_world(hosts=("h1",))
    server = world.create_server()
    world.settle()
    for name in ("vm", server, server[:8]):
        (story,) = tell(world, name)
        assert (story.kind, story.id, story.state, story.waiting) == ("server", server, "ACTIVE", [])
        assert story.actions[0]["state"] == "done"
        assert story.actions[0]["request"].startswith("req-")
        (port,) = story.also
        assert (port.kind, port.state, port.waiting) == ("port", "ACTIVE", [])
    shown = text(tell(world, "vm"))
    assert "is ACTIVE" in shown
    assert "h1: power on, newest order, at " in shown
    assert "user_data" not in shown


def test_an_agent_that_is_silent_is_named(make_world: Any) -> None:
    """The wiring never comes: nova-compute says for what it waits, and the L2 agent is named as silent."""
    world: World = make_world(hosts=("h1",))
    stopped = [loop for loop in world.loops if loop.reconciler.name == "ports"]
    world.loops = [loop for loop in world.loops if loop not in stopped]
    world.create_server()
    world.settle()
    (story,) = tell(world, "vm", silent="neutron-openvswitch-agent")
    assert story.state == "BUILD, spawning"
    (compute,) = [one for one in story.waiting if one.service == "nova-compute"]
    assert "ports to be wired" in compute.reason
    assert compute.tries > 1
    assert compute.since
    assert compute.loop == "servers"
    (switch,) = story.also[0].waiting
    assert (switch.service, switch.kind, switch.reason) == (
        "neutron-openvswitch-agent",
        "silent",
        "does not answer",
    )
    shown = text([story])
    assert "nova-compute on h1 waits for ports to be wired; " in shown
    assert "neutron-openvswitch-agent on h1 IS SILENT: does not answer" in shown
    assert " ago), next in " in shown


def test_no_host_is_the_schedulers_word(make_world: Any) -> None:
    world: World = make_world(hosts=("h1",))
    flavor = {"name": "huge", "ram": 50000, "vcpus": 1, "disk": 1, "id": "huge"}
    world.call(world.nova, "POST", "/v2.1/flavors", {"flavor": flavor}, user="admin")
    world.create_server(flavorRef="huge")
    world.settle()
    (story,) = tell(world, "vm")
    assert story.state == "ERROR"
    assert story.seen == []
    (waiting,) = story.waiting
    assert (waiting.service, waiting.kind) == ("nova-scheduler", "terminal")
    assert "nova-scheduler HAS GIVEN UP: " in text([story])


def test_networks_routers_and_floating_ips_by_name_and_address(make_world: Any) -> None:
    world: World = make_world(hosts=("h1",))
    world.create_server()
    world.settle()
    port = next(story for story in tell(world, "vm")[0].also)
    wish = {"floating_network_id": world.base["public"], "port_id": port.id}
    floating = world.call(world.neutron, "POST", "/v2.0/floatingips", {"floatingip": wish})["floatingip"]
    address = floating["floating_ip_address"]
    (story,) = tell(world, address)
    assert (story.kind, story.state) == ("floating ip", "DOWN")
    assert story.waiting[0].service == "neutron-l3-agent"
    world.settle()
    (story,) = tell(world, address)
    assert (story.state, story.waiting) == ("ACTIVE", [])
    (network,) = tell(world, "private")
    assert network.wanted["subnets"] == ["10.0.0.0/24"]
    assert network.seen[0]["dhcp"] == "runs"
    (router,) = tell(world, "r")
    assert router.wanted["interfaces"] == ["10.0.0.1"]
    assert router.waiting == []
    (by_address,) = tell(world, port.wanted["addresses"][0])
    assert (by_address.id, by_address.also[0].name) == (port.id, address)
    (by_mac,) = tell(world, port.wanted["mac"].upper())
    assert by_mac.id == port.id
    assert tell(world, "nothing") == []
    assert tell(world, "%") == []


def test_an_agent_that_is_away_is_named_where_all_was_well(make_world: Any) -> None:
    """The last report may be right no more: who made it is silent, since then."""
    world: World = make_world(hosts=("h1",))
    world.create_server()
    wish = {"floating_network_id": world.base["public"]}
    floating = world.call(world.neutron, "POST", "/v2.0/floatingips", {"floatingip": wish})["floatingip"]
    world.settle()
    (port,) = tell(world, "vm")[0].also
    url = f"/v2.0/floatingips/{floating['id']}"
    world.call(world.neutron, "PUT", url, {"floatingip": {"port_id": port.id}})
    world.settle()
    things = {
        port.id: "neutron-openvswitch-agent",
        "private": "neutron-dhcp-agent",
        "r": "neutron-l3-agent",
        floating["floating_ip_address"]: "neutron-l3-agent",
    }
    for thing in things:
        assert tell(world, thing)[0].waiting == []
    since = clock.later(-600)
    with world.db.transaction() as tx:
        tx.write(sa.update(agents).values(seen_at=since))
    for thing, agent in things.items():
        (story,) = tell(world, thing)
        (silent,) = story.waiting
        assert (silent.service, silent.host, silent.kind) == (agent, "h1", "silent")
        assert silent.since == since
        assert f"{agent} on h1 IS SILENT: gives no sign of life; since " in text([story])
