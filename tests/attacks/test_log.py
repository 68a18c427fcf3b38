"""What is secret is in no log, no notification, no error and no command line (families LOG-1 and LOG-2).

A story with canaries: each secret that a user or the cloud has is a text that is found nowhere else, and then
looked for everywhere.  The logs are those of the services, as JSON, with everything down to DEBUG.
"""

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from cumulet.core import log
from cumulet.core.client import Controller
from cumulet.core.context import Secret
from cumulet.core.controller import ControllerEnv
from cumulet.core.db import without_secrets
from cumulet.core.secrets import Secrets, generate, host_token
from cumulet.core.tables import metadata, notifications
from tests import databases
from tests.attacks.doors import PASSWORD, SECRETS, Doors
from tests.attacks.street import KEY

USER_DATA = "Y2FuYXJ5LXVzZXItZGF0YQ=="
ADMIN_PASS = "canary-adminpass"
GUEST_PASSWORD = "canary-guest-password"
NEW_PASSWORD, WRONG_PASSWORD = "canary-new-password", "canary-wrong-password"
NOVA = "nova-api"


@contextmanager
def logged() -> Iterator[io.StringIO]:
    """All that is logged meanwhile, as the services' files have it."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    handler.setFormatter(log.JsonFormatter("test"))
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG)
    try:
        yield text
    finally:
        root.handlers[:] = before
        root.setLevel(level)


class Story:
    """What was said and written on the way; ``secrets`` are the canaries by name."""

    def __init__(self, place: Path) -> None:
        with logged() as text:
            self.doors = Doors(place)
            self.secrets = {
                "password": PASSWORD, "user data": USER_DATA, "user data, decoded": "canary-user-data",
                "admin pass": ADMIN_PASS, "new password": NEW_PASSWORD, "wrong password": WRONG_PASSWORD,
                "host token": host_token(SECRETS.host_secret, "h1"),
                **{f"token of {who}": token for who, token in self.doors.tokens.items() if token},
                **{name: getattr(SECRETS, name) for name in SECRETS.__struct_fields__},
            }  # fmt: skip
            self.errors: list[str] = []
            self._live()
            self._err()
        self.lines = text.getvalue().splitlines()

    def _live(self) -> None:
        """Everything that handles a secret, and succeeds."""
        doors = self.doors
        doors.add_host()
        network, _ = doors.network()
        made = doors.good("alice", NOVA, "POST", "/v2.1/os-keypairs", {"keypair": {"name": "k"}},
                          OpenStack_API_Version="compute 2.1")  # fmt: skip
        self.secrets["private key"] = made["keypair"]["private_key"].splitlines()[3]
        wish: dict[str, Any] = {
            "user_data": USER_DATA,
            "adminPass": ADMIN_PASS,
            "key_name": "k",
            "config_drive": True,
        }
        server = doors.server(networks=[{"uuid": network}], **wish)
        body = {
            "name": "y",
            "imageRef": doors.ids["image of alice"],
            "flavorRef": doors.ids["flavor"],
            "networks": "none",
        }
        made = doors.good("alice", NOVA, "POST", "/v2.1/servers", {"server": body})["server"]
        self.secrets["admin pass, generated"] = made["adminPass"]
        doors.run(server)
        doors.good("host:h1", "nova-conductor", "GET", f"/hosts/h1/servers/{server}/config-drive")
        for action in ({"os-stop": None}, {"reboot": {"type": "HARD"}}):
            doors.call("alice", NOVA, "POST", f"/v2.1/servers/{server}/action", action)
        alice = doors.ids["alice"]
        change = {"user": {"password": NEW_PASSWORD}}
        doors.good("admin", "keystone", "PATCH", f"/v3/users/{doors.ids['bob']}", change)
        own = {"user": {"original_password": PASSWORD, "password": NEW_PASSWORD + "2"}}
        doors.good("nobody", "keystone", "POST", f"/v3/users/{alice}/password", own)
        doors.tokens["alice"] = doors.login("alice", NEW_PASSWORD + "2", project="red")
        self.secrets["second token"] = doors.tokens["alice"]
        for method in ("GET", "HEAD"):
            doors.call("admin", "keystone", method, "/v3/auth/tokens", X_Subject_Token=doors.tokens["alice"])
        doors.good("admin", "keystone", "DELETE", "/v3/auth/tokens", X_Subject_Token=doors.tokens["rita"])
        self.server, self.network = server, network

    def _err(self) -> None:
        """And everything that fails, where code is tempted to show what it was given."""
        doors, token = self.doors, self.doors.tokens["alice"]
        user = {"name": "alice", "domain": {"id": "default"}, "password": WRONG_PASSWORD}
        login = {"identity": {"methods": ["password"], "password": {"user": user}}}
        doubled = {"methods": ["password"], "password": {"user": {**user, "password": [WRONG_PASSWORD]}}}
        attempts: list[tuple[str, str, str, Any]] = [
            ("keystone", "POST", "/v3/auth/tokens", {"auth": login}),
            ("keystone", "POST", "/v3/auth/tokens", {"auth": {"identity": {**login["identity"], "methods": [1]}}}),
            ("keystone", "POST", "/v3/auth/tokens", f'{{"auth": {{"password": "{WRONG_PASSWORD}'.encode()),
            ("keystone", "POST", "/v3/auth/tokens", {"auth": {"identity": doubled}}),
            ("keystone", "GET", f"/v3/auth/tokens/{token}?token={token}", None),
            ("keystone", "GET", f"/v3/users/{token}", None),
            ("keystone", "POST", "/v3/users", {"user": {"name": "alice", "password": NEW_PASSWORD}}),
            ("keystone", "POST", "/v3/users", {"user": {"name": 5, "password": NEW_PASSWORD}}),
            ("keystone", "POST", "/v3/users", {"user": {"name": "x", "password": NEW_PASSWORD * 400}}),
            ("keystone", "PATCH", f"/v3/users/{doors.ids['bob']}", {"user": {"password": {"x": NEW_PASSWORD}}}),
            (NOVA, "POST", "/v2.1/servers", {"server": {"name": "x", "user_data": USER_DATA,
                                                        "adminPass": ADMIN_PASS}}),
            (NOVA, "POST", "/v2.1/servers", {"server": {"name": "x", "user_data": [USER_DATA], "flavorRef": "1"}}),
            (NOVA, "POST", "/v2.1/servers", {"server": {"name": "x", "adminPass": ADMIN_PASS * 50,
                                                        "flavorRef": "1"}}),
            (NOVA, "POST", "/v2.1/servers", {"server": {"name": "x", "flavorRef": "1", "imageRef": "x", "networks":
                                             "none", "user_data": "!" + "canary-user-data" * 9000}}),
            (NOVA, "GET", f"/v2.1/servers?token={token}&password={ADMIN_PASS}", None),
            (NOVA, "GET", f"/v2.1/{token}", None), ("glance-api", "GET", f"/v2/images/{token}", None),
            ("neutron-server", "GET", f"/v2.0/networks/{token}", None),
            ("neutron-server", "GET", f"/v2.0/ports?fixed_ips={token}", None),
        ]  # fmt: skip
        for name, method, url, body in attempts:
            status, data, headers = doors.call("alice" if name != "keystone" else "admin", name, method, url, body)
            assert status >= 400, (url, data)
            self.errors.append(f"{data!r} {dict(headers)!r}")
        self._break()

    def _break(self) -> None:
        """A bug below each: tables that are not there, rows that cannot be."""
        doors = self.doors
        databases.damage(
            doors.db.engine,
            "alter table servers rename column user_data to lost",
            "alter table users rename column password_hash to lost",
        )
        body = {"name": "y", "imageRef": doors.ids["image of alice"], "flavorRef": doors.ids["flavor"],
                "networks": "none", "user_data": USER_DATA, "adminPass": ADMIN_PASS}  # fmt: skip
        for who, name, url, wish in (
            ("alice", NOVA, "/v2.1/servers", {"server": body}),
            ("admin", "keystone", "/v3/users", {"user": {"name": "z", "password": NEW_PASSWORD}}),
        ):
            status, data, _ = doors.apps[name].call("POST", url, wish, doors.headers(who))
            assert status in (500, 503)
            self.errors.append(repr(data))
        databases.damage(
            doors.db.engine,
            "alter table servers rename column lost to user_data",
            "alter table users rename column lost to password_hash",
        )

    def found_in(self, text: str) -> list[str]:
        return [name for name, secret in self.secrets.items() if secret in text]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    return Story(tmp_path_factory.mktemp("story"))


def test_logs_hold_no_secret(story: Story) -> None:
    assert len(story.lines) > 50
    assert any("traceback" in json.loads(line) or "does not answer" in line for line in story.lines)
    for line in story.lines:
        assert story.found_in(line) == [], line
        assert "\x1b" not in line
        json.loads(line)


def test_errors_hold_no_secret(story: Story) -> None:
    """What a caller has put into the URL they may read there again; nothing of a body."""
    for text in story.errors:
        found = [name for name in story.found_in(text) if not name.startswith(("token", "second token"))]
        assert found == [], text


def test_notifications_hold_no_secret(story: Story) -> None:
    """Neither in their payload nor in their context (OSSA-2014-021, OSSA-2017-002)."""
    with story.doors.db.read() as tx:
        rows = tx.all(sa.select(notifications))
    assert {row.event_type.split(".")[0] for row in rows} >= {"identity", "image", "port", "network", "compute"}
    for row in rows:
        assert story.found_in(repr(tuple(row))) == [], row.event_type
        names = {name.lower() for name in _names(row.payload) | _names(row.context)}
        assert not names & {"password", "auth_token", "token", "adminpass", "user_data", "private_key", "secret"}


def _names(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value).union(*(_names(one) for one in value.values()))
    return set().union(*(_names(one) for one in value)) if isinstance(value, list) else set()


def test_the_database_holds_only_what_it_must(story: Story) -> None:
    """No password, no token, no private key; user data with its server and nowhere else."""
    with story.doors.db.read() as tx:
        for table in metadata.sorted_tables:
            found = set().union(*(story.found_in(repr(tuple(row))) for row in tx.all(sa.select(table))), set())
            assert found <= ({"user data"} if table.name == "servers" else set()), table.name


def test_requests_are_logged_by_their_path_alone(story: Story) -> None:
    lines = [json.loads(line) for line in story.lines if '"cumulet.access"' in line]
    assert len(lines) > 40
    for line in lines:
        assert "?" not in line["message"]
        assert "\n" not in line["message"]


# ── the types that keep secrets ──────────────────────────────────────────────────────────────────────────────


def test_secrets_do_not_print_themselves(tmp_path: Path) -> None:
    secrets = generate()
    values = [getattr(secrets, name) for name in Secrets.__struct_fields__]
    env = Doors(tmp_path).env
    controller = Controller("nova", "http://x", "h1", values[1])
    for thing in (secrets, {"a": secrets}, [secrets], env, controller, Secret(values[0]), (Secret(values[0]),)):
        for text in (repr(thing), f"{thing!r}", ascii(thing)):
            for value in (*values, *(getattr(SECRETS, name) for name in SECRETS.__struct_fields__)):
                assert value not in text
    assert isinstance(env, ControllerEnv)


def test_fields_with_the_names_of_secrets_are_not_told() -> None:
    """At any depth, in lists too, whoever wrote them into a payload."""
    payload = {"a": [{"b": {"password": "x", "user_data": "x", "c": 1}}], "token": "x", "adminPass": "x"}
    assert without_secrets(payload) == {"a": [{"b": {"c": 1}}]}


@pytest.mark.parametrize("formatter", [log.JsonFormatter("x"), log.TerminalFormatter()])
@pytest.mark.parametrize(
    "text", ["a\nb", "a\r\nb", "a\x1b[2Jb", "a\u2028b", "a\u0085b", "a\0b", "a\x9bb", "\u202eb", "a\tb"]
)
def test_nobody_forges_a_line(formatter: logging.Formatter, text: str) -> None:
    """Text from users is one line of characters that a terminal only shows (also in tracebacks)."""
    try:
        raise ValueError(text)
    except ValueError:
        import sys

        record = logging.LogRecord("x", logging.ERROR, "x", 1, "%s " + "gAAAA" + "x" * 60, (text,), sys.exc_info())
    line = formatter.format(record)
    first = line.split("\n")[0] if isinstance(formatter, log.TerminalFormatter) else line
    shown = msgspec.json.decode(line)["message"] if isinstance(formatter, log.JsonFormatter) else first
    assert "gAAAAx" not in line
    for character in "\n\r\x1b\u2028\u0085\0\x9b\u202e":
        assert character not in shown, repr(character)
    if isinstance(formatter, log.TerminalFormatter):
        for character in "\r\x1b\u2028\u0085\0\x9b\u202e":
            assert character not in line, repr(character)
        assert KEY not in line
