"""The story of an image's data: uploaded, checked, downloaded in whole and in part, fetched by hosts."""

import asyncio
import hashlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from cumulet.core.secrets import host_token
from cumulet.glance.model import SnapshotWish
from cumulet.glance.public import create_snapshot, delete_snapshot, image_ticket, upload_ticket
from tests.glance.rig import CALLERS, SECRETS, Answer, Glance, ask
from tests.glance.test_inspection import SIZE, make


def host_file(glance: Glance, image_id: str, host: str = "c1", **given: str) -> Answer:
    headers = {
        "X-Cumulet-Host": "c1",
        "X-Cumulet-Host-Token": host_token(SECRETS.host_secret, "c1"),
        "X-Image-Ticket": image_ticket(SECRETS.host_secret, image_id, "c1"),
        **{name.replace("_", "-"): value for name, value in given.items()},
    }
    return asyncio.run(ask(glance.api, "GET", f"/hosts/{host}/images/{image_id}/file", b"", headers))


@pytest.fixture
def qcow2(tmp_path: Path) -> bytes:
    return make(tmp_path, "qcow2").read_bytes()


def test_upload_and_download(glance: Glance) -> None:
    image = glance.create()
    assert glance.download("alice", image["id"]).status == 204
    data = os.urandom(3_000_001)
    pieces = [data[at : at + 65536] for at in range(0, len(data), 65536)]
    answer = glance.upload("alice", image["id"], pieces, {"X-OpenStack-Image-Size": str(len(data))})
    assert (answer.status, answer.body) == (204, b"")
    shown = glance.show(image["id"])
    assert shown["status"] == "active"
    assert shown["size"] == shown["virtual_size"] == len(data)
    assert shown["checksum"] == hashlib.md5(data).hexdigest()
    assert shown["os_hash_algo"] == "sha512"
    assert shown["os_hash_value"] == hashlib.sha512(data).hexdigest()
    assert shown["stores"] == "file"
    got = glance.download("amy", image["id"])
    assert got.status == 403
    got = glance.download("alice", image["id"])
    assert (got.status, got.body) == (200, data)
    assert got.headers["content-type"] == "application/octet-stream"
    assert got.headers["content-length"] == str(len(data))
    assert got.headers["content-md5"] == shown["checksum"]
    head = glance.download("alice", image["id"], "HEAD")
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(data)))
    assert len(glance.files()) == 1


def test_an_empty_image(glance: Glance) -> None:
    image = glance.active(data=b"")
    assert (image["status"], image["size"]) == ("active", 0)
    assert glance.download("alice", image["id"]).body == b""


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [("bytes=0-4", 0, 4), ("bytes=5-", 5, 9), ("bytes=-3", 7, 9), ("bytes=2-99", 2, 9), ("bytes=-99", 0, 9)],
)
def test_ranges(glance: Glance, asked: str, first: int, last: int) -> None:
    image = glance.active(data=b"0123456789")
    got = glance.download("alice", image["id"], Range=asked)
    assert got.status == 206
    assert got.body == b"0123456789"[first : last + 1]
    assert got.headers["content-range"] == f"bytes {first}-{last}/10"
    assert got.headers["content-length"] == str(last - first + 1)


@pytest.mark.parametrize(
    ("asked", "status"),
    [("bytes=10-", 416), ("bytes=5-2", 416), ("lines=1-2", 416), ("bytes=-", 416), ("bytes=0-1,3-4", 400)],
)
def test_bad_ranges(glance: Glance, asked: str, status: int) -> None:
    image = glance.active(data=b"0123456789")
    assert glance.download("alice", image["id"], Range=asked).status == status


def test_what_an_upload_needs(glance: Glance) -> None:
    image = glance.create(disk_format=None, container_format=None)
    answer = glance.upload("alice", image["id"], b"x")
    assert answer.status == 400
    assert b"Properties disk_format, container_format must be set prior to saving data." in answer.body
    raw = glance.create()
    assert glance.upload("alice", raw["id"], b"x", {"Content-Type": "text/plain"}).status == 415
    assert glance.upload("alice", raw["id"], b"x", {"X-Image-Meta-Store": "s3"}).status == 400
    assert glance.upload("alice", raw["id"], b"x", {"X-OpenStack-Image-Size": "many"}).status == 400
    assert glance.upload("alice", raw["id"], b"x", {"X-OpenStack-Image-Size": "2"}).status == 400
    assert glance.upload("", raw["id"], b"x").status == 401
    assert glance.upload("amy", raw["id"], b"x").status == 403
    assert glance.upload("bob", raw["id"], b"x").status == 404
    community = glance.create("alice", visibility="community")
    assert glance.upload("bob", community["id"], b"x").status == 403
    assert glance.show(raw["id"])["status"] == "queued"
    assert glance.files() == []
    assert glance.upload("alice", raw["id"], b"x", {"X-OpenStack-Image-Size": "1"}).status == 204


