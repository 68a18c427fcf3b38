"""nova's microversions: the range, what each of them changed, and the version documents.

Handlers build one document that holds everything.  ``render`` then undoes, newest first, each change that the
caller's version does not have yet (``CHANGES``), and leaves out what it has no more (``GONE``).  ``check_fields``
refuses what a request may not say yet (``FIELDS``).  New shape, new line: nothing else knows of versions, but
for routes that come or go (``Route.since``, ``Route.until``).
"""

from collections.abc import Callable, Collection, Mapping
from functools import cache

from cumulet.core.errors import BadRequest, NotFound
from cumulet.core.http import Json, Request, Route
from cumulet.core.microversion import Change, Version, Versions, text
from cumulet.core.policy import AUTHENTICATED, PUBLIC

VERSIONS = Versions("compute", (2, 1), (2, 100), "X-OpenStack-Nova-API-Version")
UPDATED, LEGACY_UPDATED = "2013-07-23T11:33:21Z", "2011-01-21T11:33:21Z"
ATTRIBUTE, STATUS = "OS-EXT-SRV-ATTR:", "OS-EXT-STS:"


def without(*keys: str) -> Callable[[Json], None]:
    def undo(document: Json) -> None:
        for key in keys:
            document.pop(key, None)

    return undo


def _link_flavor(document: Json) -> None:
    document["flavor"] = document["_flavor_link"]


def _hide_hostname(document: Json) -> None:
    """Until 2.90 the host name was among what only administrators see."""
    if f"{ATTRIBUTE}host" not in document:
        document.pop(f"{ATTRIBUTE}hostname", None)


def _bare_image(document: Json) -> None:
    if document["image"]:
        del document["image"]["properties"]


def _shrink_updated(document: Json) -> None:
    """Until 2.75 PUT answered with fewer fields than GET."""
    for key in list(document):
        if key.startswith((ATTRIBUTE, STATUS, "OS-EXT-AZ:", "OS-SRV-USG:", "os-extended-volumes:")):
            del document[key]
    without("config_drive", "key_name", "security_groups", "host_status")(document)
    for addresses in document["addresses"].values():
        for address in addresses:
            without("OS-EXT-IPS:type", "OS-EXT-IPS-MAC:mac_addr")(address)


def _shrink_rebuilt(document: Json) -> None:
    """The same for rebuild; its key's name came earlier."""
    key_name = document["key_name"]
    _shrink_updated(document)
    document["key_name"] = key_name


def _blank_swap(document: Json) -> None:
    document["swap"] = document["swap"] or ""


def number(identity: str) -> int:
    """The number that stands for a UUID in versions whose ids were numbers; stable, and unique in practice."""
    return int(identity.replace("-", "")[:8], 16) & 0x7FFFFFFF


def _number_ids(document: Json) -> None:
    document["id"] = number(document["id"])
    if "service" in document:
        document["service"]["id"] = number(document["service"]["id"])


def _encode_cpu_info(document: Json) -> None:
    if "cpu_info" in document:
        import json

        document["cpu_info"] = json.dumps(document["cpu_info"])


def _no_events(document: Json) -> None:
    """Until 2.51 only those who may see all of an event saw that there was one."""
    if not all("traceback" in event for event in document.get("events", ())):
        del document["events"]


def _in_events(*keys: str) -> Callable[[Json], None]:
    def undo(document: Json) -> None:
        for event in document.get("events", ()):
            without(*keys)(event)

    return undo


def _drop_empty_servers(document: Json) -> None:
    if not document.get("servers", True):
        del document["servers"]


def _list_policies(document: Json) -> None:
    """Until 2.64 a server group had a list of policies, always of one, and metadata, always empty."""
    document["policies"] = [document.pop("policy")]
    document["metadata"] = {}
    del document["rules"]


_OLD_NIC = {
    "rx": "octets", "rx_packets": "packets", "rx_errors": "errors", "rx_drop": "drop",
    "tx": "octets", "tx_packets": "packets", "tx_errors": "errors", "tx_drop": "drop",
}  # fmt: skip
_OLD_DISK = {
    "read": "read_bytes",
    "read_req": "read_requests",
    "write": "write_bytes",
    "write_req": "write_requests",
}


