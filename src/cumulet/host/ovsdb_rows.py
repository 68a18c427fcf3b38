"""Rows of Open vSwitch's database as frozen values, and how they stand on the wire (RFC 7047, 5.1)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cumulet.host.jsonrpc import OvsdbError

_SWITCH_COLUMNS = ["cur_cfg", "next_cfg", "ovs_version", "external_ids", "other_config"]
_BRIDGE_COLUMNS = [
    "_uuid",
    "name",
    "ports",
    "datapath_type",
    "datapath_id",
    "fail_mode",
    "external_ids",
    "other_config",
]
_PORT_COLUMNS = ["_uuid", "name", "interfaces", "tag"]
_INTERFACE_COLUMNS = [
    "_uuid",
    "type",
    "ofport",
    "options",
    "external_ids",
    "mac_in_use",
    "error",
    "link_state",
]

Op = dict[str, Any]


@dataclass(frozen=True, slots=True)
class PortRow:
    """A port with its (first) interface. `ofport` is None until vswitchd has opened it, -1 when it could not."""

    name: str
    tag: int | None
    type: str  # "" is a device of the system
    ofport: int | None
    options: Mapping[str, str]
    external_ids: Mapping[str, str]  # the interface's
    mac_in_use: str
    link_up: bool
    error: str | None
    uuid: str
    interface_uuid: str


@dataclass(frozen=True, slots=True)
class Bridge:
    """A bridge and its ports by name, its own local port included."""

    name: str
    datapath_type: str
    datapath_id: str  # "" until vswitchd has made the bridge
    fail_mode: str
    external_ids: Mapping[str, str]
    other_config: Mapping[str, str]
    ports: Mapping[str, PortRow]
    uuid: str


@dataclass(frozen=True, slots=True)
class Switch:
    """One look. `vswitchd` names the running daemon, "" when none runs; when it differs, all flows were lost."""

    vswitchd: str
    ovs_version: str
    cur_cfg: int
    next_cfg: int
    external_ids: Mapping[str, str]
    other_config: Mapping[str, str]
    bridges: Mapping[str, Bridge]

    def find_port(self, name: str) -> tuple[Bridge, PortRow] | None:
        for bridge in self.bridges.values():
            if name in bridge.ports:
                return bridge, bridge.ports[name]
        return None


def select(table: str, where: list[Any], columns: list[str]) -> Op:
    return {"op": "select", "table": table, "where": where, "columns": columns}


def look_ops() -> list[Op]:
    """The operations whose results `read_switch` takes."""
    return [
        select("Open_vSwitch", [], _SWITCH_COLUMNS),
        select("Bridge", [], _BRIDGE_COLUMNS),
        select("Port", [], _PORT_COLUMNS),
        select("Interface", [], _INTERFACE_COLUMNS),
    ]


def wire_map(values: Mapping[str, str]) -> list[Any]:
    return ["map", sorted([key, value] for key, value in values.items())]


def wire_optional(value: int | None) -> Any:
    return ["set", []] if value is None else value


def _set(value: Any) -> list[Any]:
    """The members of a set column: the wire has a lone atom for a set of one (RFC 7047, 5.1)."""
    if isinstance(value, list) and value and value[0] == "set":
        return list(value[1])
    return [value]


def _one(value: Any) -> Any:
    members = _set(value)
    return members[0] if members else None


def _uuids(value: Any) -> list[str]:
    return [member[1] for member in _set(value)]


def _read_map(value: Any) -> dict[str, str]:
    return dict(value[1])


def read_switch(identity: str, roots: list[Op], bridges: list[Op], ports: list[Op], interfaces: list[Op]) -> Switch:
    if not roots:
        raise OvsdbError("the Open vSwitch database has no root row; prepare it first")
    by_uuid = {row["_uuid"][1]: row for row in interfaces}
    rows = {row["_uuid"][1]: _read_port(row, by_uuid) for row in ports}
    root = roots[0]
    return Switch(
        vswitchd=identity,
        ovs_version=_one(root["ovs_version"]) or "",
        cur_cfg=root["cur_cfg"],
        next_cfg=root["next_cfg"],
        external_ids=_read_map(root["external_ids"]),
        other_config=_read_map(root["other_config"]),
        bridges={row["name"]: _read_bridge(row, rows) for row in bridges},
    )


def _read_bridge(row: Op, ports: Mapping[str, PortRow]) -> Bridge:
    own = (ports[uuid] for uuid in _uuids(row["ports"]))
    return Bridge(
        name=row["name"],
        datapath_type=row["datapath_type"],
        datapath_id=_one(row["datapath_id"]) or "",
        fail_mode=_one(row["fail_mode"]) or "",
        external_ids=_read_map(row["external_ids"]),
        other_config=_read_map(row["other_config"]),
        ports={port.name: port for port in own},
        uuid=row["_uuid"][1],
    )


def _read_port(row: Op, interfaces: Mapping[str, Op]) -> PortRow:
    interface = interfaces[_uuids(row["interfaces"])[0]]
    return PortRow(
        name=row["name"],
        tag=_one(row["tag"]),
        type=interface["type"],
        ofport=_one(interface["ofport"]),
        options=_read_map(interface["options"]),
        external_ids=_read_map(interface["external_ids"]),
        mac_in_use=_one(interface["mac_in_use"]) or "",
        link_up=_one(interface["link_state"]) == "up",
        error=_one(interface["error"]),
        uuid=row["_uuid"][1],
        interface_uuid=interface["_uuid"][1],
    )
