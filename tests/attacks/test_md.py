"""A guest learns about itself and nothing else (families MD-1 and MD-2; OSSA-2013-033, OSSA-2014-024)."""

import ast
import re
from pathlib import Path

import pytest

import cumulet
from cumulet.core.secrets import sign
from tests.attacks.doors import SECRETS, Doors

METADATA = "nova-api-metadata"
LATEST = "/openstack/latest/meta_data.json"


class Guests:
    """A server of Alice's and one of Bob's on a network that both may use, and what the agent says of each."""

    def __init__(self, doors: Doors) -> None:
        self.doors = doors
        self.network, _ = doors.network("admin", shared=True)
        self.alice, self.bob = (
            doors.server(
                who, networks=[{"uuid": self.network}], user_data="c2VjcmV0IG9mIHRoZSB1c2Vy", metadata={"a": who}
            )
            for who in ("alice", "bob")
        )
        ports = doors.good("admin", "neutron-server", "GET", f"/v2.0/ports?network_id={self.network}")["ports"]
        self.ports = {port["device_id"]: port for port in ports}

    def ip(self, server: str) -> str:
        return str(self.ports[server]["fixed_ips"][0]["ip_address"])

    def said(self, server: str, project: str, **changes: str) -> dict[str, str]:
        """The agent's headers; a change to ``-`` takes one away."""
        headers = {
            "X-Instance-ID": server, "X-Tenant-ID": self.doors.ids[project], "X-Forwarded-For": self.ip(server),
            "X-Instance-ID-Signature": sign(SECRETS.metadata_secret, server),
            **{name.replace("_", "-"): value for name, value in changes.items()},
        }  # fmt: skip
        return {name: value for name, value in headers.items() if value != "-"}

    def ask(self, url: str, headers: dict[str, str], method: str = "GET", body: bytes = b"") -> tuple[int, str]:
        status, data, _ = self.doors.ask(METADATA, method, url, body, headers)
        return status, data.decode("latin-1") if isinstance(data, bytes) else str(data)


@pytest.fixture(scope="module")
def guests(tmp_path_factory: pytest.TempPathFactory) -> Guests:
    return Guests(Doors(tmp_path_factory.mktemp("guests")))


def test_a_guest_hears_of_itself(guests: Guests) -> None:
    status, text = guests.ask(LATEST, guests.said(guests.alice, "red"))
    assert status == 200
    assert guests.alice in text
    assert guests.bob not in text


@pytest.mark.parametrize("name", ["X-Instance-ID", "X-Tenant-ID", "X-Forwarded-For", "X-Instance-ID-Signature"])
@pytest.mark.parametrize("value", ["-", "", "  ", "\t", "a,b"])
def test_nothing_may_be_missing_or_double(guests: Guests, name: str, value: str) -> None:
    headers = guests.said(guests.alice, "red", **{name.replace("-", "_"): value})
    for url in (LATEST, "/", "/latest/user-data", "/openstack"):
        assert guests.ask(url, headers)[0] == 400, url


def forgeries(guests: Guests) -> list[str]:
    good = sign(SECRETS.metadata_secret, guests.alice)
    return [
        sign(SECRETS.metadata_secret, guests.bob), sign(SECRETS.host_secret, guests.alice), sign("", guests.alice),
        sign(SECRETS.metadata_secret, ""), sign(SECRETS.metadata_secret, guests.alice.upper()), good.upper(),
        good[:-1], good + "0", good[:32], "0" * 64, "x", "\u00e9", "null", f"{good} {good}", guests.alice,
    ]  # fmt: skip


def test_forged_signatures(guests: Guests) -> None:
    for signature in forgeries(guests):
        headers = guests.said(guests.alice, "red", X_Instance_ID_Signature=signature)
        for method, url in (
            ("GET", LATEST),
            ("GET", "/"),
            ("GET", "/no/such"),
            ("POST", "/openstack/latest/password"),
        ):
            assert guests.ask(url, headers, method, b"mine")[0] == 403, (signature, url)


def test_of_another_nothing_is_told(guests: Guests) -> None:
    """Whoever could sign for another's server still has to be of its project, and at its address."""
    for headers in (
        guests.said(guests.bob, "red"), guests.said(guests.alice, "blue"),
        guests.said(guests.bob, "red", X_Forwarded_For=guests.ip(guests.alice)),
        guests.said(guests.alice, "red", X_Forwarded_For=guests.ip(guests.bob)),
        guests.said(guests.alice, "red", X_Tenant_ID="x"),
        guests.said(guests.alice, "red", X_Tenant_ID=guests.doors.ids["red"].upper()),
    ):  # fmt: skip
        for url in (LATEST, "/latest/user-data", "/latest/meta-data/", "/openstack/latest/user_data"):
            status, text = guests.ask(url, headers)
            assert (status, text) == (404, "404 Not Found\n"), (url, headers)
    for server in ("x", "../" + guests.alice, guests.alice[:8], "' or 1=1 --", guests.alice + "/..", "%", "*"):
        headers = guests.said(guests.alice, "red", X_Instance_ID=server) | {
            "X-Instance-ID-Signature": sign(SECRETS.metadata_secret, server)
        }
        assert guests.ask(LATEST, headers)[0] == 404, server


def link_local(mac: str) -> str:
    parts = [int(part, 16) for part in mac.split(":")]
    return f"fe80::{parts[0] ^ 2:02x}{parts[1]:02x}:{parts[2]:02x}ff:fe{parts[3]:02x}:{parts[4]:02x}{parts[5]:02x}"


