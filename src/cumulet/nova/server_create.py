"""``POST /servers``: write down the wish.

One transaction makes the server, its ports, its history and moves the quota's guard; nothing else happens here.
nova-scheduler finds the row by its missing host.  Everything that can be known to be wrong now is a 4xx now.
"""

import base64
import binascii
import secrets
import string
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from math import ceil
from typing import Any

from sqlalchemy.engine import Row

from cumulet.core import clock
from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest, Forbidden, NotFound
from cumulet.core.http import Json, Reply, Request, Route
from cumulet.core.schema import UNSET, given
from cumulet.glance import public as glance
from cumulet.glance.model import Image
from cumulet.neutron.model import PortWish
from cumulet.nova import (
    availability_zones,
    device_tags,
    moves,
    notices,
    quotas,
    scheduler_hints,
    server_dry_run,
    server_groups,
    server_views,
    versions,
)
from cumulet.nova.checks import check_description, check_metadata, check_name
from cumulet.nova.flavors import get_flavor
from cumulet.nova.hostnames import check_hostname, hostname_from
from cumulet.nova.keypairs import find_keypair
from cumulet.nova.paging import boolean
from cumulet.nova.server_ports import choose_ports, create_ports
from cumulet.nova.server_wishes import BlockDevice, CreateServer, NewServer, port_wishes
from cumulet.nova.servers import POLICY, Order, check_access_ip, check_disk_config, record
from cumulet.nova.tables import servers
from cumulet.nova.tag_rows import check_tags, write_tags

GIB = 1 << 30
LONGEST_USER_DATA, LONGEST_PROPERTY = 65535, 255
MOST_AT_ONCE = 1000
PASSWORD_LETTERS = string.ascii_letters + string.digits
PASSWORD_LENGTH = 12
BOOTABLE = ("raw", "qcow2", "vmdk", "vhd", "vhdx", "vdi", "iso", "ami")


@dataclass(frozen=True)
class Wanted:
    """A wish that is sound in itself; what it names has yet to be looked up."""

    columns: Mapping[str, Any]
    image_id: str
    flavor_id: str
    key_name: str | None
    ports: Sequence[PortWish] | None  # None: choose for me
    must_have_network: bool
    groups: Sequence[str]
    least: int
    most: int
    hostname: str | None
    tags: Sequence[str]
    devices: device_tags.Wished
    password: str


def create_servers(request: Request) -> Reply:
    wish: NewServer = request.body.server
    if not request.context.project_id:
        raise Forbidden("A server belongs to a project: use a token that is scoped to one")
    versions.check_fields("server", given(wish), request.version)
    wanted = _check(request, wish)
    if server_dry_run.is_asked(request):
        return server_dry_run.rehearse(request, lambda tx: _create(tx, request, wanted)[0])
    with request.db.transaction() as tx:
        ids, reservation = _create(tx, request, wanted)
    if wish.return_reservation_id is not UNSET and boolean(wish.return_reservation_id, "return_reservation_id"):
        return Reply({"reservation_id": reservation})
    links = server_views.server_links(request.app.endpoint, ids[0])
    groups = [{"name": name} for name in wanted.groups or ("default",)]
    server: Json = {
        "id": ids[0],
        "links": links,
        "OS-DCF:diskConfig": wanted.columns["disk_config"],
        "security_groups": groups,
        "adminPass": wanted.password,
    }
    return Reply({"server": server}, headers={"Location": links[0]["href"]})


# ── what can be said of a wish without looking anything up ───────────────────────────────────────────────────


