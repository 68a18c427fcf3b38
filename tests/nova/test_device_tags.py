"""Tags of NICs and disks: who may give them, where they are shown, and that the guest is told of them."""

from typing import Any

import msgspec
import pytest

from cumulet.nova import metadata_documents
from cumulet.nova.hosts import list_intents
from cumulet.nova.model import ServerIntent
from tests.nova.api_cloud import Cloud


@pytest.fixture
def cloud() -> Cloud:
    cloud = Cloud()
    cloud.add_host()
    return cloud


def intent(cloud: Cloud, server: str) -> ServerIntent:
    with cloud.db.read() as tx:
        return list_intents(tx, "h1", "secret")[server]


def told(cloud: Cloud, server: str) -> list[dict[str, Any]]:
    """What stands on the config drive; the metadata service reads the same."""
    with cloud.db.read() as tx:
        files = metadata_documents.config_drive_files(tx, server)
    assert "devices" not in msgspec.json.decode(files["openstack/2015-10-15/meta_data.json"])
    found: list[dict[str, Any]] = msgspec.json.decode(files["openstack/latest/meta_data.json"])["devices"]
    return found


def shown(cloud: Cloud, server: str) -> dict[str, str | None]:
    nics = cloud.get("alice", f"/servers/{server}/os-interface")["interfaceAttachments"]
    return {nic["port_id"]: nic["tag"] for nic in nics}


def root(cloud: Cloud, tag: str) -> dict[str, Any]:
    image = cloud.add_image()
    plain = {"source_type": "image", "destination_type": "local", "boot_index": 0, "uuid": image}
    return {"imageRef": image, "block_device_mapping_v2": [{**plain, "tag": tag}]}


def test_given_with_the_server(cloud: Cloud) -> None:
    network, second = cloud.network(), cloud.network(name="second", cidr="10.1.0.0/24")
    networks = [{"uuid": network, "tag": "front"}, {"uuid": second}]
    server = cloud.running(networks=networks, **root(cloud, "system"))
    macs = {nic.port_id: (nic.mac, nic.bus) for nic in intent(cloud, server).nics}
    ((port, tag),) = [(port, tag) for port, tag in shown(cloud, server).items() if tag]
    mac, bus = macs.pop(port)
    assert (tag, intent(cloud, server).root_bus, bus) == ("front", 10, 9)
    assert [bus for _, bus in macs.values()] == [0]
    assert told(cloud, server) == [
        {"type": "nic", "mac": mac, "bus": "pci", "address": "0000:09:00.0", "tags": ["front"]},
        {
            "type": "disk", "serial": "root", "path": "/dev/vda",
            "bus": "pci", "address": "0000:0a:00.0", "tags": ["system"],
        },
    ]  # fmt: skip


def test_several_servers_have_the_same(cloud: Cloud) -> None:
    cloud.create(networks=[{"uuid": cloud.network(), "tag": "front"}], min_count=2)
    servers = [server["id"] for server in cloud.get("alice", "/servers")["servers"]]
    assert [list(shown(cloud, server).values()) for server in servers] == [["front"]] * 2


def test_without_tags_there_is_nothing_to_tell(cloud: Cloud) -> None:
    server = cloud.running(networks=[{"uuid": cloud.network()}])
    assert (told(cloud, server), list(shown(cloud, server).values())) == ([], [None])
    assert (intent(cloud, server).root_bus, intent(cloud, server).nics[0].bus) == (0, 0)


def test_given_and_taken_with_an_interface(cloud: Cloud) -> None:
    network = cloud.network()
    server = cloud.running(networks=[{"uuid": network}])
    url = f"/servers/{server}/os-interface"

    def attach(tag: str) -> str:
        made = cloud.good("alice", "POST", url, {"interfaceAttachment": {"net_id": network, "tag": tag}})
        assert made["interfaceAttachment"]["tag"] == tag
        port: str = made["interfaceAttachment"]["port_id"]
        return port

    one, two = attach("one"), attach("two")
    assert {nic.port_id: nic.bus for nic in intent(cloud, server).nics if nic.bus} == {one: 10, two: 9}
    assert cloud.get("alice", f"{url}/{two}")["interfaceAttachment"]["tag"] == "two"
    assert cloud.call("alice", "DELETE", f"{url}/{one}")[0] == 202
    assert [device["tags"] for device in told(cloud, server)] == [["two"]]
    cloud.neutron.call("DELETE", f"/v2.0/ports/{two}", None, {"X-Auth-Token": "alice"})
    again = attach("again")
    assert {nic.port_id: nic.bus for nic in intent(cloud, server).nics if nic.bus} == {again: 10}


def test_a_guest_has_room_for_some(cloud: Cloud) -> None:
    network = cloud.network()
    server = cloud.running(networks=[{"uuid": network, "tag": str(number)} for number in range(8)])
    url, wish = f"/servers/{server}/os-interface", {"interfaceAttachment": {"net_id": network, "tag": "ninth"}}
    status, message = cloud.refused("alice", "POST", url, wish)
    assert (status, message) == (400, "No more than 8 devices of a server can have tags")
    assert len(shown(cloud, server)) == 8
    cloud.good("alice", "POST", url, {"interfaceAttachment": {"net_id": network}})
    networks = [{"uuid": network, "tag": str(number)} for number in range(9)]
    body = {"server": {"name": "x", "flavorRef": cloud.flavor, "imageRef": cloud.image, "networks": networks}}
    assert cloud.refused("alice", "POST", "/servers", body) == (status, message)


@pytest.mark.parametrize(
    ("version", "nic", "disk"),
    [("2.31", 400, 400), ("2.32", 202, 202), ("2.33", 202, 400), ("2.36", 202, 400), ("2.37", 400, 400),
     ("2.41", 400, 400), ("2.42", 202, 202)],
)  # fmt: skip
def test_versions(cloud: Cloud, version: str, nic: int, disk: int) -> None:
    network = cloud.network()
    plain = {"name": "x", "flavorRef": cloud.flavor, "imageRef": cloud.image, "networks": [{"uuid": network}]}
    for expected, wish in (
        (nic, {**plain, "networks": [{"uuid": network, "tag": "front"}]}),
        (disk, {**plain, **root(cloud, "system")}),
    ):
        status, answer = cloud.call("alice", "POST", "/servers", {"server": wish}, version)
        assert status == expected, answer


@pytest.mark.parametrize("tag", ["", "a,b", "a/b", "x" * 61, "a\nb", None, 1])
def test_tags_that_are_none(cloud: Cloud, tag: Any) -> None:
    network = cloud.network()
    server = cloud.running(networks=[{"uuid": network}])
    wish = {"interfaceAttachment": {"net_id": network, "tag": tag}}
    assert cloud.refused("alice", "POST", f"/servers/{server}/os-interface", wish)[0] == 400
    wish = {"interfaceAttachment": {"net_id": network, "tag": "x"}}
    assert cloud.refused("alice", "POST", f"/servers/{server}/os-interface", wish, "2.48")[0] == 400
    networks = [{"uuid": network, "tag": tag}]
    body = {"server": {"name": "x", "flavorRef": cloud.flavor, "imageRef": cloud.image, "networks": networks}}
    status, message = cloud.refused("alice", "POST", "/servers", body)
    assert status == 400
    assert "tag" in message
