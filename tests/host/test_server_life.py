"""The life of a server with a real guest: what a pause, a sleep, an image and a rebuild leave of it."""

import json
from collections.abc import Iterator

import pytest

from tests.machine import Machine, wait_for

pytestmark = pytest.mark.host
NAME = "life"
METADATA = "http://169.254.169.254/openstack/latest/meta_data.json"


def status(cloud: Machine) -> str:
    shown = cloud.ask("server", "show", NAME)
    return str(shown["status"]) if shown["OS-EXT-STS:task_state"] is None else "busy"


def act(cloud: Machine, expected: str, *words: str) -> None:
    cloud.openstack("server", *words, NAME)
    wait_for(lambda: status(cloud) == expected, 120, expected)


def devices(cloud: Machine, server: str) -> int:
    return len(cloud.ssh(server, "ls", "/sys/class/net").split()) - 1


@pytest.fixture(scope="module")
def server(cloud: Machine) -> Iterator[str]:
    """A server with a note on its disk and a process that counts."""
    cloud.cumulet("launch", NAME)
    cloud.ssh(NAME, "sh", "-c", "'echo note > kept; sync; sleep 100000 > /dev/null 2>&1 & echo $! > pid; sync'")
    yield NAME
    for name in (NAME, "copy"):
        cloud.openstack("server", "delete", "--wait", name, check=False)
    cloud.openstack("image", "delete", "backup", check=False)


def lives_on(cloud: Machine, server: str) -> bool:
    """The same boot: the process that was started is there."""
    return "sleep" in cloud.ssh(server, "sh", "-c", "'cat /proc/$(cat pid)/cmdline'", check=False)


def test_a_pause_and_a_sleep_are_not_noticed_by_a_process(cloud: Machine, server: str) -> None:
    assert lives_on(cloud, server)
    act(cloud, "PAUSED", "pause")
    act(cloud, "ACTIVE", "unpause")
    assert lives_on(cloud, server)
    act(cloud, "SUSPENDED", "suspend")
    act(cloud, "ACTIVE", "resume")
    assert lives_on(cloud, server)


def test_an_interface_comes_and_goes_while_the_guest_runs(cloud: Machine, server: str) -> None:
    before = devices(cloud, server)
    port = cloud.ask("port", "create", "--network", "private", "more")["id"]
    cloud.openstack("--os-compute-api-version", "2.49", "server", "add", "port", "--tag", "more", server, port)
    wait_for(lambda: devices(cloud, server) == before + 1, 60, "another device")
    (told,) = json.loads(cloud.ssh(server, "wget", "-qO-", METADATA))["devices"]
    assert (told["type"], told["tags"]) == ("nic", ["more"])
    place = f"/sys/bus/pci/devices/{told['address']}"
    assert cloud.ssh(server, "cat", f"{place}/virtio*/net/*/address").strip() == told["mac"]
    cloud.openstack("server", "remove", "port", server, port)
    wait_for(lambda: devices(cloud, server) == before, 60, "one device less")
    assert lives_on(cloud, server)
    cloud.openstack("port", "delete", port)


def test_an_image_of_a_running_server_boots_with_what_was_on_its_disk(cloud: Machine, server: str) -> None:
    cloud.openstack("server", "image", "create", "--name", "backup", "--wait", server)
    assert lives_on(cloud, server)
    image = cloud.ask("image", "show", "backup")
    assert (image["status"], image["properties"]["image_type"]) == ("active", "snapshot")
    cloud.cumulet("launch", "copy", "--image", "backup")
    assert cloud.ssh("copy", "cat", "kept").strip() == "note"
    assert not lives_on(cloud, "copy")


def test_a_rebuild_keeps_the_address_and_nothing_of_the_disk(cloud: Machine, server: str) -> None:
    before = cloud.ask("server", "show", server)["addresses"]
    act(cloud, "ACTIVE", "rebuild", "--image", "cirros")
    wait_for(lambda: "kept" not in cloud.ssh(server, "ls", check=False), 180, "the new disk")
    wait_for(lambda: cloud.ssh(server, "hostname", check=False).strip() == NAME, 180, "the rebuilt guest")
    assert "kept" not in cloud.ssh(server, "ls")
    assert cloud.ask("server", "show", server)["addresses"] == before