def test_data_is_uploaded_once(glance: Glance) -> None:
    image = glance.active(data=b"first")
    answer = glance.upload("alice", image["id"], b"second")
    assert answer.status == 409
    assert b"Image status transition from active to saving is not allowed" in answer.body
    assert glance.download("alice", image["id"]).body == b"first"
    assert len(glance.files()) == 1


def test_too_large(glance: Glance) -> None:
    glance.config.images.largest_bytes = 3_000_000
    image = glance.create()
    answer = glance.upload("alice", image["id"], b"", {"Content-Length": "3000001"})
    assert answer.status == 413
    answer = glance.upload("alice", image["id"], (b"x" * 65536 for _ in range(100)))
    assert answer.status == 413
    assert b"too large" in answer.body
    assert glance.show(image["id"])["status"] == "queued"
    assert glance.files() == []


def test_two_uploads_at_once(glance: Glance) -> None:
    image = glance.create()
    second: list[Answer] = []

    async def scene() -> Answer:
        headers = {"X-Auth-Token": "alice", "Content-Type": "application/octet-stream"}
        path = f"/v2/images/{image['id']}/file"
        halfway = asyncio.Event()

        class Body:
            def __init__(self) -> None:
                self.left = 3

            def __iter__(self) -> "Body":
                return self

            def __next__(self) -> bytes:
                self.left -= 1
                if self.left == 1:
                    halfway.set()
                if self.left < 0:
                    raise StopIteration
                return b"1" * (1 << 20)

        async def late() -> None:
            await halfway.wait()
            second.append(await ask(glance.api, "PUT", path, b"2", headers))

        async with asyncio.TaskGroup() as group:
            first = group.create_task(ask(glance.api, "PUT", path, Body(), headers))
            group.create_task(late())
        return first.result()

    assert asyncio.run(scene()).status == 204
    assert second[0].status == 409
    assert glance.show(image["id"])["size"] == 3 << 20
    assert len(glance.files()) == 1


def test_a_client_that_goes_away(glance: Glance) -> None:
    image = glance.create()
    headers = {"X-Auth-Token": "alice", "Content-Type": "application/octet-stream"}
    path = f"/v2/images/{image['id']}/file"
    answer = asyncio.run(ask(glance.api, "PUT", path, b"x" * 2_000_000, headers, disconnect=True))
    assert answer.status == 0
    assert glance.show(image["id"])["status"] == "queued"
    assert glance.files() == []


