"""Versions: documents, negotiation, and that each version's server has exactly its own fields."""

import pytest

from cumulet.nova.versions import CHANGES, GONE, render
from tests.nova.api_cloud import Cloud

FIRST = {
    "id", "name", "status", "tenant_id", "user_id", "metadata", "hostId", "image", "flavor", "created", "updated",
    "addresses", "accessIPv4", "accessIPv6", "links", "progress", "config_drive", "key_name", "security_groups",
    "OS-DCF:diskConfig", "OS-EXT-AZ:availability_zone", "OS-SRV-USG:launched_at", "OS-SRV-USG:terminated_at",
    "OS-EXT-STS:task_state", "OS-EXT-STS:vm_state", "OS-EXT-STS:power_state",
    "os-extended-volumes:volumes_attached",
}  # fmt: skip
ADDED = (
    ("2.9", {"locked"}),
    ("2.19", {"description"}),
    ("2.26", {"tags"}),
    ("2.63", {"trusted_image_certificates"}),
    ("2.71", {"server_groups"}),
    ("2.73", {"locked_reason"}),
    ("2.90", {"OS-EXT-SRV-ATTR:hostname"}),
    ("2.96", {"pinned_availability_zone"}),
    ("2.100", {"scheduler_hints"}),
)
ADMIN = {"OS-EXT-SRV-ATTR:host", "OS-EXT-SRV-ATTR:hypervisor_hostname", "OS-EXT-SRV-ATTR:instance_name"}
ADMIN_SINCE_3 = {
    f"OS-EXT-SRV-ATTR:{name}"
    for name in (
        "hostname", "kernel_id", "launch_index", "ramdisk_id", "reservation_id", "root_device_name", "user_data",
    )
}  # fmt: skip


@pytest.fixture(scope="module")
def cloud() -> Cloud:
    cloud = Cloud()
    cloud.add_host()
    cloud.running(networks=[{"uuid": cloud.network()}])
    return cloud


def test_fields_of_each_version(cloud: Cloud) -> None:
    (server,) = (one["id"] for one in cloud.get("alice", "/servers")["servers"])
    for minor in range(1, 101):
        version = f"2.{minor}"
        expected = set(FIRST)
        for since, names in ADDED:
            if minor >= int(since[2:]):
                expected |= names
        assert set(cloud.show("alice", server, version)) == expected, version
        (listed,) = cloud.get("alice", "/servers/detail", version)["servers"]
        assert set(listed) == expected - {"server_groups"}, version
        for_admins = expected | ADMIN | (ADMIN_SINCE_3 if minor >= 3 else set())
        for_admins |= {"host_status"} if minor >= 16 else set()
        assert set(cloud.show("admin", server, version)) == for_admins, version


def test_the_embedded_flavor(cloud: Cloud) -> None:
    (server,) = (one["id"] for one in cloud.get("alice", "/servers")["servers"])
    old = cloud.show("alice", server, "2.46")["flavor"]
    assert old == {
        "id": cloud.flavor,
        "links": [{"rel": "bookmark", "href": f"http://127.0.0.1:8774/flavors/{cloud.flavor}"}],
    }
    assert cloud.show("alice", server, "2.47")["flavor"]["original_name"] == "m1.tiny"


def test_the_image_as_it_was() -> None:
    """2.98 shows what a server knows of its image, whatever becomes of that; a rebuild brings another one's."""
    cloud = Cloud()
    cloud.add_host()
    image = cloud.add_image(properties={"os_distro": "debian", "long": "x" * 300})
    made = cloud.running(imageRef=image)
    assert "properties" not in cloud.show("alice", made, "2.97")["image"]
    shown = cloud.show("alice", made, "2.98")["image"]["properties"]
    assert shown == {
        "base_image_ref": image, "container_format": "bare", "disk_format": "qcow2", "min_disk": "1",
        "min_ram": "0", "os_distro": "debian", "long": "x" * 255,
    }  # fmt: skip
    (listed,) = cloud.get("alice", "/servers/detail", "2.98")["servers"]
    assert listed["image"]["properties"] == shown
    rebuild = {"rebuild": {"imageRef": cloud.image}}
    rebuilt = cloud.good("alice", "POST", f"/servers/{made}/action", rebuild, "2.98")["server"]
    assert rebuilt["image"]["properties"]["base_image_ref"] == cloud.image
    assert "os_distro" not in rebuilt["image"]["properties"]