def test_addresses_in_other_words(guests: Guests) -> None:
    """One address, one way to say it: the one that the kernel told the agent (and a link's, by its MAC)."""
    ip = guests.ip(guests.alice)
    mac, other = (guests.ports[server]["mac_address"] for server in (guests.alice, guests.bob))
    last = ip.rpartition(".")[2]
    for text, expected in (
        (ip, 200), (link_local(mac), 200), (link_local(mac) + "%ns-1", 200), (link_local(other), 404),
        (f"::ffff:{ip}", 404), (f"::{ip}", 404), (f"64:ff9b::{ip}", 404), ("fe80::a9fe:a9fe", 404), ("::1", 404),
        ("10.0.0.1", 404), ("10.0.0.200", 404), ("0.0.0.0", 404), ("127.0.0.1", 404), ("169.254.169.254", 404),
        (f"10.0.0.0{last}", 400), (f"0x0a0000{int(last):02x}", 400), (str((10 << 24) + int(last)), 400),
        ("10", 400), (f"{ip}/24", 400), (f"{ip}:80", 400), (f"[{ip}]", 400), (f"{ip}\u0660", 400), ("x", 400),
        ("::%", 404),
    ):  # fmt: skip
        assert guests.ask(LATEST, guests.said(guests.alice, "red", X_Forwarded_For=text))[0] == expected, text


@pytest.mark.parametrize(
    "url",
    [
        "/..", "/../..", "/openstack/..", "/openstack/../openstack/latest/meta_data.json", "/./latest/user-data",
        "/openstack/latest/../latest/user_data", "/openstack/latest/../../../etc/passwd",
        "/latest/meta-data/../user-data", "/openstack/..%2f..", "/%2e%2e/", "/openstack/latest/%2e%2e",
        "/openstack/latest/meta_data.json/..", "/openstack/latest/meta_data.json/x", "/openstack/latest/passwd",
        "/openstack/9999-01-01/meta_data.json", "/ec2/..", "/ec2/latest/meta-data/../../..",
        "/latest/meta-data/public-keys/9/openssh-key", "/" + "a/" * 1500, "/latest/user-data/__class__",
        "/openstack/latest/__init__", "/latest/meta-data/keys", "/latest/dynamic",
    ],
)  # fmt: skip
def test_paths_lead_nowhere_else(guests: Guests, url: str) -> None:
    from urllib.parse import unquote

    for path in (url, unquote(url)):
        assert guests.ask(path, guests.said(guests.alice, "red"))[0] == 404


def test_a_password_is_told_once_by_its_own_guest(guests: Guests) -> None:
    url = "/openstack/latest/password"
    good = guests.said(guests.alice, "red")
    for headers, body, expected in (
        (guests.said(guests.alice, "blue"), b"forged", 404), (guests.said(guests.bob, "red"), b"forged", 404),
        (good, b"x" * 511, 400), (good, b"\xff\xfe", 400), (good, b"encrypted", 200), (good, b"again", 409),
    ):  # fmt: skip
        assert guests.ask(url, headers, "POST", body)[0] == expected, body
    for path in (
        "/latest/password",
        "/openstack/latest/user_data",
        "/openstack/password",
        "/openstack/2012-08-10/password",
    ):
        assert guests.ask(path, good, "POST", b"x")[0] == 404, path
    shown = guests.doors.good("alice", "nova-api", "GET", f"/v2.1/servers/{guests.alice}/os-server-password")
    assert shown == {"password": "encrypted"}
    assert guests.doors.call("bob", "nova-api", "GET", f"/v2.1/servers/{guests.alice}/os-server-password")[0] == 404


def test_a_server_that_is_gone_is_nobody(tmp_path: Path) -> None:
    guests = Guests(Doors(tmp_path))
    headers = guests.said(guests.alice, "red")
    guests.doors.good("alice", "nova-api", "DELETE", f"/v2.1/servers/{guests.alice}")
    from cumulet.nova.conductor import Releaser

    releaser = Releaser(guests.doors.db, guests.doors.config)
    for row in releaser.read().values():
        releaser.release(row)
    assert guests.ask(LATEST, headers) == (404, "404 Not Found\n")


# ── MD-2: no secret is compared in a time that tells where it differs ────────────────────────────────────────

SECRET_NAMES = re.compile(r"signature|ticket|secret|hmac|digest|_token\b|\btoken\b|password|x-auth|x-cumulet")
NOT_SECRETS = (
    'token == "@"',  # a word of a policy rule
    "digest.hexdigest() != image.sha512.lower()",  # a checksum, which everybody may know
    'name == "password"', 'method == "password"', 'name != "password"', 'method == "token"',  # words, not values
    'encrypted_password, "") == ""', 'name in ("domain_id", "token.domain.id")',
    'name == "token.project.domain.id"', 'parts[2:] != ["password"]', "intent.digest", "plan.digest",
    "wanted.digest", "self.digest",
    'hash == sa.bindparam("digest")', "hash == row.hash", "screen.host == token.host",  # the index finds hashes
)  # fmt: skip


def test_secrets_are_compared_in_constant_time() -> None:
    """``==`` stands nowhere between two texts one of which is a secret; ``secrets.same`` is compare_digest."""
    found, same = [], 0
    for path in Path(cumulet.__file__).parent.rglob("*.py"):
        text = path.read_text()
        same += text.count("same(")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Compare) and any(isinstance(op, ast.Eq | ast.NotEq) for op in node.ops):
                line = ast.get_source_segment(text, node) or ""
                plain = " ".join(line.split())
                if SECRET_NAMES.search(plain) and not any(known in plain for known in NOT_SECRETS):
                    found.append(f"{path.name}: {plain}")
    assert found == []
    assert same > 5
    assert "compare_digest" in (Path(cumulet.__file__).parent / "core" / "secrets.py").read_text()