def test_a_client_that_falls_silent(glance: Glance) -> None:
    image = glance.create()
    object.__setattr__(glance.api.extras, "idle_seconds", 0.01)

    async def scene() -> int:
        status = 0

        async def receive() -> dict[str, object]:
            await asyncio.Event().wait()
            raise AssertionError

        async def send(message: dict[str, object]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                assert isinstance(message["status"], int)
                status = message["status"]

        path = f"/v2/images/{image['id']}/file"
        headers = [(b"x-auth-token", b"alice"), (b"content-type", b"application/octet-stream")]
        scope = {"type": "http", "method": "PUT", "path": path, "query_string": b"", "headers": headers}
        await glance.api(scope, receive, send)  # type: ignore[arg-type]
        return status

    assert asyncio.run(scene()) == 408
    assert glance.show(image["id"])["status"] == "queued"
    assert glance.files() == []


def test_an_image_deleted_while_it_is_uploaded(glance: Glance) -> None:
    image = glance.create()

    def body() -> Iterator[bytes]:
        yield b"x" * (1 << 20)
        yield b"x" * (1 << 20)
        assert glance.call("alice", "DELETE", image["self"])[0] == 204
        glance.clean()
        assert glance.files()[0].endswith(".part")
        yield b"x" * (1 << 20)

    answer = glance.upload("alice", image["id"], body())
    assert answer.status == 410
    glance.clean()
    assert glance.files() == []
    assert glance.call("alice", "GET", image["self"])[0] == 404


def test_the_format_cannot_change_under_an_upload(glance: Glance) -> None:
    """Declared raw when the upload began, qcow2 when it ended, would be data that nobody looked at."""
    image = glance.create(disk_format="raw")
    step = {"op": "replace", "path": "/disk_format", "value": "qcow2"}

    def body() -> Iterator[bytes]:
        yield b"x" * (1 << 20)
        assert glance.patch("alice", image["id"], step)[0] == 403
        yield b"x"

    assert glance.upload("alice", image["id"], body()).status == 204
    assert glance.show(image["id"])["disk_format"] == "raw"


def test_a_full_disk(glance: Glance) -> None:
    image = glance.create()
    limit = 1 << 20
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        answer = glance.upload("alice", image["id"], [b"x" * limit] * 3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert answer.status == 413
    assert b"Image storage media is full" in answer.body
    assert str(glance.directory).encode() not in answer.body
    assert glance.show(image["id"])["status"] == "queued"
    assert glance.files() == []


def test_lost_data_is_said(glance: Glance) -> None:
    image = glance.active()
    for path in glance.directory.iterdir():
        path.unlink()
    answer = glance.download("alice", image["id"])
    assert answer.status == 404
    assert str(glance.directory).encode() not in answer.body


def test_a_host_fetches_with_its_ticket(glance: Glance) -> None:
    image = glance.active(data=b"for a host", visibility="private")
    got = host_file(glance, image["id"])
    assert (got.status, got.body) == (200, b"for a host")
    assert host_file(glance, image["id"], X_Image_Ticket="").status == 401
    other = image_ticket(SECRETS.host_secret, image["id"], "c2")
    assert host_file(glance, image["id"], X_Image_Ticket=other).status == 401
    assert host_file(glance, image["id"], host="c2").status == 403
    assert host_file(glance, image["id"], X_Cumulet_Host_Token="x").status == 401
    assert host_file(glance, glance.create()["id"]).status == 404
    assert host_file(glance, "none").status == 404
    glance.call("alice", "POST", f"{image['self']}/actions/deactivate")
    assert host_file(glance, image["id"]).status == 403


def snapshot(glance: Glance, name: str = "backup") -> str:
    """An image whose data is to come from a host."""
    wish = SnapshotWish(name=name, owner="blue", min_disk=1, min_ram=0, properties={"image_type": "snapshot"})
    with glance.db.transaction() as tx:
        return create_snapshot(tx, CALLERS["alice"], wish)


def send(glance: Glance, image_id: str, data: bytes, host: str = "c1", **given: str) -> Answer:
    headers = {
        "X-Cumulet-Host": "c1",
        "X-Cumulet-Host-Token": host_token(SECRETS.host_secret, "c1"),
        "X-Image-Ticket": upload_ticket(SECRETS.host_secret, image_id, "c1"),
        "Content-Type": "application/octet-stream",
        **{name.replace("_", "-"): value for name, value in given.items()},
    }
    return asyncio.run(ask(glance.api, "PUT", f"/hosts/{host}/images/{image_id}/file", data, headers))


def test_a_host_sends_the_data_of_a_server_s_disk(glance: Glance, qcow2: bytes) -> None:
    made = snapshot(glance)
    assert glance.show(made)["status"] == "queued"
    assert send(glance, made, qcow2, X_Image_Ticket=image_ticket(SECRETS.host_secret, made, "c1")).status == 401
    assert send(glance, made, qcow2, X_Image_Ticket=upload_ticket(SECRETS.host_secret, made, "c2")).status == 401
    assert send(glance, made, qcow2, host="c2").status == 403
    assert send(glance, made, b"not a qcow2").status == 415
    assert (glance.show(made)["status"], glance.files()) == ("queued", [])
    assert send(glance, made, qcow2).status == 204
    shown = glance.show(made)
    assert (shown["status"], shown["size"], shown["virtual_size"]) == ("active", len(qcow2), SIZE)
    assert shown["os_hash_value"] == hashlib.sha512(qcow2).hexdigest()
    assert send(glance, made, b"again, for it has not heard the answer").status == 204
    assert glance.download("alice", made).body == qcow2
    with glance.db.transaction() as tx:
        delete_snapshot(tx, made)
    assert glance.show(made)["status"] == "active", "an image that has its data stays"


def test_an_image_whose_data_will_not_come_is_gone(glance: Glance, qcow2: bytes) -> None:
    made = snapshot(glance)
    for _ in range(2):
        with glance.db.transaction() as tx:
            delete_snapshot(tx, made)
    assert glance.call("alice", "GET", f"/v2/images/{made}")[0] == 404
    assert send(glance, made, qcow2).status == 410
    assert glance.files() == []


def test_a_user_is_no_host(glance: Glance) -> None:
    image = glance.active()
    headers = {"X-Auth-Token": "admin", "X-Image-Ticket": image_ticket(SECRETS.host_secret, image["id"], "c1")}
    answer = asyncio.run(ask(glance.api, "GET", f"/hosts/c1/images/{image['id']}/file", b"", headers))
    assert answer.status == 401


def test_notifications(glance: Glance) -> None:
    from cumulet.core.tables import notifications

    image = glance.active(os_distro="x")
    glance.patch("alice", image["id"], {"op": "replace", "path": "/name", "value": "y"})
    glance.call("alice", "DELETE", image["self"])
    with glance.db.read() as tx:
        rows = tx.all(notifications.select().order_by(notifications.c.created_at))
    kinds = [row.event_type for row in rows]
    assert kinds == [
        "image.create", "image.prepare", "image.upload", "image.activate", "image.update", "image.delete"
    ]  # fmt: skip
    assert rows[3].payload["status"] == "active"
    assert rows[3].payload["properties"] == {"os_distro": "x"}
    assert rows[-1].payload["deleted"] is True
    assert rows[0].context["project_id"] == "blue"
    assert rows[0].publisher_id == "image.node-1"
    assert str(glance.directory) not in str(rows)