def _check(request: Request, wish: NewServer) -> Wanted:
    least, most = _counts(wish)
    ports = port_wishes(wish.networks, request.version)
    if ports:
        request.enforce(POLICY + "create:attach_network")
    if most > 1 and any(port.port_id or port.fixed_ip for port in ports or ()):
        raise BadRequest("Failed to launch instances: a port or a fixed_ip cannot be given to several of them")
    hostname = None
    if isinstance(wish.hostname, str):
        if most > 1:
            raise BadRequest("Unable to allocate a single hostname to multiple instances")
        hostname = check_hostname(wish.hostname, fqdn=request.version >= (2, 94))
    return Wanted(
        columns=_columns(request, wish),
        image_id=_image_id(wish),
        flavor_id=str(wish.flavorRef).rsplit("/", 1)[-1],
        key_name=None if wish.key_name is UNSET else check_name(wish.key_name, "key_name"),
        ports=ports,
        must_have_network=wish.networks == "auto",
        groups=_groups(wish),
        least=least,
        most=most,
        hostname=hostname,
        tags=() if wish.tags is UNSET else check_tags(wish.tags),
        devices=device_tags.wished(wish, request.version),
        password=make_password() if wish.adminPass is UNSET else wish.adminPass,
    )


def _counts(wish: NewServer) -> tuple[int, int]:
    least = 1 if wish.min_count is UNSET else wish.min_count
    most = least if wish.max_count is UNSET else wish.max_count
    if least > most:
        raise BadRequest("min_count must be <= max_count")
    if most > MOST_AT_ONCE:
        raise BadRequest(f"max_count must be <= {MOST_AT_ONCE}")
    return least, most


def _columns(request: Request, wish: NewServer) -> dict[str, Any]:
    """The columns that the wish fills by itself."""
    name = check_name(wish.name)
    description = wish.description if request.version >= (2, 19) else name
    metadata = {} if wish.metadata is UNSET else check_metadata(wish.metadata)
    v4, v6 = wish.accessIPv4, wish.accessIPv6
    return {
        "name": name,
        "description": None if description is UNSET else check_description(description),
        "metadata": metadata,
        "user_data": None if wish.user_data is UNSET else check_user_data(wish.user_data),
        "config_drive": wish.config_drive is not UNSET and _config_drive(wish.config_drive),
        "availability_zone": _zone(request, wish),
        "scheduler_hints": _hints(request.body),
        "access_ip_v4": None if v4 is UNSET else check_access_ip(v4, IPv4Address),
        "access_ip_v6": None if v6 is UNSET else check_access_ip(v6, IPv6Address),
        "disk_config": "MANUAL" if wish.disk_config is UNSET else check_disk_config(wish.disk_config),
    }


def _groups(wish: NewServer) -> list[str]:
    names = [] if wish.security_groups is UNSET else [group.name for group in wish.security_groups]
    return [check_name(name, "security_groups") for name in dict.fromkeys(names)]


def _image_id(wish: NewServer) -> str:
    """The image to boot from.  There are no volumes: a block device may only say that the image is the disk."""
    image_id = "" if wish.imageRef is UNSET else wish.imageRef
    if wish.block_device_mapping is not UNSET and wish.block_device_mapping:
        raise BadRequest("Block Device Mapping is Invalid: this cloud has no volumes; boot from an image")
    devices: list[BlockDevice] = [] if wish.block_device_mapping_v2 is UNSET else wish.block_device_mapping_v2
    if len(devices) > 1:
        raise BadRequest("Block Device Mapping is Invalid: this cloud has no volumes; give one device, the image")
    for device in devices:
        source = device.uuid or device.image_id
        plain = device.source_type == "image" and device.destination_type == "local"
        if not plain or str(device.boot_index) != "0" or not source:
            raise BadRequest(
                "Block Device Mapping is Invalid: this cloud has no volumes; the only device is "
                "source_type image, destination_type local, boot_index 0"
            )
        if image_id and source != image_id:
            raise BadRequest("Block Device Mapping is Invalid: its image and imageRef differ")
        image_id = source
    if not image_id:
        raise BadRequest("Invalid imageRef provided.")
    return image_id


def check_user_data(text: str) -> str:
    if len(text) > LONGEST_USER_DATA:
        raise BadRequest(f"User data is too long: {len(text)} characters of base64, at most {LONGEST_USER_DATA}")
    try:
        base64.b64decode("".join(text.split()), validate=True)
    except (ValueError, binascii.Error) as error:
        raise BadRequest("User data needs to be valid base 64.") from error
    return text


