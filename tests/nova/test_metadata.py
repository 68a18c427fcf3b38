"""The metadata service and the config drive: what a guest may know, and that only it may."""

import base64
from typing import Any

import msgspec
import pytest

from cumulet.core.secrets import sign
from cumulet.neutron.model import Address, Port
from cumulet.nova import metadata_documents
from tests.nova.api_cloud import SECRETS, Cloud
from tests.nova.test_keypairs import add


class Guest:
    """A server that asks, through an agent that vouches for it."""

    def __init__(self, **wish: Any) -> None:
        self.cloud = Cloud()
        self.cloud.add_host()
        self.network = self.cloud.network(dns_nameservers=["192.0.2.53"])
        self.key = add(self.cloud)["public_key"]
        user_data = base64.b64encode(b"#!/bin/sh\n").decode()
        self.id = self.cloud.running(
            name="Web One",
            networks=[{"uuid": self.network}],
            key_name="kp",
            user_data=user_data,
            metadata={"role": "web"},
            **wish,
        )

    def headers(self, **changes: str | None) -> dict[str, str]:
        proof: dict[str, str | None] = {
            "X-Instance-ID": self.id,
            "X-Tenant-ID": "red",
            "X-Instance-ID-Signature": sign(SECRETS.metadata_secret, self.id),
            "X-Forwarded-For": "10.0.0.2",
            **{name.replace("_", "-"): value for name, value in changes.items()},
        }
        return {name: value for name, value in proof.items() if value is not None}

    def ask(self, path: str, method: str = "GET", body: Any = None, **changes: str | None) -> tuple[int, Any]:
        status, answer, _ = self.cloud.metadata.call(method, path, body, self.headers(**changes))
        return status, answer

    def read(self, path: str) -> Any:
        status, answer = self.ask(path)
        assert status == 200, (path, answer)
        return answer.decode() if isinstance(answer, bytes) else answer


@pytest.fixture(scope="module")
def guest() -> Guest:
    return Guest()


def test_the_openstack_tree(guest: Guest) -> None:
    assert guest.read("/openstack").split("\n")[0::10] == ["2012-08-10", "latest"]
    assert guest.read("/openstack/latest/").split("\n") == [
        "meta_data.json", "user_data", "password", "vendor_data.json", "network_data.json", "vendor_data2.json",
    ]  # fmt: skip
    meta = guest.read("/openstack/latest/meta_data.json")
    assert len(base64.b64decode(meta.pop("random_seed"))) == 512
    assert meta == {
        "uuid": guest.id, "name": "Web One", "hostname": "web-one", "launch_index": 0, "availability_zone": "nova",
        "project_id": "red", "meta": {"role": "web"}, "public_keys": {"kp": guest.key},
        "keys": [{"name": "kp", "type": "ssh", "data": guest.key}], "devices": [], "dedicated_cpus": [],
    }  # fmt: skip
    assert guest.read("/openstack/latest/user_data") == "#!/bin/sh\n"
    assert guest.read("/openstack/latest/vendor_data.json") == {}
    assert guest.read("/openstack/2016-10-06/vendor_data2.json") == {"static": {}}
    network = guest.read("/openstack/latest/network_data.json")
    (link,) = network["links"]
    assert (link["type"], link["ethernet_mac_address"][:8], link["id"][:3]) == ("ovs", "fa:16:3e", "tap")
    assert network["networks"] == [
        {"id": "network0", "type": "ipv4_dhcp", "link": link["id"], "network_id": guest.network}
    ]
    assert network["services"] == [{"type": "dns", "address": "192.0.2.53"}]


def test_old_versions_have_less(guest: Guest) -> None:
    assert guest.read("/openstack/2012-08-10").split("\n") == ["meta_data.json", "user_data"]
    old = guest.read("/openstack/2012-08-10/meta_data.json")
    assert not {"random_seed", "project_id", "devices"} & set(old)
    assert guest.ask("/openstack/2012-08-10/network_data.json")[0] == 404
    assert guest.ask("/openstack/1999-01-01")[0] == 404
    assert "instance-type" not in guest.read("/1.0/meta-data/").split("\n")
    assert guest.ask("/1999-01-01/meta-data/")[0] == 404


def test_the_ec2_tree(guest: Guest) -> None:
    assert guest.read("/").split("\n")[-2:] == ["2009-04-04", "latest"]
    assert guest.read("/ec2").split("\n")[0] == "1.0"
    assert guest.read("/latest") == "meta-data/\nuser-data"
    listing = guest.read("/latest/meta-data/").split("\n")
    assert {"ami-id", "block-device-mapping/", "hostname", "placement/", "public-keys/"} <= set(listing)
    values = {
        "instance-id": f"i-{guest.id[:8]}",
        "instance-type": "m1.tiny",
        "local-ipv4": "10.0.0.2",
        "public-ipv4": "",
        "hostname": "web-one",
        "security-groups": "default",
        "placement/availability-zone": "nova",
        "placement": "availability-zone",
        "public-keys/": "0=kp",
        "public-keys/0/": "openssh-key",
        "public-keys/0/openssh-key": guest.key,
    }
    for path, expected in values.items():
        status, answer = guest.ask(f"/latest/meta-data/{path}")
        assert (status, answer.decode()) == (200, expected), path
    assert guest.read("/2009-04-04/user-data") == "#!/bin/sh\n"
    for path in ("/latest/meta-data/nope", "/latest/meta-data/hostname/x", "/latest/nope", "/nope"):
        assert guest.ask(path)[0] == 404