def _plain_diagnostics(document: Json) -> None:
    """Until 2.48 diagnostics were libvirt's own: one number for each counter of each device."""
    flat = {f"cpu{cpu['id']}_time": cpu["time"] for cpu in document["cpu_details"]}
    flat["memory"] = document["memory_details"]["maximum"] * 1024
    flat["memory-rss"] = document["memory_details"]["used"] * 1024
    for device, nic in zip(document["_nics"], document["nic_details"], strict=True):
        flat |= {f"{device}_{old}": nic[f"{old[:2]}_{new}"] for old, new in _OLD_NIC.items()}
    for device, disk in zip(document["_disks"], document["disk_details"], strict=True):
        flat |= {f"{device}_{old}": disk[new] for old, new in _OLD_DISK.items()} | {f"{device}_errors": -1}
    document.clear()
    document.update(flat)


_SERVER: tuple[tuple[Version, Callable[[Json], None]], ...] = (
    ((2, 100), without("scheduler_hints")),
    ((2, 98), _bare_image),
    ((2, 96), without("pinned_availability_zone")),
    ((2, 90), _hide_hostname),
    ((2, 73), without("locked_reason")),
    ((2, 71), without("server_groups")),
    ((2, 63), without("trusted_image_certificates")),
    ((2, 47), _link_flavor),
    ((2, 26), without("tags")),
    ((2, 19), without("description")),
    ((2, 16), without("host_status")),
    ((2, 9), without("locked")),
    (
        (2, 3),
        without(
            *(
                ATTRIBUTE + name
                for name in (
                    "hostname", "kernel_id", "launch_index", "ramdisk_id", "reservation_id", "root_device_name",
                    "user_data",
                )
            )
        ),
    ),
)  # fmt: skip

CHANGES: tuple[Change, ...] = (
    *(Change(since, "server", undo) for since, undo in _SERVER),
    *(Change(since, "server_update", undo) for since, undo in _SERVER),
    *(Change(since, "server_rebuild", undo) for since, undo in _SERVER),
    Change((2, 75), "server_update", _shrink_updated),
    Change((2, 75), "server_rebuild", _shrink_rebuilt),
    Change((2, 57), "server_rebuild", without("user_data")),
    Change((2, 54), "server_rebuild", without("key_name")),
    Change((2, 75), "flavor", _blank_swap),
    Change((2, 61), "flavor", without("extra_specs")),
    Change((2, 55), "flavor", without("description")),
    Change((2, 55), "flavor_brief", without("description")),
    Change((2, 2), "keypair", without("type")),
    Change((2, 53), "service", _number_ids),
    Change((2, 11), "service", without("forced_down")),
    Change((2, 88), "hypervisor", without("uptime")),
    Change((2, 75), "hypervisor", _drop_empty_servers),
    Change((2, 53), "hypervisor", _number_ids),
    Change((2, 28), "hypervisor", _encode_cpu_info),
    Change((2, 84), "action", _in_events("details")),
    Change((2, 62), "action", _in_events("host", "hostId")),
    Change((2, 58), "action", without("updated_at")),
    Change((2, 51), "action", _no_events),
    Change((2, 48), "diagnostics", _plain_diagnostics),
    Change((2, 41), "aggregate", without("uuid")),
    Change((2, 50), "quota_class_set", without("server_groups", "server_group_members")),
    Change((2, 64), "server_group", _list_policies),
    Change((2, 13), "server_group", without("project_id", "user_id")),
    Change((2, 70), "interface", without("tag")),
    Change((2, 80), "migration", without("user_id", "project_id")),
    Change((2, 59), "migration", without("uuid")),
    Change((2, 23), "migration", without("migration_type", "links")),
    Change((2, 80), "server_migration", without("user_id", "project_id")),
    Change((2, 59), "server_migration", without("uuid")),
)

_NETWORK_QUOTAS = ("fixed_ips", "floating_ips", "security_group_rules", "security_groups")
_FILE_QUOTAS = ("injected_files", "injected_file_content_bytes", "injected_file_path_bytes")