def _config_drive(value: bool | str) -> bool:
    return value != "" and boolean(value, "config_drive")


def _zone(request: Request, wish: NewServer) -> str | None:
    """``zone``, or ``zone:host`` for administrators, who may also name the host by itself (2.74)."""
    text = "" if wish.availability_zone is UNSET else check_name(wish.availability_zone, "availability_zone")
    zone, _, rest = text.partition(":")
    host = rest.partition(":")[0]
    if host:
        request.enforce(POLICY + "create:forced_host")
    named = {name for name in (wish.host, wish.hypervisor_hostname) if name is not UNSET}
    if named:
        request.enforce("compute:servers:create:requested_destination")
        if host or len(named) > 1:
            raise BadRequest("host, hypervisor_hostname and availability_zone name different hosts")
        host = check_name(str(named.pop()), "host")
    return (f"{zone}:{host}" if host else zone) or None


def _hints(body: CreateServer) -> dict[str, Any]:
    hints = body.hints if body.hints is not UNSET else body.old_hints if body.old_hints is not UNSET else {}
    for name in hints:
        if name.startswith("_"):
            raise BadRequest(f"Invalid input for field/attribute os:scheduler_hints. {name[:300]} is not for users")
    if len(repr(hints)) > LONGEST_USER_DATA:
        raise BadRequest("Invalid input for field/attribute os:scheduler_hints. They are too long")
    scheduler_hints.check(hints)
    return hints


def make_password() -> str:
    return "".join(secrets.choice(PASSWORD_LETTERS) for _ in range(PASSWORD_LENGTH))


# ── in the transaction ───────────────────────────────────────────────────────────────────────────────────────


def _create(tx: Transaction, request: Request, wanted: Wanted) -> tuple[list[str], str]:
    """The new servers' ids and their reservation's."""
    availability_zones.check_zone(tx, wanted.columns["availability_zone"])
    flavor = _flavor(tx, request, wanted.flavor_id)
    image = check_image(tx, request, wanted.image_id, flavor)
    shared = {
        **wanted.columns,
        **moves.flavor_columns(flavor_copy(flavor)),
        **image_columns(image, flavor.root_gb),
        **key_columns(tx, request.context.user_id, wanted.key_name),
        **_common_columns(request),
    }
    check_metadata_quota(tx, request.context.project_id, wanted.columns["metadata"])
    ports = choose_ports(tx, request, wanted.ports, wanted.must_have_network)
    number = quotas.claim(tx, request.context, flavor.vcpus, flavor.memory_mb, wanted.least, wanted.most)
    shared["server_group_id"] = server_groups.join(tx, request, wanted.columns["scheduler_hints"], number)
    rows = [_row(shared, wanted, index, number) for index in range(number)]
    tx.write(servers.insert(), rows)
    for row in rows:
        record(tx, request, row["id"], request.context.project_id, Order("create"), generation=1)
        made = create_ports(tx, request, row, ports, wanted.groups)
        device_tags.write(tx, row["id"], wanted.devices, made)
        if wanted.tags:
            write_tags(tx, row["id"], wanted.tags)
        told = notices.find_row(tx, row["id"])
        if told:
            notices.tell(tx, told, "create.start", state="building")
        tx.hint("nova.servers", row["id"])
    return [row["id"] for row in rows], shared["reservation_id"]


def _row(shared: Mapping[str, Any], wanted: Wanted, index: int, number: int) -> dict[str, Any]:
    server_id = str(uuid.uuid4())
    suffix = "" if number == 1 else f"-{index + 1}"
    name = shared["name"][: 255 - len(suffix)] + suffix
    return {
        **shared,
        "id": server_id,
        "name": name,
        "hostname": wanted.hostname or hostname_from(name, server_id),
        "launch_index": index,
    }


def _common_columns(request: Request) -> dict[str, Any]:
    now, context = clock.now(), request.context
    return {
        "project_id": context.project_id,
        "user_id": context.user_id,
        "created_at": now,
        "updated_at": now,
        "request_id": context.request_id,
        "reservation_id": "r-" + "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(8)),
        "power": "on",
        "generation": 1,
    }