def test_forged_and_missing_proof(guest: Guest) -> None:
    path = "/openstack/latest/meta_data.json"
    other = guest.cloud.running("bob")
    for change, expected in (
        ({"X_Instance_ID": None}, 400),
        ({"X_Tenant_ID": None}, 400),
        ({"X_Instance_ID_Signature": None}, 400),
        ({"X_Forwarded_For": None}, 400),
        ({"X_Instance_ID": f"{guest.id}, {other}"}, 400),
        ({"X_Instance_ID_Signature": "0" * 64}, 403),
        ({"X_Instance_ID_Signature": sign("guess", guest.id)}, 403),
        ({"X_Instance_ID": other}, 403),
        ({"X_Tenant_ID": "blue"}, 404),
        ({"X_Instance_ID": other, "X_Instance_ID_Signature": sign(SECRETS.metadata_secret, other)}, 404),
        ({"X_Forwarded_For": "10.0.0.3"}, 404),
        ({"X_Forwarded_For": "nonsense"}, 400),
        ({"X_Instance_ID": "a/b", "X_Instance_ID_Signature": sign(SECRETS.metadata_secret, "a/b")}, 404),
    ):
        assert guest.ask(path, **change)[0] == expected, change
    for path in ("/../etc/passwd", "/openstack/../latest", "/latest/meta-data/../user-data", "/./latest"):
        assert guest.ask(path)[0] == 404
    assert guest.cloud.metadata.call("GET", "/")[0] == 400
    assert guest.cloud.metadata.call("GET", "/healthcheck")[:2] == (200, b"OK")


def test_the_password_is_told_once() -> None:
    guest = Guest()
    url, path = f"/servers/{guest.id}/os-server-password", "/openstack/latest/password"
    assert guest.cloud.get("alice", url) == {"password": ""}
    assert guest.ask(path) == (200, b"")
    assert guest.ask(path, "POST", b"x" * 511)[0] == 400
    assert guest.ask(path, "POST", b"\xff")[0] == 400
    assert guest.ask("/openstack/latest/user_data", "POST", b"x")[0] == 404
    assert guest.ask(path, "POST", b"secret", X_Tenant_ID="blue")[0] == 404
    assert guest.ask(path, "POST", b"secret")[0] == 200
    assert guest.ask(path, "POST", b"again")[0] == 409
    assert guest.ask(path) == (200, b"secret")
    assert guest.cloud.get("alice", url) == {"password": "secret"}
    assert guest.cloud.refused("rita", "DELETE", url)[0] == 403
    assert guest.cloud.call("alice", "DELETE", url)[0] == 204
    assert guest.ask(path, "POST", b"new")[0] == 200


def test_a_guest_on_ipv6() -> None:
    guest = Guest()
    network = guest.cloud.network(cidr="2001:db8::/64", name="six", ipv6_address_mode="slaac", ipv6_ra_mode="slaac")
    guest.id = guest.cloud.running(networks=[{"uuid": network}], name="six")
    (port,) = guest.cloud.get("alice", f"/servers/{guest.id}/os-interface")["interfaceAttachments"]
    address = port["fixed_ips"][0]["ip_address"]
    path = "/openstack/latest/network_data.json"
    assert guest.ask(path, X_Forwarded_For="2001:db8::1234")[0] == 404
    status, network_data = guest.ask(path, X_Forwarded_For=address)
    assert (status, network_data["networks"][0]["type"]) == (200, "ipv6_slaac")
    link_local = "fe80::" + address.split("::")[-1] if "::" in address else address.replace("2001:db8:0:0", "fe80:")
    assert guest.ask(path, X_Forwarded_For=link_local)[0] == 200
    assert guest.ask(path, X_Forwarded_For="fe80::1")[0] == 404


def test_the_config_drive(guest: Guest) -> None:
    with guest.cloud.db.read() as tx:
        files = metadata_documents.config_drive_files(tx, guest.id)
    for version in (*metadata_documents.OPENSTACK_VERSIONS, "latest"):
        assert f"openstack/{version}/meta_data.json" in files
    assert not any("password" in path for path in files)
    assert files["openstack/latest/user_data"] == b"#!/bin/sh\n"
    assert msgspec.json.decode(files["openstack/latest/meta_data.json"])["uuid"] == guest.id
    assert msgspec.json.decode(files["openstack/latest/network_data.json"])["services"]
    assert msgspec.json.decode(files["ec2/latest/meta-data.json"])["hostname"] == "web-one"
    assert set(files) >= {"openstack/latest/vendor_data.json", "openstack/latest/vendor_data2.json"}


def test_a_static_network_is_described_in_full(guest: Guest) -> None:
    address = Address(
        "10.0.0.9", "s", "10.0.0.0/24", "10.0.0.1", ("192.0.2.53",), (("10.9.0.0/16", "10.0.0.7"),), dhcp=False
    )
    port = Port("p" * 36, "n", "net", "fa:16:3e:00:00:01", (address,), 1450, True, "d", "ACTIVE")
    (network,) = metadata_documents.network_data([port])["networks"]
    assert network["type"] == "ipv4"
    assert (network["ip_address"], network["netmask"]) == ("10.0.0.9", "255.255.255.0")
    assert network["routes"] == [
        {"network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": "10.0.0.1"},
        {"network": "10.9.0.0", "netmask": "255.255.0.0", "gateway": "10.0.0.7"},
    ]
