"""Every change by the identity and the image API is told in the outbox, in the transaction that makes it.

Each route that changes something is called once with a body that it takes.  The database notes what the outbox
would have held at the commit and refuses it, so every route finds the same cloud.  A route that is added is walked
by the next run: it tells of its change, or stands below with the reason why there is nothing to tell.
"""

import re
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from cumulet.core.db import Transaction
from cumulet.core.http import Route
from cumulet.core.tables import notifications
from tests.attacks.policy_table import StillDatabase, Table

FORMS = {
    "keystone": re.compile(r"identity\.[a-zA-Z:_-]+\.(created|updated|deleted|disabled)"),
    "glance-api": re.compile(r"(image|task|metadef_[a-z_]+)\.([a-z_]+\.)?[a-z_]+"),
}
VERBS = {"POST": "created", "PATCH": "updated", "DELETE": "deleted"}
NOTHING_TO_TELL = {
    ("keystone", "POST /v3/auth/tokens"),  # a token is not kept anywhere
    ("keystone", "DELETE /v3/auth/tokens"),  # upstream tells other keystones by it; ours read one table
}
AS_ALICE = ("application_credential", "access_rules", "OS-TRUST", "OS-EC2", "/v3/credentials")
"""What is made for its owner only."""
OF_ANOTHER_THING = (
    "/tags",
    "/groups/{group_id}/users/",
    "/roles/{role_id}",
    "/implies/",
    "/password",
    "OS-EC2",
    "/config",
)
"""URLs whose end is not what the event is about."""


class NotingDatabase(StillDatabase):
    """Notes what a refused commit would have told."""

    def __init__(self, url: str, bus: Any) -> None:
        super().__init__(url, bus)
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.before = 0

    def before_commit(self, tx: Transaction) -> None:
        if self.still and tx.wrote:
            rows = tx.all(sa.select(notifications).order_by(notifications.c.created_at, notifications.c.id))
            known = self.known
            self.told = [(row.event_type, row.payload) for row in rows if row.id not in known]
        super().before_commit(tx)

    def stand_still(self) -> None:
        with self.read() as tx:
            self.known = {row.id for row in tx.all(sa.select(notifications.c.id))}


class Walk(Table):
    """Further things, in the states that single routes need them in."""

    def __init__(self, place: Path) -> None:
        super().__init__(place, NotingDatabase)
        self.db.still = False
        doors = self.doors
        doors.add_person("paul", "pink", "member")
        self.images = {
            "/file": self._image(),
            "/stage": self._image(),
            "/import": self._image("stage"),
            "/reactivate": self._image("file"),
        }
        doors.good("alice", "glance-api", "POST", f"/v2/images/{self.images['/reactivate']}/actions/deactivate")
        members = f"/v2/images/{self.street.values['image_id']}/members"
        doors.good("alice", "glance-api", "POST", members, {"member": self.ids["pink"]})
        self.spare = self._spare()
        self.db.stand_still()
        self.db.still = True

    @property
    def db(self) -> NotingDatabase:
        assert isinstance(self.doors.db, NotingDatabase)
        return self.doors.db

    def _image(self, where: str = "") -> str:
        wish = {"name": "i", "disk_format": "raw", "container_format": "bare"}
        image_id = str(self.doors.good("alice", "glance-api", "POST", "/v2/images", wish)["id"])
        if where:
            url = f"/v2/images/{image_id}/{where}"
            self.doors.good("alice", "glance-api", "PUT", url, b"data", Content_Type="application/octet-stream")
        return image_id

    def _spare(self) -> dict[str, dict[str, str]]:
        """By the end of a URL: things that may be deleted or changed, unlike those that the cloud is built of."""
        make = self.doors.make
        domain = make("keystone", "admin", "/v3/domains", "domain", name="spare", enabled=False)["id"]
        role = make("keystone", "admin", "/v3/roles", "role", name="spare")["id"]
        region = make("keystone", "admin", "/v3/regions", "region", id="spare")["id"]
        implied = self.doors.role("service")
        return {
            "DELETE /v3/domains/{domain_id}": {"domain_id": domain},
            "DELETE /v3/roles/{role_id}": {"role_id": role},
            "PATCH /v3/roles/{role_id}": {"role_id": role, "domain_id": None},
            "DELETE /v3/regions/{region_id}": {"region_id": region},
            "PUT /v3/roles/{prior_role_id}/implies/{implied_role_id}": {"implied_role_id": implied},
            "POST /v3/endpoints": {"url": "http://cloud/x", "region_id": region},
            "PUT /v2/images/{image_id}/members/{member_id}": {"member_id": self.ids["pink"]},
        }

    def changes(self) -> list[tuple[str, Route]]:
        return [
            (app, route)
            for app, route in self.doors.routes()
            if app in FORMS and route.method not in ("GET", "HEAD") and route.policy != "host"
        ]

    def told_by(self, app: str, route: Route) -> tuple[int, Any, list[tuple[str, dict[str, Any]]]]:
        """The answer, and what the refused commit would have told."""
        self.db.told = []
        kept = dict(self.street.values)
        self.street.values |= self._others(app, route)
        try:
            status, data = self.knock(self._who(app, route), app, route)
        finally:
            self.street.values.clear()
            self.street.values.update(kept)
        return status, data, self.db.told

    def _who(self, app: str, route: Route) -> str:
        if app == "glance-api":
            offered = route.method == "PUT" and "{member_id}" in route.path
            return "paul" if offered else "admin" if "/metadefs/" in route.path else "alice"
        return "alice" if any(part in route.path for part in AS_ALICE) else "admin"

    def _others(self, app: str, route: Route) -> dict[str, str]:
        """To make what is there already changes nothing: another role, member, tag, image."""
        values = dict(self.spare.get(f"{route.method} {route.path}", {}))
        end = f"/{route.path.rpartition('/')[2]}"
        if end in self.images and app == "glance-api":
            return {"image_id": self.images[end]}
        if route.method not in ("PUT", "POST"):
            return values
        another = {"tag": "y", "namespace": "y" if route.path.endswith("/namespaces") else "x"}
        if app == "glance-api":
            making = route.method == "POST" and "/metadefs/" in route.path
            return {**another, **({"name": "new"} if making else {}), **values}
        if route.method == "PUT":
            another |= {"role_id": self.doors.role("admin"), "region_id": "another"}
            another |= {"user_id": self.ids["bob"]} if "/groups/{group_id}/users/" in route.path else {}
        return {**another, **values}


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Walk:
    return Walk(tmp_path_factory.mktemp("walk"))


def test_every_change_is_told(walk: Walk) -> None:
    silent: list[Any] = []
    wrong: list[Any] = []
    for app, route in walk.changes():
        line = (app, f"{route.method} {route.path}")
        if line in NOTHING_TO_TELL:
            continue
        status, data, told = walk.told_by(app, route)
        if not told:
            silent.append((*line, status, str(data)[:200]))
        for event, payload in told:
            if not FORMS[app].fullmatch(event) or not payload:
                wrong.append((*line, event, payload))
        verb = VERBS.get(route.method)
        of_it = app == "keystone" and verb is not None and not any(part in route.path for part in OF_ANOTHER_THING)
        if of_it and told and not any(event.endswith(verb or "") for event, _ in told):
            wrong.append((*line, verb or "", dict(told)))
    assert silent == []
    assert wrong == []


def test_what_has_nothing_to_tell_is_still_there(walk: Walk) -> None:
    assert {(app, f"{route.method} {route.path}") for app, route in walk.changes()} >= NOTHING_TO_TELL