def test_documents(cloud: Cloud) -> None:
    status, root, _ = cloud.app.call("GET", "/")
    assert status == 200
    legacy, version = root["versions"]
    assert (legacy["id"], legacy["status"], legacy["min_version"], legacy["version"]) == (
        "v2.0", "SUPPORTED", "", "",
    )  # fmt: skip
    assert (version["id"], version["status"], version["min_version"], version["version"]) == (
        "v2.1", "CURRENT", "2.1", "2.100",
    )  # fmt: skip
    for path in ("/v2.1", "/v2.1/"):
        status, document, _ = cloud.app.call("GET", path)
        assert status == 200
        assert document["version"]["links"][0]["href"] == "http://127.0.0.1:8774/v2.1/"
    headers = {"X-Auth-Token": "alice"}
    assert cloud.app.call("GET", "/v2.1/versions/v2.1", headers=headers)[1] == document
    assert cloud.app.call("GET", "/v2.1/versions/v3", headers=headers)[0] == 404
    assert cloud.app.call("GET", "/healthcheck")[:2] == (200, b"OK")


def test_negotiation(cloud: Cloud) -> None:
    def ask(**headers: str) -> tuple[int, dict[str, str]]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        status, _, sent = cloud.app.call("GET", "/v2.1/servers", headers={"X-Auth-Token": "alice", **named})
        return status, dict(sent)

    status, sent = ask()
    assert (status, sent["X-OpenStack-Nova-API-Version"]) == (200, "2.1")
    assert "OpenStack-API-Version" in sent["Vary"]
    assert ask(OpenStack_API_Version="compute latest")[1]["OpenStack-API-Version"] == "compute 2.100"
    assert ask(X_OpenStack_Nova_API_Version="2.30")[1]["X-OpenStack-Nova-API-Version"] == "2.30"
    assert ask(OpenStack_API_Version="compute 2.101")[0] == 406
    assert ask(OpenStack_API_Version="compute 2.x")[0] == 400
    assert ask(OpenStack_API_Version="volume 3.99")[0] == 200


def test_the_root_of_old(cloud: Cloud) -> None:
    """``/v2`` is ``/v2.1`` at its minimum, and no header changes that."""
    for path in ("/v2", "/v2/"):
        status, document, _ = cloud.app.call("GET", path)
        assert (status, document["version"]["id"]) == (200, "v2.0")
        assert document["version"]["links"][0]["href"] == "http://127.0.0.1:8774/v2/"
    (server,) = (one["id"] for one in cloud.get("alice", "/servers")["servers"])
    for asked in ("compute 2.96", "compute 7.1", "compute nonsense"):
        headers = {"X-Auth-Token": "alice", "OpenStack-API-Version": asked}
        status, answer, sent = cloud.app.call("GET", f"/v2/servers/{server}", headers=headers)
        assert (status, answer["server"]) == (200, cloud.show("alice", server, "2.1"))
        assert not {"OpenStack-API-Version", "X-OpenStack-Nova-API-Version", "Vary"} & set(sent)
    new = {"server_group": {"name": "g", "policies": ["affinity"]}}
    headers = {"X-Auth-Token": "alice"}
    assert cloud.app.call("POST", "/v2/os-server-groups", new, headers)[0] == 200
    assert cloud.app.call("GET", "/v2/servers")[0] == 401
    assert cloud.app.call("DELETE", "/v2", headers=headers)[0] == 405
    assert cloud.app.call("GET", "/v3/servers", headers=headers)[0] == 404


def test_the_table_names_nothing_twice() -> None:
    undone = [(change.since, change.resource, change.undo) for change in CHANGES]
    assert len({id(undo) for _, _, undo in undone}) <= len(undone)
    assert all((2, 1) <= since <= (2, 100) for since, *_ in GONE)
    assert render("unknown", {"a": 1}, (2, 1)) == {"a": 1}