def _flavor(tx: Transaction, request: Request, flavor_id: str) -> Row[Any]:
    try:
        return get_flavor(tx, request, flavor_id)
    except NotFound as error:
        raise BadRequest(error.message, kind=error.kind) from error


def flavor_copy(flavor: Row[Any]) -> dict[str, Any]:
    """What a server keeps of its flavor, whatever becomes of that."""
    return {
        "id": flavor.id,
        "name": flavor.name,
        "vcpus": flavor.vcpus,
        "ram": flavor.memory_mb,
        "disk": flavor.root_gb,
        "ephemeral": flavor.ephemeral_gb,
        "swap": flavor.swap_mb,
        "extra_specs": flavor.extra_specs,
    }


def check_image(tx: Transaction, request: Request, image_id: str, flavor: Row[Any]) -> Image:
    """The image, if it can be booted with a flavor (or a server) of this memory and disk."""
    try:
        image = glance.get_image(tx, request.context, image_id)
    except NotFound as error:
        raise BadRequest("Can not find requested image", kind="ImageNotFound") from error
    if image.status != "active":
        raise BadRequest(f"Image {image.id} is not active.", kind="ImageNotActive")
    if image.disk_format not in BOOTABLE or not image.sha512:
        raise BadRequest(f"Image {image.id} is unacceptable: a disk of format {image.disk_format} cannot be booted")
    if flavor.memory_mb < image.min_ram:
        raise BadRequest("Flavor's memory is too small for requested image.")
    if flavor.root_gb == 0:
        if not request.allows(POLICY + "create:zero_disk_flavor"):
            raise Forbidden("Only volume-backed servers are allowed for flavors with zero disk.")
        return image
    size, needed = flavor.root_gb * GIB, image.virtual_size or image.size or 0
    if image.min_disk * GIB > size:
        raise BadRequest(
            "Flavor's disk is smaller than the minimum size specified in image metadata. "
            f"Flavor disk is {size} bytes, minimum size is {image.min_disk * GIB} bytes."
        )
    if needed > size:
        raise BadRequest(
            "Flavor's disk is too small for requested image. "
            f"Flavor disk is {size} bytes, image is {needed} bytes ({ceil(needed / GIB)} GB)."
        )
    return image


def image_columns(image: Image, root_gb: int) -> dict[str, Any]:
    """``nova.model.ImageSource`` without its ticket, and what is shown of the image as it was."""
    inherited = {
        "base_image_ref": image.id,
        **image.properties,
        "container_format": image.container_format,
        "disk_format": image.disk_format,
        "min_disk": str(max(image.min_disk, root_gb)),
        "min_ram": str(image.min_ram),
    }
    copy = {
        "id": image.id,
        "disk_format": image.disk_format,
        "size": image.size or 0,
        "virtual_size": image.virtual_size or image.size or 0,
        "sha512": image.sha512,
        "properties": {name: value[:LONGEST_PROPERTY] for name, value in inherited.items() if value is not None},
    }
    return {"image_id": image.id, "image": copy}


def key_columns(tx: Transaction, user_id: str, name: str | None) -> dict[str, Any]:
    """A copy of the user's key; none if none is named."""
    if name is None:
        return {"key_name": None, "key": None}
    key = find_keypair(tx, user_id, name)
    if key is None:
        raise BadRequest("Invalid key_name provided.", kind="KeypairNotFound")
    return {"key_name": name, "key": {"name": name, "type": key.type, "public_key": key.public_key}}


def check_metadata_quota(tx: Transaction, project_id: str, metadata: Mapping[str, str]) -> None:
    if metadata:
        limit = quotas.read_limits(tx, project_id)["metadata_items"]
        if 0 <= limit < len(metadata):
            raise Forbidden(f"Maximum number of metadata items exceeds {limit}", kind="MetadataLimitExceeded")


ROUTES = (Route("POST", "/v2.1/servers", create_servers, POLICY + "create", 202, body=CreateServer),)
