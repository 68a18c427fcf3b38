"""What all resources have in common: several at once, tags from the beginning, conditions on a revision."""

from typing import Any

import pytest

from tests.neutron.conftest import Cloud


def bodies(cloud: Cloud) -> dict[str, Any]:
    """What makes one of each kind."""
    public, _ = cloud.public_network()
    network, subnet = cloud.network()
    group = cloud.create("alice", "security_group", name="g")["id"]
    assert subnet
    return {
        "network": {},
        "subnet": {"network_id": network, "ip_version": 6, "cidr": "fd0%d::/64"},
        "port": {"network_id": network},
        "router": {},
        "floatingip": {"floating_network_id": public},
        "subnetpool": {"name": "p", "prefixes": ["10.8.0.0/16"]},
        "security_group": {"name": "x"},
        "security_group_rule": {"security_group_id": group, "direction": "ingress"},
    }


def several(kind: str, body: Any, count: int) -> list[Any]:
    """``count`` bodies of a kind, different where they have to be."""
    if kind == "subnet":
        return [body | {"cidr": body["cidr"] % number} for number in range(count)]
    if kind == "security_group_rule":
        return [
            body | {"protocol": "tcp", "port_range_min": number, "port_range_max": number}
            for number in range(1, count + 1)
        ]
    return [dict(body) for _ in range(count)]


KINDS = ["network", "subnet", "subnetpool", "port", "router", "floatingip", "security_group", "security_group_rule"]


def collection(kind: str) -> str:
    return (kind.replace("_", "-") if kind.startswith("security") else kind) + "s"


@pytest.mark.parametrize("kind", KINDS)
def test_several_at_once(cloud: Cloud, kind: str) -> None:
    *wanted, fourth = several(kind, bodies(cloud)[kind], 4)
    url, many = f"/{collection(kind)}", f"{kind}s"
    before = {thing["id"] for thing in cloud.get("alice", url)[many]}
    made = cloud.good("alice", "POST", url, {many: wanted})[many]
    assert len({thing["id"] for thing in made}) == 3
    assert {thing["id"] for thing in cloud.get("alice", url)[many]} - before == {thing["id"] for thing in made}
    # all or none
    assert cloud.refused("alice", "POST", url, {many: [fourth, fourth | {"tenant_id": "blue"}]})[0] == 400
    assert len(cloud.get("alice", url)[many]) == len(before) + 3
    assert cloud.refused("alice", "POST", url, {many: []})[0] == 400
    assert cloud.refused("alice", "POST", url, {kind: wanted[0], many: wanted})[0] == 400


@pytest.mark.parametrize("kind", KINDS[:-1])
def test_tags_from_the_beginning(cloud: Cloud, kind: str) -> None:
    wanted = several(kind, bodies(cloud)[kind], 1)[0] | {"tags": ["b", "a", "b"]}
    made = cloud.good("alice", "POST", f"/{collection(kind)}", {kind: wanted})[kind]
    assert made["tags"] == ["a", "b"]
    url = f"/{collection(kind)}"
    assert [thing["id"] for thing in cloud.get("alice", f"{url}?tags=a,b")[f"{kind}s"]] == [made["id"]]
    assert cloud.refused("alice", "POST", url, {kind: wanted | {"tags": ["a,b"]}})[0] == 400
    assert cloud.refused("alice", "POST", url, {kind: wanted | {"tags": [""]}})[0] == 400
    many = [str(number) for number in range(51)]
    assert cloud.refused("alice", "POST", url, {kind: wanted | {"tags": many}})[0] == 400


def conditional(cloud: Cloud, method: str, url: str, condition: str, body: Any = None) -> tuple[int, Any]:
    status, answer, _ = cloud.app.call(
        method, f"/v2.0{url}", body, {"X-Auth-Token": "alice", "If-Match": condition}
    )
    return status, answer


@pytest.mark.parametrize("kind", KINDS)
def test_changes_of_a_certain_revision_only(cloud: Cloud, kind: str) -> None:
    wanted = several(kind, bodies(cloud)[kind], 1)[0]
    made = cloud.good("alice", "POST", f"/{collection(kind)}", {kind: wanted})[kind]
    url = f"/{collection(kind)}/{made['id']}"
    revision = made["revision_number"]
    if kind != "security_group_rule":
        change = {kind: {"description": "d"}}
        status, answer = conditional(cloud, "PUT", url, f"revision_number={revision + 7}", change)
        assert (status, answer["NeutronError"]["type"]) == (412, "RevisionNumberConstraintFailed")
        status, answer = conditional(cloud, "PUT", url, f"revision_number={revision}", change)
        assert status == 200, answer
        assert answer[kind]["description"] == "d"
        revision = answer[kind]["revision_number"]
        assert revision > made["revision_number"]
    assert conditional(cloud, "DELETE", url, f"revision_number={revision - 1}")[0] == 412
    assert conditional(cloud, "DELETE", url, "revision_number=x")[0] == 400
    assert conditional(cloud, "DELETE", url, f"revision_number={revision}")[0] == 204
