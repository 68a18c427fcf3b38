"""What a new cloud begins with: flavors, the guest image, a public and a private network, a router.

Each is looked for by its name and made through the public APIs if it is missing; what an operator changed or
renamed is left alone.
"""

import ipaddress
from pathlib import Path
from typing import Any

from cumulet.cli.cloud import Cloud
from cumulet.core.config import Config

FLAVORS = (
    ("m1.nano", 1, 128, 1),
    ("m1.tiny", 1, 192, 1),
    ("m1.small", 1, 1024, 10),
    ("m1.medium", 2, 2048, 20),
)  # name, vCPUs, MB, GB


def ensure(cloud: Cloud, config: Config, image: Path) -> None:
    for name, vcpus, memory_mb, disk_gb in FLAVORS:
        flavor = {"name": name, "vcpus": vcpus, "ram": memory_mb, "disk": disk_gb, "id": "auto"}
        cloud.ensure("compute", "/flavors", name, lambda flavor=flavor: {"flavor": flavor})  # type: ignore[misc]
    _image(cloud, image)
    public = _public(cloud, config)
    subnet = _private(cloud, config)
    _router(cloud, public, subnet)


def _image(cloud: Cloud, image: Path) -> None:
    found = cloud.find("image", "/v2/images", "cirros")
    if found is None:
        wish = {"name": "cirros", "disk_format": "qcow2", "container_format": "bare", "visibility": "public"}
        found = cloud.post("image", "/v2/images", wish)
    if found["status"] == "queued":
        print("  uploading the guest image", flush=True)
        with image.open("rb") as file:
            cloud.put("image", f"/v2/images/{found['id']}/file", file)


def _public(cloud: Cloud, config: Config) -> dict[str, Any]:
    """The external network: its first address is this machine's own, on the external bridge."""
    wish = {
        "name": "public",
        "router:external": True,
        "provider:network_type": "flat",
        "provider:physical_network": "public",
    }
    public = cloud.ensure("network", "/v2.0/networks", "public", lambda: {"network": wish})
    block = ipaddress.ip_network(config.network.public_cidr)
    subnet = {
        "name": "public-subnet",
        "network_id": public["id"],
        "ip_version": block.version,
        "cidr": str(block),
        "gateway_ip": str(block[1]),
        "enable_dhcp": False,
    }
    cloud.ensure("network", "/v2.0/subnets", "public-subnet", lambda: {"subnet": subnet})
    return public


def _private(cloud: Cloud, config: Config) -> dict[str, Any]:
    private = cloud.ensure("network", "/v2.0/networks", "private", lambda: {"network": {"name": "private"}})
    subnet = {
        "name": "private-subnet",
        "network_id": private["id"],
        "ip_version": 4,
        "cidr": config.network.private_cidr,
    }
    return cloud.ensure("network", "/v2.0/subnets", "private-subnet", lambda: {"subnet": subnet})


def _router(cloud: Cloud, public: dict[str, Any], subnet: dict[str, Any]) -> None:
    wish = {"name": "router", "external_gateway_info": {"network_id": public["id"]}}
    router = cloud.ensure("network", "/v2.0/routers", "router", lambda: {"router": wish})
    ports = cloud.get("network", f"/v2.0/ports?device_id={router['id']}&network_id={subnet['network_id']}")["ports"]
    if not ports:
        path = f"/v2.0/routers/{router['id']}/add_router_interface"
        cloud.put("network", path, {"subnet_id": subnet["id"]})
