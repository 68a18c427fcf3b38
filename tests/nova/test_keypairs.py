"""/os-keypairs: a user's public keys."""

import base64
import hashlib
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from tests.nova.api_cloud import Cloud


@pytest.fixture
def cloud() -> Cloud:
    return Cloud()


def public_key() -> str:
    key = ed25519.Ed25519PrivateKey.generate().public_key()
    return (
        key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode() + " me@home"
    )


def add(cloud: Cloud, who: str = "alice", name: str = "kp", version: str = "2.10", **more: Any) -> Any:
    wish = {"name": name, "public_key": public_key(), **more}
    return cloud.good(who, "POST", "/os-keypairs", {"keypair": wish}, version)["keypair"]


def test_import_show_list_delete(cloud: Cloud) -> None:
    key = public_key()
    made = add(cloud, public_key=key)
    digest = hashlib.md5(base64.b64decode(key.split()[1])).hexdigest()
    fingerprint = ":".join(digest[i : i + 2] for i in range(0, 32, 2))
    assert made == {
        "name": "kp", "public_key": key, "fingerprint": fingerprint, "user_id": "alice", "type": "ssh",
    }  # fmt: skip
    shown = cloud.get("alice", "/os-keypairs/kp")["keypair"]
    assert {**shown, **made} == shown
    assert (shown["deleted"], shown["updated_at"], type(shown["id"])) == (False, None, int)
    (listed,) = cloud.get("alice", "/os-keypairs")["keypairs"]
    assert set(listed["keypair"]) == {"name", "public_key", "fingerprint", "type"}
    assert cloud.call("alice", "DELETE", "/os-keypairs/kp")[0] == 204
    assert cloud.refused("alice", "GET", "/os-keypairs/kp") == (404, "Keypair kp not found for user alice")
    assert cloud.refused("alice", "DELETE", "/os-keypairs/kp")[0] == 404


def test_the_first_version(cloud: Cloud) -> None:
    wish = {"keypair": {"name": "kp", "public_key": public_key()}}
    status, answer = cloud.call("alice", "POST", "/os-keypairs", wish, "2.1")
    assert (status, "type" in answer["keypair"]) == (200, False)
    assert cloud.call("alice", "DELETE", "/os-keypairs/kp", version="2.1")[0] == 202
    wish["keypair"]["type"] = "ssh"
    assert cloud.refused("alice", "POST", "/os-keypairs", wish, "2.1")[0] == 400


def test_a_generated_pair(cloud: Cloud) -> None:
    made = cloud.good("alice", "POST", "/os-keypairs", {"keypair": {"name": "new"}}, "2.10")["keypair"]
    private = serialization.load_pem_private_key(made["private_key"].encode(), None)
    public = private.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    assert made["public_key"].startswith(public.decode())
    assert "private_key" not in cloud.get("alice", "/os-keypairs/new")["keypair"]


def test_other_peoples_keys(cloud: Cloud) -> None:
    add(cloud)
    assert cloud.get("carol", "/os-keypairs")["keypairs"] == []
    assert cloud.refused("carol", "GET", "/os-keypairs/kp")[0] == 404
    for url in ("/os-keypairs?user_id=alice", "/os-keypairs/kp?user_id=alice"):
        assert cloud.refused("carol", "GET", url)[0] == 403
    assert cloud.refused("carol", "DELETE", "/os-keypairs/kp?user_id=alice")[0] == 403
    theirs = {"keypair": {"name": "x", "public_key": public_key(), "user_id": "alice"}}
    assert cloud.refused("carol", "POST", "/os-keypairs", theirs)[0] == 403
    add(cloud, "admin", "by-admin", user_id="alice")
    assert len(cloud.get("admin", "/os-keypairs?user_id=alice")["keypairs"]) == 2
    assert cloud.get("admin", "/os-keypairs?user_id=alice", "2.9")["keypairs"] == []
    assert cloud.call("admin", "DELETE", "/os-keypairs/by-admin?user_id=alice")[0] == 204


