"""As ``test_crash``, for what users do with networks: everything dies before or after every lasting change."""

from collections.abc import Callable
from typing import Any

import pytest

from cumulet.sim.world import World
from tests.sim.copies import Prepared
from tests.sim.test_crash import (
    Operation,
    associate,
    bearer,
    delete,
    effects_of,
    find,
    floating,
    run,
    running,
    with_floating_ip,
)

DOOR, GUEST = 7777, "10.0.0.200"


def call(world: World, method: str, path: str, body: Any = None, user: str = "alice") -> Any:
    return world.call(world.neutron, method, f"/v2.0/{path}", body, user)


def once(world: World, method: str, path: str, user: str = "alice") -> None:
    """A request that an earlier try may have fulfilled."""
    headers = {"X-Auth-Token": user}
    assert world.neutron.call(method, f"/v2.0/{path}", None, headers)[0] in (200, 204, 404)


def flows_with(world: World, text: str) -> int:
    """How many flows of all hosts name this."""
    return sum(
        text in flow for host in world.hosts.values() for flows in host.switch.flows.values() for flow in flows
    )


# ── floating IPs ─────────────────────────────────────────────────────────────────────────────────────────────


def associated(world: World) -> None:
    with_floating_ip(world)
    associate(world)
    world.settle()
    assert floating(world)["status"] == "ACTIVE"
    assert translated(world)


def disassociate(world: World) -> None:
    call(world, "PUT", f"floatingips/{floating(world)['id']}", {"floatingip": {"port_id": None}})


def delete_floating(world: World) -> None:
    for found in call(world, "GET", "floatingips")["floatingips"]:
        once(world, "DELETE", f"floatingips/{found['id']}")


def translated(world: World) -> bool:
    return "dnat ip to ip daddr" in bearer(world).routers.routers[world.base["router"]].table


def is_free(world: World) -> None:
    assert (floating(world)["status"], floating(world)["port_id"]) == ("DOWN", None)
    assert not translated(world)


def is_given_back(world: World) -> None:
    assert call(world, "GET", "floatingips")["floatingips"] == []
    assert not translated(world)


# ── rules and pairs: the flows follow ────────────────────────────────────────────────────────────────────────


def doors(world: World) -> list[str]:
    found = call(world, "GET", f"security-group-rules?port_range_min={DOOR}")["security_group_rules"]
    return [str(rule["id"]) for rule in found]


def open_door(world: World) -> None:
    if not doors(world):
        port = world.port_of(find(world))
        wish = {"security_group_id": port["security_groups"][0], "direction": "ingress", "protocol": "tcp",
                "port_range_min": DOOR, "port_range_max": DOOR}  # fmt: skip
        call(world, "POST", "security-group-rules", {"security_group_rule": wish})


def with_door(world: World) -> None:
    running(world)
    open_door(world)
    world.settle()
    is_open(world)


def close_door(world: World) -> None:
    for rule in doors(world):
        once(world, "DELETE", f"security-group-rules/{rule}")


def is_open(world: World) -> None:
    assert flows_with(world, f"tp_dst={DOOR:#x}") > 0


def is_closed(world: World) -> None:
    assert flows_with(world, f"tp_dst={DOOR:#x}") == 0


def pair(*addresses: str) -> Callable[[World], None]:
    def ask(world: World) -> None:
        wish = {"allowed_address_pairs": [{"ip_address": address} for address in addresses]}
        call(world, "PUT", f"ports/{world.port_of(find(world))['id']}", {"port": wish})

    return ask


def with_pair(world: World) -> None:
    running(world)
    pair(GUEST)(world)
    world.settle()
    may_send(world)


def may_send(world: World) -> None:
    assert flows_with(world, GUEST) > 0


def may_not_send(world: World) -> None:
    assert flows_with(world, GUEST) == 0


# ── sharing, and networks ────────────────────────────────────────────────────────────────────────────────────


def policies(world: World) -> list[str]:
    return [str(one["id"]) for one in call(world, "GET", "rbac-policies")["rbac_policies"]]


def share(world: World) -> None:
    if not policies(world):
        wish = {"object_type": "network", "object_id": world.base["network"], "action": "access_as_shared",
                "target_tenant": "p2"}  # fmt: skip
        call(world, "POST", "rbac-policies", {"rbac_policy": wish})


def unshare(world: World) -> None:
    for policy in policies(world):
        once(world, "DELETE", f"rbac-policies/{policy}")


def seen_by_bob(seen: bool) -> Callable[[World], None]:
    def check(world: World) -> None:
        found = [one["id"] for one in call(world, "GET", "networks?shared=True", user="bob")["networks"]]
        assert found == ([world.base["network"]] if seen else [])

    return check


def with_another_network(world: World) -> None:
    network = call(world, "POST", "networks", {"network": {"name": "another"}})["network"]["id"]
    wish = {"network_id": network, "cidr": "10.7.0.0/24", "ip_version": 4}
    call(world, "POST", "subnets", {"subnet": wish})
    world.settle()
    assert served(world) == 2


def served(world: World) -> int:
    """How many networks have a DHCP server, on all hosts together."""
    return sum(len(host.dhcp.networks) for host in world.hosts.values())


def delete_network(world: World) -> None:
    for network in call(world, "GET", "networks?name=another")["networks"]:
        once(world, "DELETE", f"networks/{network['id']}")


def no_other_network(world: World) -> None:
    assert call(world, "GET", "networks?name=another")["networks"] == []
    assert served(world) == 1


OPERATIONS = (
    Operation("disassociate", disassociate, is_free, associated),
    Operation("delete floating IP", delete_floating, is_given_back, associated),
    Operation("open a door", open_door, is_open, running),
    Operation("close a door", close_door, is_closed, with_door),
    Operation("add a pair", pair(GUEST), may_send, running),
    Operation("remove a pair", pair(), may_not_send, with_pair),
    Operation("share", share, seen_by_bob(True)),
    Operation("unshare", unshare, seen_by_bob(False), share),
    Operation("delete network", delete_network, no_other_network, with_another_network),
)
CASES = [(operation, number) for operation in OPERATIONS for number in range(len(effects_of(operation)))]


@pytest.mark.parametrize("hints", [True, False], ids=["hints", "no hints"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("operation", "number"), CASES, ids=[f"{o.name}-{n}" for o, n in CASES])
def test_crash(prepared: Prepared, operation: Operation, number: int, when: str, hints: bool) -> None:
    world = prepared(operation.prepare, hints)
    world.effects.crash_at = (len(world.effects.log) + number, when)
    run(world, operation)
    assert world.effects.crash_at is None, "the crash point was never reached"
    world.survive(lambda: delete(world))
    world.survive(world.settle)
    assert world.left_over() == []
