"""The versions that today's clients ask for, resource by resource: each answers in that version's form."""

from typing import Any

import pytest

from tests.nova.api_cloud import Cloud


@pytest.fixture(scope="module")
def cloud() -> Cloud:
    cloud = Cloud()
    cloud.add_host("h1", address="127.0.0.1")
    cloud.running()
    cloud.good("admin", "POST", "/os-aggregates", {"aggregate": {"name": "a"}})
    cloud.good("alice", "POST", "/os-server-groups", {"server_group": {"name": "g", "policy": "affinity"}})
    cloud.good("alice", "POST", "/os-keypairs", {"keypair": {"name": "k"}}, "2.10")
    return cloud


PINS: list[tuple[str, str, str, set[str], set[str]]] = [
    ("2.61", "/flavors/detail", "flavors", {"description", "extra_specs", "rxtx_factor"}, set()),
    ("2.81", "/os-aggregates", "aggregates", {"uuid", "hosts", "metadata"}, set()),
    ("2.56", "/os-quota-sets/red", "quota_set", {"cores", "injected_files"}, {"floating_ips"}),
    ("2.57", "/limits", "limits", {"absolute"}, set()),
    ("2.10", "/os-keypairs", "keypairs", {"keypair"}, set()),
    ("2.64", "/os-server-groups", "server_groups", {"policy", "rules", "user_id"}, {"policies", "metadata"}),
    ("2.69", "/os-services", "services", {"id", "forced_down"}, set()),
    ("2.88", "/os-hypervisors/detail", "hypervisors", {"uptime", "service"}, {"cpu_info", "vcpus"}),
    ("2.53", "/os-hypervisors/detail", "hypervisors", {"cpu_info", "vcpus"}, {"uptime"}),
    ("2.1", "/os-hypervisors/statistics", "hypervisor_statistics", {"count", "vcpus_used"}, set()),
    ("2.75", "/os-simple-tenant-usage?detailed=1", "tenant_usages", {"server_usages"}, set()),
    ("2.80", "/os-migrations", "migrations", set(), set()),
    ("2.1", "/os-hosts", "hosts", {"host_name", "zone"}, set()),
    ("2.1", "/os-availability-zone/detail", "availabilityZoneInfo", {"zoneName"}, set()),
    ("2.50", "/os-quota-class-sets/default", "quota_class_set", {"server_groups"}, {"fixed_ips"}),
]


@pytest.mark.parametrize(("version", "url", "name", "there", "gone"), PINS)
def test_a_pinned_version(cloud: Cloud, version: str, url: str, name: str, there: set[str], gone: set[str]) -> None:
    who = "alice" if "server-groups" in url or "keypairs" in url else "admin"
    status, answer, headers = cloud.answer(who, "GET", url, version=version)
    assert status == 200, answer
    assert headers["OpenStack-API-Version"] == f"compute {version}"
    found: Any = answer[name]
    document = found[0] if isinstance(found, list) and found else found
    if there or gone:
        assert there <= set(document)
        assert not gone & set(document)


def test_hypervisors_tell_of_their_servers_from_2_75_on_always(cloud: Cloud) -> None:
    cloud.add_host("h2")
    listed = cloud.get("admin", "/os-hypervisors?with_servers=1", "2.75")["hypervisors"]
    assert [len(one["servers"]) for one in listed] == [1, 0]
