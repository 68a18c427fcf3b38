"""openstacksdk's cloud layer: one method for what people want; what scripts, Ansible and Zuul use."""

import io
from collections.abc import Callable
from typing import Any

import openstack.exceptions
import pytest

pytestmark = [pytest.mark.compat, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

DATA = bytes(range(256)) * 1024


def names(found: list[Any]) -> set[str]:
    return {each.name for each in found}


def test_who_and_where(connection: Any) -> None:
    assert connection.current_project.name == "admin"
    assert {service.type for service in connection.list_services()} >= {"identity", "image", "network", "compute"}
    assert connection.has_service("compute")
    assert not connection.has_service("object-store")
    assert connection.list_availability_zone_names() == ["nova"]
    assert names(connection.list_hypervisors()) == {"node1"}


def test_identity(connection: Any) -> None:
    project = connection.create_project(name="sdk", domain_id="default", description="d")
    user = connection.create_user(name="sdk", password="x-12345", default_project=project.id, domain_id="default")
    group = connection.create_group(name="sdk", description="g")
    role = connection.create_role(name="sdk")
    try:
        assert connection.get_project("sdk").id == project.id
        assert connection.search_projects("sdk")[0].description == "d"
        assert connection.update_project("sdk", description="e").description == "e"
        assert connection.get_user("sdk").id == user.id
        assert "sdk" in names(connection.list_users())
        assert connection.grant_role("sdk", user="sdk", project="sdk")
        assert not connection.grant_role("sdk", user="sdk", project="sdk")
        (assignment,) = connection.list_role_assignments(filters={"user": user.id})
        assert assignment.role["id"] == role.id
        assert connection.revoke_role("sdk", user="sdk", project="sdk")
        connection.add_user_to_group("sdk", "sdk")
        assert connection.is_user_in_group("sdk", "sdk")
        connection.remove_user_from_group("sdk", "sdk")
        assert connection.get_group("sdk").id == group.id
        assert connection.get_domain("default").name == "Default"
    finally:
        assert connection.delete_role("sdk")
        assert connection.delete_group("sdk")
        assert connection.delete_user("sdk")
        assert connection.delete_project("sdk")
    assert connection.get_project("sdk") is None
    assert not connection.delete_project("sdk")


def test_images(connection: Any, tmp_path: Any) -> None:
    file = tmp_path / "sdk.raw"
    file.write_bytes(DATA)
    image = connection.create_image(
        "sdk", filename=str(file), disk_format="raw", container_format="bare", wait=True, meta={"purpose": "test"}
    )
    try:
        assert image.status == "active"
        assert connection.get_image("sdk").id == image.id
        assert connection.get_image("sdk").properties["purpose"] == "test"
        assert [each.id for each in connection.search_images("sdk")] == [image.id]
        target = io.BytesIO()
        connection.download_image("sdk", output_file=target)
        assert target.getvalue() == DATA
        connection.image.update_image(image.id, min_disk=1)
        assert connection.get_image("sdk").min_disk == 1
    finally:
        assert connection.delete_image("sdk", wait=True)
    assert connection.get_image("sdk") is None


def test_networks(connection: Any) -> None:
    network = connection.create_network("sdk")
    subnet = connection.create_subnet("sdk", cidr="10.41.0.0/24", subnet_name="sdk", enable_dhcp=True)
    router = connection.create_router("sdk", ext_gateway_net_id=connection.get_network("public").id)
    connection.add_router_interface(router, subnet_id=subnet.id)
    port = connection.create_port(network.id, name="sdk")
    floating = connection.create_floating_ip("public", port=port.id, wait=False)
    try:
        assert connection.get_network("sdk").subnet_ids == [subnet.id]
        assert [each.id for each in connection.search_subnets("sdk")] == [subnet.id]
        assert connection.update_subnet("sdk", dns_nameservers=["8.8.8.8"]).dns_nameservers == ["8.8.8.8"]
        assert len(list(connection.list_router_interfaces(router, "internal"))) == 1
        assert floating.floating_ip_address in {each.floating_ip_address for each in connection.list_floating_ips()}
        assert connection.get_floating_ip(floating.id).port_id == port.id
        assert connection.list_ports({"network_id": network.id})
        assert connection.get_external_networks()[0].name == "public"
        assert connection.update_port("sdk", name="sdk2").name == "sdk2"
    finally:
        assert connection.delete_floating_ip(floating.id)
        assert connection.delete_port(port.id)
        connection.remove_router_interface(router, subnet_id=subnet.id)
        assert connection.delete_router("sdk")
        assert connection.delete_subnet("sdk")
        assert connection.delete_network("sdk")
    assert connection.get_network("sdk") is None


def test_security_groups(connection: Any) -> None:
    group = connection.create_security_group("sdk", "d")
    try:
        rule = connection.create_security_group_rule("sdk", 80, 80, "tcp", "0.0.0.0/0")
        assert rule.port_range_min == 80
        assert rule.id in {each["id"] for each in connection.get_security_group("sdk").security_group_rules}
        assert connection.update_security_group("sdk", description="e").description == "e"
        assert connection.delete_security_group_rule(rule.id)
        assert group.id in {each.id for each in connection.list_security_groups()}
    finally:
        assert connection.delete_security_group("sdk")


def test_around_servers(connection: Any) -> None:
    flavor = connection.create_flavor("sdk", ram=128, vcpus=1, disk=1)
    key = connection.create_keypair("sdk")
    try:
        assert "PRIVATE KEY" in key.private_key
        assert connection.get_keypair("sdk").fingerprint == key.fingerprint
        assert connection.get_flavor("sdk").id == flavor.id
        assert connection.get_flavor_by_ram(100).ram == 128
        connection.set_flavor_specs(flavor.id, {"a": "b"})
        connection.unset_flavor_specs(flavor.id, ["a"])
        assert connection.search_flavors("sdk")[0].vcpus == 1
    finally:
        assert connection.delete_keypair("sdk")
        assert connection.delete_flavor("sdk")


def test_quotas_limits_and_usage(connection: Any) -> None:
    project = connection.create_project(name="sdk-quota", domain_id="default")
    try:
        connection.set_compute_quotas(project.id, cores=7)
        assert connection.get_compute_quotas(project.id).cores == 7
        connection.delete_compute_quotas(project.id)
        assert connection.get_compute_quotas(project.id).cores == 20
        connection.set_network_quotas(project.id, networks=7)
        assert connection.get_network_quotas(project.id).networks == 7
        assert connection.get_network_quotas(project.id, details=True).networks["used"] == 0
        connection.delete_network_quotas(project.id)
        assert connection.get_compute_limits().max_total_cores == 20
        assert connection.get_compute_usage("admin").total_vcpus_usage >= 0
    finally:
        connection.delete_project(project.id)


def test_a_server(connection: Any) -> None:
    server = connection.create_server(
        "sdk",
        image="cirros",
        flavor="m1.nano",
        network="private",
        auto_ip=True,
        wait=True,
        timeout=120,
        meta={"a": "b"},
    )
    try:
        assert (server.status, server.metadata) == ("ACTIVE", {"a": "b"})
        known = connection.get_server("sdk")
        assert (known.id, known.private_v4[:7], known.public_v4[:7]) == (server.id, "10.254.", "172.24.")
        assert server.id in {each.id for each in connection.list_servers()}
        assert [each.id for each in connection.search_servers("sdk")] == [server.id]
        assert connection.get_server_id("sdk") == server.id
        assert connection.get_openstack_vars(server)["name"] == "sdk"
        assert connection.update_server("sdk", name="sdk2").name == "sdk2"
        connection.set_server_metadata("sdk2", {"c": "d"})
        connection.delete_server_metadata("sdk2", ["a"])
        assert connection.get_server("sdk2").metadata == {"c": "d"}
        connection.add_server_security_groups(server, ["cumulet-ssh"])
        connection.remove_server_security_groups(server, ["cumulet-ssh"])
        connection.compute.lock_server(server)
        connection.compute.unlock_server(server)
        connection.compute.pause_server(server)
        connection.compute.wait_for_server(server, status="PAUSED", wait=60)
        connection.compute.unpause_server(server)
        connection.compute.wait_for_server(server, status="ACTIVE", wait=60)
        assert isinstance(connection.get_server_console(server), str)
        assert len(list(connection.compute.server_actions(server))) >= 3
    finally:
        assert connection.delete_server(server.id, wait=True, timeout=120, delete_ips=True)
    assert connection.get_server("sdk2") is None


@pytest.mark.parametrize(
    "look",
    [
        lambda connection: connection.compute.get_server("nothing"),
        lambda connection: connection.image.get_image("nothing"),
        lambda connection: connection.network.get_network("nothing"),
        lambda connection: connection.identity.get_user("nothing"),
    ],
)
def test_what_does_not_exist(connection: Any, look: Callable[[Any], object]) -> None:
    with pytest.raises(openstack.exceptions.NotFoundException):
        look(connection)
