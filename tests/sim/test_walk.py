"""One server's whole life on simulated hosts, with hints and without, and what it costs."""

from collections.abc import Callable

import pytest

from cumulet.sim.world import World

MakeWorld = Callable[..., World]


@pytest.mark.parametrize("hints", [True, False])
def test_a_whole_life(make_world: MakeWorld, hints: bool) -> None:
    world = make_world(hints=hints)
    server = world.create_server()
    assert world.status(server) == "BUILD"
    world.settle()
    assert world.status(server) == "ACTIVE"
    port = world.port_of(server)
    assert port["status"] == "ACTIVE"
    assert port["fixed_ips"][0]["ip_address"].startswith("10.0.0.")
    for action, value, status in (
        ("os-stop", None, "SHUTOFF"),
        ("os-start", None, "ACTIVE"),
        ("reboot", {"type": "SOFT"}, "ACTIVE"),
        ("reboot", {"type": "HARD"}, "ACTIVE"),
    ):
        world.act(server, action, value)
        world.settle()
        assert world.status(server) == status, action
    actions = world.call(world.nova, "GET", f"/v2.1/servers/{server}/os-instance-actions")["instanceActions"]
    assert [action["action"] for action in actions] == ["reboot", "reboot", "start", "stop", "create"]
    world.call(world.nova, "DELETE", f"/v2.1/servers/{server}")
    world.settle()
    assert world.status(server) == "gone"
    assert world.left_over() == []


def test_with_hints_a_boot_takes_no_timer(make_world: MakeWorld) -> None:
    world = make_world()
    server = world.create_server()
    for _ in range(4):
        for loop in world.loops:
            loop.run_once()
    assert world.status(server) == "ACTIVE"


def test_the_walk_costs_few_writes(make_world: MakeWorld) -> None:
    """Beyond the request: placed, made, wired, started, and what the network's agents report."""
    world = make_world()
    before = len(world.effects.log)
    server = world.create_server()
    world.settle()
    assert world.status(server) == "ACTIVE"
    commits = world.effects.log[before:].count("commit")
    assert commits <= 8, world.effects.log[before:]


def test_deleted_before_it_was_placed(world: World) -> None:
    server = world.create_server()
    world.call(world.nova, "DELETE", f"/v2.1/servers/{server}")
    world.settle()
    assert world.left_over() == []


def test_no_room_is_an_error_that_its_user_can_read_and_leaks_nothing(make_world: MakeWorld) -> None:
    world = make_world(hosts=("h1",))
    flavor = {"name": "huge", "ram": 6000, "vcpus": 1, "disk": 1, "id": "9"}
    world.call(world.nova, "POST", "/v2.1/flavors", {"flavor": flavor}, "admin")
    servers = [world.create_server(f"vm{n}", flavorRef="9") for n in range(2)]
    world.settle()
    assert sorted(world.status(server) for server in servers) == ["ACTIVE", "ERROR"]
    failed = next(server for server in servers if world.status(server) == "ERROR")
    shown = world.call(world.nova, "GET", f"/v2.1/servers/{failed}")["server"]
    assert "No valid host was found" in shown["fault"]["message"]
    for server in servers:
        world.call(world.nova, "DELETE", f"/v2.1/servers/{server}")
    world.settle()
    assert world.left_over() == []


def test_a_power_cut_of_a_host_brings_its_servers_back(world: World) -> None:
    server = world.create_server()
    world.settle()
    for host in world.hosts.values():
        host.cut_power()
    world.boot()
    world.settle()
    assert world.status(server) == "ACTIVE"


def test_a_machine_that_ended_itself_is_shown_and_stays_off_until_it_is_started(world: World) -> None:
    server = world.create_server()
    world.settle()
    for host in world.hosts.values():
        for machine in host.hypervisor.machines.values():
            machine.state = "off"
    world.settle()
    assert world.status(server) == "SHUTOFF"
    world.act(server, "os-start")
    world.settle()
    assert world.status(server) == "ACTIVE"


def test_an_unknown_machine_is_left_alone(world: World) -> None:
    server = world.create_server()
    world.settle()
    host = next(host for host in world.hosts.values() if server in host.hypervisor.machines)
    host.hypervisor.machines["stranger"] = host.hypervisor.machines[server]
    world.settle()
    assert "stranger" in host.hypervisor.machines


def test_a_floating_ip_comes_and_goes(world: World) -> None:
    server = world.create_server()
    world.settle()
    wish = {"floating_network_id": world.base["public"], "port_id": world.port_of(server)["id"]}
    floating = world.call(world.neutron, "POST", "/v2.0/floatingips", {"floatingip": wish})["floatingip"]
    world.settle()
    path = f"/v2.0/floatingips/{floating['id']}"
    assert world.call(world.neutron, "GET", path)["floatingip"]["status"] == "ACTIVE"
    world.call(world.neutron, "PUT", path, {"floatingip": {"port_id": None}})
    world.settle()
    assert world.call(world.neutron, "GET", path)["floatingip"]["status"] == "DOWN"


def test_networks_and_routers_leave_nothing(world: World) -> None:
    path = f"/v2.0/routers/{world.base['router']}"
    world.call(world.neutron, "PUT", f"{path}/remove_router_interface", {"subnet_id": world.base["subnet"]})
    world.call(world.neutron, "DELETE", path)
    world.call(world.neutron, "DELETE", f"/v2.0/networks/{world.base['network']}")
    world.settle()
    assert [host.left_over() for host in world.hosts.values()] == [[], []]


def test_three_idle_passes_write_nothing_with_servers_running(world: World) -> None:
    for number in range(3):
        world.create_server(f"vm{number}")
    world.settle()
    before = len(world.effects.log)
    for _ in range(3):
        for loop in world.loops:
            loop.resync()
            loop.run_once()
        world.now += 31
    assert world.effects.log[before:] == []
