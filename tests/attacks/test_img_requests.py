"""IMG-7 to IMG-11: requests made to get around the checks of images, and what answers tell."""

import asyncio
import threading
from pathlib import Path

import pytest

from cumulet.core.secrets import host_token
from tests.core.web import Web, redirect
from tests.glance.rig import SECRETS, Glance, ask, glance_in

CANARY = "/etc/hostname"


@pytest.fixture
def glance(tmp_path: Path) -> Glance:
    return glance_in(tmp_path)


# IMG-7: no locations


def test_no_location_can_be_given(glance: Glance) -> None:
    place = {"url": f"file://{CANARY}", "metadata": {}}
    for who in ("alice", "admin"):
        for body in ({"locations": [place]}, {"location": f"file://{CANARY}"}, {"direct_url": f"file://{CANARY}"}):
            assert glance.call(who, "POST", "/v2/images", body)[0] == 403
        image = glance.create(who)
        for step in (
            {"op": "add", "path": "/locations/-", "value": place},
            {"op": "add", "path": "/locations", "value": [place]},
            {"op": "replace", "path": "/locations", "value": [place]},
            {"op": "remove", "path": "/locations/0"},
        ):
            assert glance.patch(who, image["id"], step)[0] == 403
        assert glance.call(who, "POST", f"{image['self']}/locations", {"url": f"file://{CANARY}"})[0] in (404, 405)
        headers = {"x_image_meta_location": f"file://{CANARY}", "x_glance_api_copy_from": "http://127.0.0.1/"}
        assert glance.call(who, "POST", "/v2/images", {}, **headers)[1]["status"] == "queued"


# IMG-8: status and data are nobody's to write


@pytest.mark.parametrize(
    "field",
    ["status", "checksum", "size", "virtual_size", "os_hash_value", "os_hash_algo", "created_at", "updated_at",
     "id", "self", "file", "schema", "stores", "deleted", "deleted_at"],
)  # fmt: skip
def test_what_the_cloud_alone_writes(glance: Glance, field: str) -> None:
    image = glance.active()
    for operation in ("add", "replace", "remove"):
        for who in ("alice", "admin"):
            step = {"op": operation, "path": f"/{field}", "value": "queued"}
            assert glance.patch(who, image["id"], step)[0] == 403
    headers = {"x_image_meta_status": "queued", "x_image_meta_checksum": "x"}
    assert glance.call("alice", "PUT", image["self"], {}, **headers)[0] == 405
    assert glance.show(image["id"]) == image


def test_data_is_final(glance: Glance) -> None:
    image = glance.active(data=b"the first")
    for who in ("alice", "admin"):
        assert glance.upload(who, image["id"], b"another").status == 409
    assert glance.call("alice", "POST", f"{image['self']}/actions/deactivate")[0] == 204
    assert glance.upload("alice", image["id"], b"another").status == 409
    assert glance.download("alice", image["id"]).status == 403
    assert glance.download("admin", image["id"]).body == b"the first"


def test_an_image_id_is_no_path(glance: Glance) -> None:
    for image_id in ("..", "../../etc/passwd", "%2e%2e%2fx", "x" * 5000, "a\0b"):
        assert glance.download("admin", image_id).status in (400, 404)
        assert glance.upload("admin", image_id, b"x").status in (400, 404)
    assert glance.files() == []


# IMG-9: no path and no secret in any answer


def test_answers_tell_nothing_of_the_inside(glance: Glance, tmp_path: Path) -> None:
    said: list[str] = []
    image = glance.active()
    with_attempt = glance.client.get_image(glance.api._caller.user("admin"), image["id"])
    inside = [str(tmp_path), with_attempt.attempt or "", *(value for value in _secrets() if len(value) > 5)]
    for who in ("alice", "admin", "bob"):
        for method, url in (
            ("GET", "/v2/images"), ("GET", image["self"]), ("GET", "/v2/info/stores"), ("GET", "/"),
            ("GET", "/v2/schemas/image"), ("POST", f"{image['self']}/actions/deactivate"),
            ("POST", f"{image['self']}/actions/reactivate"), ("PATCH", image["self"]), ("PUT", image["self"]),
        ):  # fmt: skip
            status, data, headers = glance.api.call(method, url, [], {"X-Auth-Token": who})
            said.append(f"{status} {data!r} {headers}")
        for answer in (
            glance.download(who, image["id"]),
            glance.download(who, image["id"], Range="bytes=99-"),
            glance.upload(who, image["id"], b"again"),
        ):
            said.append(f"{answer.headers} {answer.body!r}")
    for path in glance.directory.iterdir():
        path.unlink()
    said.append(repr(glance.download("alice", image["id"])))
    glance.directory.rmdir()
    said.append(repr(glance.upload("alice", glance.create()["id"], b"x")))
    assert "503" in said[-1]
    for text in said:
        for secret in inside:
            assert secret not in text


