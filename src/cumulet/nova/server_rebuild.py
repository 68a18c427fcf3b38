"""``rebuild``: a new disk from an image, for the same server: id, ports, addresses and host stay.

The wish is written down with what else the user changes on this occasion; the host makes the disk, once.
"""

from ipaddress import IPv4Address, IPv6Address
from typing import Annotated, Any

from msgspec import UNSET, Meta, UnsetType, field
from sqlalchemy.engine import Row

from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest, Conflict
from cumulet.core.http import Json, Reply, Request, Route
from cumulet.core.schema import Strict, given
from cumulet.neutron import public as neutron
from cumulet.nova import server_views, versions
from cumulet.nova.checks import check_description, check_metadata, check_name
from cumulet.nova.hostnames import check_hostname
from cumulet.nova.server_actions import URL, check_state, movable
from cumulet.nova.server_create import (
    check_image,
    check_metadata_quota,
    check_user_data,
    image_columns,
    key_columns,
    make_password,
)
from cumulet.nova.servers import POLICY, Order, check_access_ip, check_disk_config, get_server, order
from cumulet.nova.tag_rows import find_tags

RULE = POLICY + "rebuild"


class Wish(Strict):
    imageRef: str
    name: str | UnsetType = UNSET
    adminPass: Annotated[str, Meta(max_length=255)] | UnsetType = UNSET
    metadata: dict[str, str] | UnsetType = UNSET
    preserve_ephemeral: bool | UnsetType = UNSET
    access_ip_v4: str | UnsetType = field(name="accessIPv4", default=UNSET)
    access_ip_v6: str | UnsetType = field(name="accessIPv6", default=UNSET)
    disk_config: str | UnsetType = field(name="OS-DCF:diskConfig", default=UNSET)
    description: str | UnsetType | None = UNSET
    key_name: str | UnsetType | None = UNSET
    user_data: str | UnsetType | None = UNSET
    hostname: str | UnsetType = UNSET


class Rebuild(Strict):
    rebuild: Wish


def rebuild_server(request: Request) -> Reply:
    wish: Wish = request.body.rebuild
    versions.check_fields("rebuild", given(wish), request.version)
    columns = _columns(request, wish)
    with request.db.transaction() as tx:
        row = movable(tx, request, RULE)
        check_state(row, "rebuild", ("active", "stopped", "error"))
        if row.launched_at is None:
            raise Conflict("Cannot 'rebuild' an instance which has never been active", kind="InstanceInvalidState")
        columns |= _found(tx, request, row, wish)
        if "metadata" in columns:
            check_metadata_quota(tx, row.project_id, columns["metadata"])
        columns["power"] = "off" if row.vm_state == "stopped" else "on"
        order(tx, request, row, Order("rebuild", columns, verb=True, params={"image_id": wish.imageRef}))
        document = _shown(tx, request)
    document["adminPass"] = make_password() if wish.adminPass is UNSET else wish.adminPass
    location = server_views.server_links(request.app.endpoint, row.id)[0]["href"]
    return Reply({"server": document}, headers={"Location": location})


def _columns(request: Request, wish: Wish) -> dict[str, Any]:
    """What the wish changes by itself."""
    columns: dict[str, Any] = {}
    if wish.name is not UNSET:
        columns["name"] = check_name(wish.name)
    if wish.metadata is not UNSET:
        columns["metadata"] = check_metadata(wish.metadata)
    if wish.description is not UNSET:
        columns["description"] = check_description(wish.description)
    if wish.user_data is not UNSET:
        columns["user_data"] = None if wish.user_data is None else check_user_data(wish.user_data)
    if wish.hostname is not UNSET:
        columns["hostname"] = check_hostname(wish.hostname, fqdn=request.version >= (2, 94))
    if wish.disk_config is not UNSET:
        columns["disk_config"] = check_disk_config(wish.disk_config)
    if wish.access_ip_v4 is not UNSET:
        columns["access_ip_v4"] = check_access_ip(wish.access_ip_v4, IPv4Address)
    if wish.access_ip_v6 is not UNSET:
        columns["access_ip_v6"] = check_access_ip(wish.access_ip_v6, IPv6Address)
    return columns


def _found(tx: Transaction, request: Request, row: Row[Any], wish: Wish) -> dict[str, Any]:
    """What the wish names: the image, checked as at a boot, and the key of the server's user."""
    try:
        columns = image_columns(check_image(tx, request, wish.imageRef, row), row.root_gb)
    except BadRequest as error:
        missing = error.kind == "ImageNotFound"
        raise BadRequest("Cannot find image for rebuild", kind=error.kind) if missing else error from error
    if wish.key_name is not UNSET:
        columns |= key_columns(tx, row.user_id, wish.key_name)
    return columns


def _shown(tx: Transaction, request: Request) -> Json:
    row = get_server(tx, request, RULE, user_data=True)
    look = server_views.look_for(tx, request, server_views.face_for(request, row.project_id), [row], row.project_id)
    ports = neutron.list_server_ports(tx, [row.id]).get(row.id, ())
    tags = find_tags(tx, [row.id]).get(row.id, [])
    return server_views.detail(row, ports, look, tags, kind="server_rebuild")


ROUTES = (Route("POST", URL, rebuild_server, RULE, 202, body=Rebuild, action="rebuild"),)