@pytest.mark.parametrize(
    "wish",
    [
        {"name": ""},
        {"name": "a/b"},
        {"name": "a.b"},
        {"name": "kp", "public_key": "ssh-rsa nonsense"},
        {"name": "kp", "public_key": "nonsense"},
        {"name": "kp", "public_key": ""},
        {"name": "kp", "public_key": "ssh-ed25519 AAAA\nssh-ed25519 AAAA"},
        {"name": "kp", "public_key": "x" * 20000},
        {"name": "kp", "type": "gpg", "public_key": "x"},
        {"name": "kp", "type": "gpg"},
        {"name": "kp", "type": "x509", "public_key": "x"},
        {"name": "kp", "colour": "red"},
        {},
    ],
)
def test_bad_keys(cloud: Cloud, wish: dict[str, Any]) -> None:
    status, message = cloud.refused("alice", "POST", "/os-keypairs", {"keypair": wish}, "2.91")
    assert (status, bool(message)) == (400, True)


def test_newest_names_and_no_generation(cloud: Cloud) -> None:
    assert add(cloud, name="me@home.net", version="2.92")["name"] == "me@home.net"
    assert cloud.refused("alice", "POST", "/os-keypairs", {"keypair": {"name": "kp"}}, "2.92")[0] == 400


def test_doubles_quota_and_pages(cloud: Cloud) -> None:
    add(cloud, name="k1")
    again = {"keypair": {"name": "k1", "public_key": public_key()}}
    assert cloud.refused("alice", "POST", "/os-keypairs", again) == (409, "Key pair 'k1' already exists.")
    add(cloud, name="k2")
    add(cloud, name="k3")
    cloud.good("admin", "PUT", "/os-quota-sets/red", {"quota_set": {"key_pairs": 3}})
    fourth = {"keypair": {"name": "k4", "public_key": public_key()}}
    assert cloud.refused("alice", "POST", "/os-keypairs", fourth) == (403, "Quota exceeded, too many key pairs.")
    page = cloud.get("alice", "/os-keypairs?limit=2")
    assert [item["keypair"]["name"] for item in page["keypairs"]] == ["k1", "k2"]
    assert page["keypairs_links"][0]["href"].endswith("limit=2&marker=k2")
    rest = cloud.get("alice", "/os-keypairs?limit=2&marker=k2")
    assert [item["keypair"]["name"] for item in rest["keypairs"]] == ["k3"]


def test_a_server_gets_its_owners_key(cloud: Cloud) -> None:
    add(cloud)
    server = cloud.create(key_name="kp")
    assert cloud.show("alice", server)["key_name"] == "kp"
    wish = {"name": "vm", "imageRef": cloud.image, "flavorRef": cloud.flavor, "networks": "none", "key_name": "kp"}
    assert cloud.refused("carol", "POST", "/servers", {"server": wish}) == (400, "Invalid key_name provided.")
    cloud.good("alice", "DELETE", "/os-keypairs/kp")
    assert cloud.show("alice", server)["key_name"] == "kp"


def test_a_certificate_for_windows(cloud: Cloud) -> None:
    made = cloud.good("alice", "POST", "/os-keypairs", {"keypair": {"name": "win", "type": "x509"}}, "2.2")
    pair = made["keypair"]
    certificate = x509.load_pem_x509_certificate(pair["public_key"].encode())
    key = serialization.load_pem_private_key(pair["private_key"].encode(), None)
    assert certificate.public_key() == key.public_key()
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    (principal,) = names
    assert principal.value == b"\x0c\x0falice@localhost"
    sent = {"name": "again", "type": "x509", "public_key": pair["public_key"]}
    again = cloud.good("alice", "POST", "/os-keypairs", {"keypair": sent}, "2.92")["keypair"]
    assert again["fingerprint"] == pair["fingerprint"]