def _secrets() -> list[str]:
    return [getattr(SECRETS, name) for name in SECRETS.__struct_fields__]


# IMG-10: the same rules at every door


@pytest.mark.parametrize("who", ["alice", "amy", "bob", "nobody", "stranger", ""])
def test_every_door_asks_the_same(glance: Glance, who: str) -> None:
    """What may not be read by one way may not be read by another: whole, in part, by HEAD, as a host, below."""
    image = glance.active("alice", visibility="private", data=b"private")
    may = who == "alice"
    assert (glance.download(who, image["id"]).status == 200) is may
    assert (glance.download(who, image["id"], "HEAD").status == 200) is may
    assert (glance.download(who, image["id"], Range="bytes=0-1").status == 206) is may
    host = {"X-Auth-Token": who, "X-Cumulet-Host": "c1", "X-Cumulet-Host-Token": who, "X-Image-Ticket": who}
    path = f"/hosts/c1/images/{image['id']}/file"
    assert asyncio.run(ask(glance.api, "GET", path, b"", host)).status == 401
    host["X-Cumulet-Host-Token"] = host_token(SECRETS.host_secret, "c1")
    assert asyncio.run(ask(glance.api, "GET", path, b"", host)).status == 401
    assert glance.registry.call("GET", f"/images/{image['id']}", headers={"X-Auth-Token": who})[0] == 401
    assert glance.registry.call("GET", "/images", headers=host)[0] == 401


# IMG-11: what the cloud fetches for a user must not be what only the cloud reaches


@pytest.mark.parametrize(
    ("uri", "names"),
    [
        ("http://inside.example/", ["10.0.0.1"]),
        ("http://inside.example/", ["93.184.216.34", "127.0.0.1"]),
        ("http://inside.example/", ["::ffff:169.254.169.254"]),
        ("http://inside.example/", ["64:ff9b::a9fe:a9fe"]),
        ("http://away.example/", ["93.184.216.34"]),
    ],
)
def test_an_import_does_not_reach_inside(tmp_path: Path, uri: str, names: list[str]) -> None:
    """By its name, by one of its names, or by a redirect; nothing of what is there is told."""
    web = Web()
    threading.Thread(target=web.serve, daemon=True).start()
    web.names["inside.example"] = [names]
    web.answers["/"] = redirect("http://169.254.169.254/latest/meta-data")
    glance = glance_in(tmp_path, web.outbound())
    image = glance.create()
    assert glance.order_import("alice", image["id"], "web-download", uri=uri)[0] == 202
    glance.work()
    (task,) = glance.call("alice", "GET", f"{image['self']}/tasks")[1]["tasks"]
    assert (task["status"], task["message"]) == ("failure", "the address is not public")
    assert web.dialled == (["93.184.216.34:80"] if "away" in uri else [])
    assert glance.show(image["id"])["status"] == "queued"
    assert glance.files() == []
    web.listener.close()


def test_no_route_is_open(glance: Glance) -> None:
    """Without a token: the versions and the health, nothing else."""
    answers = {}
    for route in glance.api.routes:
        path = route.path.replace("{", "").replace("}", "")
        answers[f"{route.method} {path}"] = asyncio.run(ask(glance.api, route.method, path)).status
    allowed = {key for key, status in answers.items() if status != 401}
    assert allowed <= {"GET /", "GET /versions", "GET /version", "GET /healthcheck", "GET /openapi.json"}