GONE: tuple[tuple[Version, str, tuple[str, ...]], ...] = (
    ((2, 1), "server", ("_flavor_link",)),
    ((2, 1), "server_update", ("_flavor_link",)),
    ((2, 1), "diagnostics", ("_nics", "_disks")),
    ((2, 1), "server_rebuild", ("_flavor_link",)),
    ((2, 36), "quota_set", _NETWORK_QUOTAS),
    ((2, 57), "quota_set", _FILE_QUOTAS),
    ((2, 50), "quota_class_set", _NETWORK_QUOTAS),
    ((2, 57), "quota_class_set", _FILE_QUOTAS),
    (
        (2, 36),
        "limits",
        (
            "maxTotalFloatingIps", "maxSecurityGroups", "maxSecurityGroupRules", "totalFloatingIpsUsed",
            "totalSecurityGroupsUsed",
        ),
    ),
    ((2, 39), "limits", ("maxImageMeta",)),
    ((2, 57), "limits", ("maxPersonality", "maxPersonalitySize")),
    (
        (2, 88),
        "hypervisor",
        (
            "vcpus", "memory_mb", "local_gb", "vcpus_used", "memory_mb_used", "local_gb_used", "free_ram_mb",
            "free_disk_gb", "current_workload", "running_vms", "disk_available_least", "cpu_info",
        ),
    ),
)  # fmt: skip

FIELDS: Mapping[str, Mapping[str, Version]] = {
    "server": {
        "description": (2, 19),
        "tags": (2, 52),
        "trusted_image_certificates": (2, 63),
        "host": (2, 74),
        "hypervisor_hostname": (2, 74),
        "hostname": (2, 90),
    },
    "rebuild": {"description": (2, 19), "key_name": (2, 54), "user_data": (2, 57), "hostname": (2, 90)},
    "keypair": {"type": (2, 2), "user_id": (2, 10)},
    "flavor": {"description": (2, 55)},
    "lock": {"locked_reason": (2, 73)},
    "migrate": {"host": (2, 56)},
    "os-migrateLive": {"force": (2, 30)},
    "evacuate": {"force": (2, 29)},
}

DROPPED: Mapping[str, Mapping[str, Version]] = {
    "evacuate": {"onSharedStorage": (2, 14), "force": (2, 68)},
    "os-migrateLive": {"disk_over_commit": (2, 25), "force": (2, 68)},
}
"""Fields that requests may have no more, each with the first version without it."""

VALUES: Mapping[str, Mapping[str, Version]] = {
    "policy": {
        "affinity": (2, 1),
        "anti-affinity": (2, 1),
        "soft-affinity": (2, 15),
        "soft-anti-affinity": (2, 15),
    },
    "event": {
        "network-changed": (2, 1),
        "network-vif-plugged": (2, 1),
        "network-vif-unplugged": (2, 1),
        "network-vif-deleted": (2, 1),
        "volume-extended": (2, 51),
        "power-update": (2, 76),
        "accelerator-request-bound": (2, 82),
    },
}


_PAGED: Mapping[str, Version] = {"limit": (2, 1), "marker": (2, 1)}
QUERIES: Mapping[str, tuple[Version, Mapping[str, Version]]] = {
    "flavors": (
        (2, 75),
        {**_PAGED, **dict.fromkeys(("is_public", "minRam", "minDisk", "sort_key", "sort_dir"), (2, 1))},
    ),
    "keypairs": ((2, 75), {**_PAGED, "user_id": (2, 10)}),
    "keypair": ((2, 75), {"user_id": (2, 10)}),
    "limits": ((2, 75), {"tenant_id": (2, 1)}),
    "quota_set": ((2, 75), {"user_id": (2, 1)}),
    "server_groups": ((2, 75), dict.fromkeys(("all_projects", "limit", "offset"), (2, 1))),
    "services": ((2, 75), dict.fromkeys(("host", "binary"), (2, 1))),
    "usages": ((2, 75), {**_PAGED, **dict.fromkeys(("start", "end", "detailed"), (2, 1))}),
    "usage": ((2, 75), {**_PAGED, **dict.fromkeys(("start", "end"), (2, 1))}),
    "hypervisors": (
        (2, 53),
        {**_PAGED, **dict.fromkeys(("hypervisor_hostname_pattern", "with_servers"), (2, 53))},
    ),
    "hypervisor": ((2, 53), {"with_servers": (2, 53)}),
    "actions": ((2, 58), {**_PAGED, "changes-since": (2, 58), "changes-before": (2, 66)}),
}
"""Query parameters: the first version in which an unknown one is an error, and those that there are, since when."""


