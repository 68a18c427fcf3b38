"""A change to Open vSwitch's database: the difference between a look and what is wanted, as one transaction."""

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from cumulet.host.device import check_name
from cumulet.host.jsonrpc import OvsdbError
from cumulet.host.ovsdb_rows import Op, PortRow, Switch, wire_map, wire_optional

_SECURE = "secure"


class Change:
    """Collects changes against one look, and makes them in one transaction; `with ovsdb.change() as change:`.

    Nothing is sent when nothing differs (`changed` is then False) or when the block raises.
    """

    def __init__(self, switch: Switch, transact: Callable[[list[Op]], object]) -> None:
        self._switch = switch
        self._transact = transact
        self._ops: list[Op] = []
        self._new: set[str] = set()  # bridges and ports that this change makes

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if kind is None:
            self.commit()

    @property
    def changed(self) -> bool:
        return bool(self._ops)

    def commit(self) -> None:
        if self._ops:
            self._transact(self._ops)

    def lacks(self, port: str) -> bool:
        """Whether no bridge had this port when this change looked."""
        return self._switch.find_port(port) is None

    def ensure_config(
        self, external_ids: Mapping[str, str] | None = None, other_config: Mapping[str, str] | None = None
    ) -> None:
        """Set these keys of the switch itself (system-id, n-handler-threads, ...)."""
        self._merge("Open_vSwitch", None, "external_ids", self._switch.external_ids, external_ids)
        self._merge("Open_vSwitch", None, "other_config", self._switch.other_config, other_config)

    def ensure_bridge(
        self,
        name: str,
        datapath_type: str = "system",
        fail_mode: str = _SECURE,
        hwaddr: str | None = None,
        external_ids: Mapping[str, str] | None = None,
        other_config: Mapping[str, str] | None = None,
    ) -> None:
        """A bridge; `secure` forwards nothing until flows say so, `standalone` is a learning switch."""
        check_name(name)
        config = {**(other_config or {}), **({"hwaddr": hwaddr} if hwaddr else {})}
        bridge = self._switch.bridges.get(name)
        if name in self._new:
            return
        if bridge is not None:
            row: dict[str, Any] = {}
            if (bridge.datapath_type or "system") != datapath_type:
                row["datapath_type"] = datapath_type
            if bridge.fail_mode != fail_mode:
                row["fail_mode"] = fail_mode
            self._update("Bridge", bridge.uuid, row)
            self._merge("Bridge", bridge.uuid, "external_ids", bridge.external_ids, external_ids)
            self._merge("Bridge", bridge.uuid, "other_config", bridge.other_config, config)
            return
        self._new.add(name)
        port = self._insert_port(name, "internal", {}, None, {})
        row = {
            "name": name,
            "datapath_type": datapath_type,
            "fail_mode": fail_mode,
            "external_ids": wire_map(external_ids or {}),
            "other_config": wire_map(config),
            "ports": port,
        }
        self._ops.append({"op": "insert", "table": "Bridge", "row": row, "uuid-name": f"b{len(self._ops)}"})
        self._attach("Open_vSwitch", [], "bridges", ["named-uuid", self._ops[-1]["uuid-name"]])

    def delete_bridge(self, name: str) -> None:
        bridge = self._switch.bridges.get(name)
        if bridge is not None:
            mutation = ["bridges", "delete", ["uuid", bridge.uuid]]
            self._ops.append({"op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": [mutation]})

    def ensure_port(
        self,
        bridge: str,
        name: str,
        type: str = "",
        options: Mapping[str, str] | None = None,
        tag: int | None = None,
        external_ids: Mapping[str, str] | None = None,
    ) -> None:
        """A port of the bridge, with exactly this type, options and tag; external_ids are merged.

        Raises OvsdbError when the bridge is not there or another bridge has the port. A device that was deleted
        and made anew under a live port leaves the port deaf: delete the port first, in a change of its own.
        """
        check_name(name)
        found = self._switch.find_port(name)
        if found is None and name in self._new:
            return
        if found is None:
            if bridge not in self._switch.bridges and bridge not in self._new:
                raise OvsdbError(f"no bridge {bridge} for port {name}")
            self._new.add(name)
            port = self._insert_port(name, type, options or {}, tag, external_ids or {})
            self._attach("Bridge", [["name", "==", bridge]], "ports", port)
            return
        owner, row = found
        if owner.name != bridge:
            raise OvsdbError(f"port {name} belongs to bridge {owner.name}, not to {bridge}")
        self._tag(row, tag)
        changed: dict[str, Any] = {}
        if row.type != type:
            changed["type"] = type
        if dict(row.options) != dict(options or {}):
            changed["options"] = wire_map(options or {})
        self._update("Interface", row.interface_uuid, changed)
        self._merge("Interface", row.interface_uuid, "external_ids", row.external_ids, external_ids)

    def ensure_tag(self, port: str, tag: int | None) -> None:
        """Set the tag of a port that somebody else made (libvirt plugs its taps). OvsdbError if there is none."""
        found = self._switch.find_port(port)
        if found is None:
            raise OvsdbError(f"no port {port}")
        self._tag(found[1], tag)

    def ensure_patch(self, bridge: str, name: str, peer_bridge: str, peer_name: str) -> None:
        """A cable between two bridges: one patch port on each."""
        self.ensure_port(bridge, name, "patch", {"peer": peer_name})
        self.ensure_port(peer_bridge, peer_name, "patch", {"peer": name})

    def ensure_vxlan(self, bridge: str, name: str, local_ip: str, remote_ip: str, port: int | None = None) -> None:
        """A VXLAN tunnel to one host; flows set and match the VNI (`set_tunnel`, `tun_id`)."""
        options = {"local_ip": local_ip, "remote_ip": remote_ip, "in_key": "flow", "out_key": "flow"}
        if port is not None:
            options["dst_port"] = str(port)
        self.ensure_port(bridge, name, "vxlan", options)

    def delete_port(self, name: str) -> None:
        found = self._switch.find_port(name)
        if found is not None:
            mutation = ["ports", "delete", ["uuid", found[1].uuid]]
            where = [["_uuid", "==", ["uuid", found[0].uuid]]]
            self._ops.append({"op": "mutate", "table": "Bridge", "where": where, "mutations": [mutation]})

    def _insert_port(
        self,
        name: str,
        type: str,
        options: Mapping[str, str],
        tag: int | None,
        external_ids: Mapping[str, str],
    ) -> list[str]:
        interface, port = f"i{len(self._ops)}", f"p{len(self._ops)}"
        row = {"name": name, "type": type, "options": wire_map(options), "external_ids": wire_map(external_ids)}
        self._ops.append({"op": "insert", "table": "Interface", "row": row, "uuid-name": interface})
        row = {"name": name, "interfaces": ["named-uuid", interface], "tag": wire_optional(tag)}
        self._ops.append({"op": "insert", "table": "Port", "row": row, "uuid-name": port})
        return ["named-uuid", port]

    def _attach(self, table: str, where: list[Any], column: str, uuid: list[str]) -> None:
        mutation = [column, "insert", ["set", [uuid]]]
        self._ops.append({"op": "mutate", "table": table, "where": where, "mutations": [mutation]})

    def _tag(self, row: PortRow, tag: int | None) -> None:
        if row.tag != tag:
            self._update("Port", row.uuid, {"tag": wire_optional(tag)})

    def _update(self, table: str, uuid: str, row: dict[str, Any]) -> None:
        if row:
            self._ops.append(
                {"op": "update", "table": table, "where": [["_uuid", "==", ["uuid", uuid]]], "row": row}
            )

    def _merge(
        self,
        table: str,
        uuid: str | None,
        column: str,
        have: Mapping[str, str],
        want: Mapping[str, str] | None,
    ) -> None:
        """Set the keys of `want` in a map column and leave the others."""
        new = {key: value for key, value in (want or {}).items() if have.get(key) != value}
        if new:
            mutations = [[column, "delete", ["set", sorted(new)]], [column, "insert", wire_map(new)]]
            where = [] if uuid is None else [["_uuid", "==", ["uuid", uuid]]]
            self._ops.append({"op": "mutate", "table": table, "where": where, "mutations": mutations})
