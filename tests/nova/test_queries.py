"""Query parameters that there are not: ignored by old versions, an error in those that mind."""

import pytest

from cumulet.nova.versions import QUERIES
from tests.nova.api_cloud import Cloud

URLS = {
    "flavors": ("/flavors", "/flavors/detail"),
    "keypairs": ("/os-keypairs",),
    "limits": ("/limits",),
    "quota_set": ("/os-quota-sets/red", "/os-quota-sets/red/detail"),
    "server_groups": ("/os-server-groups",),
    "services": ("/os-services",),
    "usages": ("/os-simple-tenant-usage",),
    "usage": ("/os-simple-tenant-usage/red",),
    "hypervisors": ("/os-hypervisors", "/os-hypervisors/detail"),
}


@pytest.fixture(scope="module")
def cloud() -> Cloud:
    cloud = Cloud()
    cloud.add_host()
    return cloud


@pytest.mark.parametrize("resource", URLS)
def test_unknown_ones(cloud: Cloud, resource: str) -> None:
    since, _ = QUERIES[resource]
    before = f"2.{since[1] - 1}"
    for url in URLS[resource]:
        for unknown in ("colour=red", "colour=", "LIMIT=1"):
            assert cloud.call("admin", "GET", f"{url}?{unknown}", version=before)[0] == 200, url
            status, message = cloud.refused("admin", "GET", f"{url}?{unknown}", version=f"2.{since[1]}")
            assert (status, unknown.split("=")[0] in message) == (400, True)


def test_known_ones(cloud: Cloud) -> None:
    for url in (
        "/flavors?limit=1&is_public=None&minRam=1&minDisk=0&sort_key=name&sort_dir=asc",
        "/os-keypairs?limit=1&user_id=alice",
        "/limits?tenant_id=red",
        "/os-quota-sets/red?user_id=alice",
        "/os-server-groups?all_projects=1&limit=1&offset=0",
        "/os-services?binary=nova-compute&host=h1",
        "/os-simple-tenant-usage?start=2020-01-01T00:00:00&detailed=1&limit=1",
        "/os-hypervisors/detail?limit=1&with_servers=true",
    ):
        cloud.get("admin", url)


def test_of_single_things(cloud: Cloud) -> None:
    server = cloud.running()
    cloud.good("alice", "POST", "/os-keypairs", {"keypair": {"name": "k"}}, "2.10")
    (hypervisor,) = cloud.get("admin", "/os-hypervisors")["hypervisors"]
    for who, url, old in (
        ("alice", "/os-keypairs/k", "2.74"),
        ("admin", f"/os-hypervisors/{hypervisor['id']}", ""),
        ("alice", f"/servers/{server}/os-instance-actions", "2.57"),
    ):
        assert cloud.refused(who, "GET", f"{url}?colour=red")[0] == 400
        assert not old or cloud.call(who, "GET", f"{url}?colour=red", version=old)[0] == 200
