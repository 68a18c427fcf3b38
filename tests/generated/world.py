"""A cloud with one thing of everything, which can be put back to what it was; and requests aimed at its things."""

import sqlite3
from pathlib import Path
from typing import Any

import schemathesis
from schemathesis import openapi
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation

from tests.attacks.street import Street

Operation = APIOperation[Any, Any, Any, Any]
Case = schemathesis.Case[Any]


class World:
    """A street, further furnished."""

    def __init__(self, place: Path) -> None:
        self.street = Street(place)
        self.doors = self.street.doors
        self._furnish()
        self.ids = self.street.values | {
            "imageRef": self.street.values["image_id"], "flavorRef": self.doors.ids["flavor"],
            "tenant_id": self.doors.ids["red"], "uuid": self.street.network, "key_name": self.street.values["name"],
            "server_id": self.street.server, "device_id": self.street.server, "tenant": self.doors.ids["blue"],
            "floating_network_id": self.doors.ids["public"], "network": self.street.network,
        }  # fmt: skip
        self._kept = sqlite3.connect(":memory:", check_same_thread=False)
        self._live().backup(self._kept)

    def _furnish(self) -> None:
        """Sub-resources by the names that a street's URLs have for them."""
        doors, values = self.doors, self.street.values
        image, server, network = values["image_id"], self.street.server, self.street.network
        doors.good("alice", "glance-api", "PUT", f"/v2/images/{image}/tags/x")
        doors.good("alice", "glance-api", "POST", f"/v2/images/{image}/members", {"member": values["member_id"]})
        doors.good("alice", "neutron-server", "PUT", f"/v2.0/networks/{network}/tags/x")
        doors.good("admin", "keystone", "PUT", f"/v3/projects/{values['project_id']}/tags/x")
        doors.good("admin", "keystone", "PUT", f"/v3/groups/{values['group_id']}/users/{values['user_id']}")
        doors.good("alice", "nova-api", "PUT", f"/v2.1/servers/{server}/metadata/k", {"meta": {"k": "v"}})
        specs = {"extra_specs": {"k": "v"}}
        doors.good("admin", "nova-api", "POST", f"/v2.1/flavors/{doors.ids['flavor']}/os-extra_specs", specs)
        actions = doors.good("alice", "nova-api", "GET", f"/v2.1/servers/{server}/os-instance-actions")
        values["request_id"] = actions["instanceActions"][0]["request_id"]
        credential = {"type": "x", "blob": "{}", "user_id": values["user_id"]}
        found = doors.make("keystone", "alice", "/v3/credentials", "credential", **credential)
        values["credential_id"] = found["id"]
        rules = [{"path": "/v2.1/servers", "method": "GET", "service": "compute"}]
        url, wish = f"/v3/users/{values['user_id']}/application_credentials", {"name": "a", "access_rules": rules}
        found = doors.make("keystone", "alice", url, "application_credential", **wish)
        values["application_credential_id"] = found["id"]
        values["access_rule_id"] = found["access_rules"][0]["id"]
        doors.ids["public"] = doors.good("admin", "neutron-server", "GET", "/v2.0/networks?router:external=true")[
            "networks"
        ][0]["id"]

    def _live(self) -> sqlite3.Connection:
        driver: Any = self.doors.db.engine.raw_connection().driver_connection
        assert isinstance(driver, sqlite3.Connection)
        return driver

    def restore(self) -> None:
        self._kept.backup(self._live())

    def operations(self, name: str) -> list[Operation]:
        schema = openapi.from_asgi("/openapi.json", self.doors.apps[name])
        results = list(schema.get_all_operations())
        assert all(isinstance(result, Ok) for result in results), results
        return [result.ok() for result in results if isinstance(result, Ok)]

    def aim(self, case: Case) -> None:
        """Let the names in the case's path, and the ids in its body, be of things that exist."""
        case.path_parameters.update(self.street.named(case.operation.path))
        case.body = self._aimed(case.body)

    def _aimed(self, value: Any, name: str = "") -> Any:
        if isinstance(value, dict):
            return {key: self._aimed(item, key) for key, item in value.items()}
        if isinstance(value, list):
            return [self._aimed(item, name) for item in value]
        known = name.endswith(("_id", "Ref")) or name in ("uuid", "key_name", "tenant", "network")
        return self.ids.get(name, value) if known and isinstance(value, str) else value