def render(resource: str, document: Json, version: Version) -> Json:
    """``document``, which holds everything and is changed in place, as ``version`` shows it."""
    for step in _steps(resource, version):
        step(document)
    return document


@cache
def _steps(resource: str, version: Version) -> tuple[Callable[[Json], None], ...]:
    newest_first = sorted(CHANGES, key=lambda change: change.since, reverse=True)
    undos = [change.undo for change in newest_first if change.resource == resource and version < change.since]
    drops = [without(*keys) for since, kind, keys in GONE if kind == resource and version >= since]
    return (*undos, *drops)


def check_fields(resource: str, given: Collection[str], version: Version) -> None:
    """Raise BadRequest for a field that a request in this version may not have yet, or no more."""
    since, until = FIELDS[resource], DROPPED.get(resource, {})
    for name in given:
        if version < since.get(name, version) or version >= until.get(name, (99, 0)):
            raise BadRequest(
                f"Invalid input for field/attribute {resource}. "
                f"Additional properties are not allowed ('{name}' was unexpected)",
                kind="ValidationError",
            )


def check_query(resource: str, request: Request) -> None:
    """Raise BadRequest for a query parameter that there is not, in versions that mind."""
    since, known = QUERIES[resource]
    if request.version < since:
        return
    for name, _ in request.query:
        if request.version < known.get(name, (99, 0)):
            raise BadRequest(
                f"Invalid input for query parameters {name[:300]}. Additional properties are not allowed "
                f"('{name[:300]}' was unexpected)",
                kind="ValidationError",
            )


def check_value(name: str, value: str, version: Version) -> str:
    """``value``, if this version has it; else BadRequest that names those it has."""
    known = [word for word, since in VALUES[name].items() if version >= since]
    if value not in known:
        raise BadRequest(
            f"Invalid input for field/attribute {name}. Value: {value[:300]}. It is one of {', '.join(known)}",
            kind="ValidationError",
        )
    return value


def _document(request: Request) -> Json:
    return {
        "id": "v2.1",
        "status": "CURRENT",
        "version": text(VERSIONS.maximum),
        "min_version": text(VERSIONS.minimum),
        "updated": UPDATED,
        "links": [{"rel": "self", "href": f"{request.app.endpoint}/v2.1/"}],
    }


def _legacy_document(request: Request) -> Json:
    """The API before microversions: the same URLs below ``/v2``, as 2.1 answers them."""
    return {
        "id": "v2.0",
        "status": "SUPPORTED",
        "version": "",
        "min_version": "",
        "updated": LEGACY_UPDATED,
        "links": [{"rel": "self", "href": f"{request.app.endpoint}/v2/"}],
    }


def list_versions(request: Request) -> Json:
    return {"versions": [_legacy_document(request), _document(request)]}


def show_version(request: Request) -> Json:
    return {"version": _described(_document(request), "2.1")}


def show_legacy_version(request: Request) -> Json:
    return {"version": _described(_legacy_document(request), "2")}


def _described(document: Json, media: str) -> Json:
    described = {
        "rel": "describedby",
        "type": "text/html",
        "href": "https://docs.openstack.org/api-ref/compute/",
    }
    kind = {"base": "application/json", "type": f"application/vnd.openstack.compute+json;version={media}"}
    return document | {"links": [*document["links"], described], "media-types": [kind]}


def show_named_version(request: Request) -> Json:
    if request.params["id"] != "v2.1":
        raise NotFound("The resource could not be found.")
    return show_version(request)


ROUTES = (
    Route("GET", "/", list_versions, PUBLIC),
    Route("GET", "/v2", show_legacy_version, PUBLIC),
    Route("GET", "/v2.1", show_version, PUBLIC),
    Route("GET", "/v2.1/versions/{id}", show_named_version, AUTHENTICATED),
)
