"""What no front of the cloud does: read XML, show text as a page, fill in configuration, open old doors.

Families XML-1, HZN-1 (as far as there is no dashboard), SYS-2 and EC2-6.
"""

import ast
from pathlib import Path

import pytest

import cumulet
from tests.attacks.doors import SECRETS, Doors
from tests.attacks.street import Street, routes

BOMB = b'<!DOCTYPE x [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]><server name="&b;"/>'
SCRIPT = "<script>alert(1)</script>"
OWN_XML = {f"nova/compute/{name}.py" for name in ("domain_xml", "domains", "libvirt", "copies")}
"""Where XML is read: what libvirt says of its own domains."""


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Street:
    return Street(tmp_path_factory.mktemp("fronts"))


# ── XML-1: entities that name files or multiply (OSSA-2013-004, OSSA-2013-023, OSSA-2023-001) ─────────────────


@pytest.mark.parametrize("kind", ["application/xml", "text/xml", "application/json"])
def test_xml_is_no_body(street: Street, kind: str) -> None:
    tried = 0
    for name, line, route in routes(street, "POST", "PUT", "PATCH"):
        if route.policy not in ("host", "public") and route.body is not None and not route.streams:
            status, data = street.knock("admin", name, route, BOMB, Content_Type=kind)
            assert 400 <= status < 500, (name, line, status, data)
            tried += 1
    assert tried > 60


def test_only_libvirts_own_xml_is_parsed() -> None:
    root = Path(cumulet.__file__).parent
    readers = set()
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            module = (node.module or "") if isinstance(node, ast.ImportFrom) else ""
            if any(text.split(".")[0] in ("xml", "lxml", "expat") for text in (module, *names)):
                readers.add(str(path.relative_to(root)))
    assert readers <= OWN_XML, readers - OWN_XML


# ── HZN-1: text of users that a browser would run ────────────────────────────────────────────────────────────


def test_no_answer_is_a_page_with_a_users_text(street: Street) -> None:
    """JSON says that it is JSON; glance's pages of errors show what they quote as text."""
    for name, line, route in routes(street, "GET"):
        if "{" not in route.path or route.policy == "host":
            continue
        parts = (SCRIPT if part.startswith("{") else part for part in route.path.split("/"))
        for url in ("/".join(parts), f"{street.url(route)}?limit={SCRIPT}&sort_key={SCRIPT}&marker={SCRIPT}"):
            _, said, _ = street.doors.call("admin", name, "GET", url)
            assert not (isinstance(said, bytes) and b"<script" in said), (line, said)


# ── SYS-2: addresses in the catalogue are filled in with the caller's ids and nothing else (OSSA-2014-029) ────


@pytest.mark.parametrize("name", ["admin_token", "admin_password", "host_secret", "config", "user_id.__class__"])
@pytest.mark.parametrize("mark", ["$({})s", "%({})s", "${{{}}}", "{{{}}}"])
def test_the_catalogue_tells_nothing_of_the_cloud(doors: Doors, mark: str, name: str) -> None:
    service = doors.make("keystone", "admin", "/v3/services", "service", type="x", name="x")["id"]
    url = f"http://evil/{mark.format(name)}"
    wish = {"endpoint": {"service_id": service, "interface": "public", "url": url}}
    status, _, _ = doors.call("admin", "keystone", "POST", "/v3/endpoints", wish)
    if status == 201:
        catalog = doors.good("alice", "keystone", "GET", "/v3/auth/catalog")["catalog"]
        shown = [each["url"] for entry in catalog for each in entry["endpoints"] if entry["type"] == "x"]
        assert shown == [url]
        assert not any(value in str(catalog) for value in (SECRETS.admin_password, SECRETS.host_secret))
    else:
        assert status == 400


# ── EC2-6: tokens for signatures, which anybody could ask for (OSSA-2025-002) ────────────────────────────────


@pytest.mark.parametrize("who", ["nobody", "alice", "admin"])
@pytest.mark.parametrize("url", ["/v3/ec2tokens", "/v3/s3tokens", "/v2.0/ec2tokens", "/v3/OS-EC2/ec2tokens"])
def test_signatures_open_nothing(doors: Doors, url: str, who: str) -> None:
    body = {"credentials": {"access": "x", "signature": "x", "host": "x", "verb": "GET", "path": "/", "params": {}}}
    assert doors.call(who, "keystone", "POST", url, body)[0] == 404
