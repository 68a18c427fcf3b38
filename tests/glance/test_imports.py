"""Imports: staged data and data from the web, their tasks, and deaths at every effect."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from cumulet.core import clock
from cumulet.core.tables import notifications
from cumulet.glance.tables import image_tasks
from tests import databases
from tests.core.web import Web, ok, redirect
from tests.glance.rig import Glance, glance_in
from tests.glance.test_leftovers import DATA, glance_on_disk, ground, run_child

__all__ = ["ground"]
URL = "http://images.example/image"
ONE_PIECE = b"w" * 5000  # comes at one read, whatever the network does
QCOW2_WITH_BACKING = b"QFI\xfb\0\0\0\2" + bytes(7) + b"\x70" + b"\0\0\0\x20" + bytes(600)


@pytest.fixture
def web() -> Iterator[Web]:
    web = Web()
    threading.Thread(target=web.serve, daemon=True).start()
    web.answers["/image"] = ok(DATA)
    yield web
    web.listener.shutdown(socket.SHUT_RDWR)
    web.listener.close()


@pytest.fixture
def world(tmp_path: Path, web: Web) -> Glance:
    return glance_in(tmp_path, web.outbound())


def task_of(glance: Glance, image: dict[str, Any]) -> dict[str, Any]:
    status, body = glance.call("alice", "GET", f"{image['self']}/tasks")
    assert status == 200, body
    (task,) = body["tasks"]
    return dict(task)


def test_staged_data_is_imported(glance: Glance) -> None:
    image = glance.create()
    assert glance.stage("alice", image["id"], DATA).status == 204
    shown = glance.show(image["id"])
    assert (shown["status"], shown["size"], shown["checksum"]) == ("uploading", None, None)
    glance.work()
    assert glance.show(image["id"])["status"] == "uploading", "staged data waits as long as it takes"
    assert glance.download("alice", image["id"]).status == 204, "nobody gets it before it was looked at"
    usage = glance.call("alice", "GET", "/v2/info/usage")[1]["usage"]
    assert usage["image_stage_total"] == {"limit": -1, "usage": 3}
    assert usage["image_count_uploading"]["usage"] == 1
    assert glance.order_import("alice", image["id"])[0] == 202
    assert glance.show(image["id"])["status"] == "importing"
    task = task_of(glance, image)
    assert (task["status"], task["type"], task["image_id"]) == ("pending", "api_image_import", image["id"])
    assert task["input"]["import_req"] == {"method": {"name": "glance-direct"}}
    glance.imports.run_once()  # woken by the hint
    shown = glance.show(image["id"])
    assert (shown["status"], shown["size"]) == ("active", len(DATA))
    assert glance.download("alice", image["id"]).body == DATA
    assert task_of(glance, image)["status"] == "success"
    glance.work()
    assert len(glance.files()) == 1
    usage = glance.call("alice", "GET", "/v2/info/usage")[1]["usage"]
    assert usage["image_size_total"] == {"limit": -1, "usage": 3}
    assert usage["image_stage_total"]["usage"] == usage["image_count_uploading"]["usage"] == 0


def test_an_image_from_the_web(world: Glance, web: Web) -> None:
    web.answers["/moved"] = redirect("https://images.example/image")
    image = world.create()
    assert world.order_import("alice", image["id"], "web-download", uri=URL)[0] == 202
    assert world.show(image["id"])["status"] == "importing"
    world.work()
    assert world.show(image["id"])["status"] == "active"
    assert world.download("alice", image["id"]).body == DATA
    task = task_of(world, image)
    assert (task["status"], task["result"]) == ("success", {"image_id": image["id"]})
    assert task["input"]["import_req"]["method"] == {"name": "web-download", "uri": URL}
    assert world.call("admin", "GET", f"/v2/tasks/{task['id']}") == (200, task)
    assert world.call("admin", "GET", "/v2/tasks?status=failure")[1]["tasks"] == []
    assert [each["id"] for each in world.call("admin", "GET", "/v2/tasks")[1]["tasks"]] == [task["id"]]
    assert world.call("alice", "GET", "/v2/tasks")[0] == 403
    assert world.call("admin", "GET", "/v2/tasks/none")[0] == 404


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "answered 404"),
        (redirect("http://169.254.169.254/"), "not public"),
        (redirect("http://inside.example/"), "not public"),
        (ok(b"x" * 100)[:-1], "broke off"),
        (ok(QCOW2_WITH_BACKING), "does not match"),
        (ok(bytes(6 << 20)), "more than"),
    ],
)
def test_a_bad_place_or_bad_data_fails(world: Glance, web: Web, answer: bytes, reason: str) -> None:
    world.config.images.largest_bytes = 5 << 20
    web.names["inside.example"] = [["10.0.0.1"]]
    web.answers["/image"] = answer
    image = world.create()
    assert world.order_import("alice", image["id"], "web-download", uri=URL)[0] == 202
    world.work()
    task = task_of(world, image)
    assert task["status"] == "failure"
    assert reason in task["message"]
    shown = world.show(image["id"])
    assert (shown["status"], shown["os_glance_failed_import"]) == ("queued", "file")
    assert world.files() == []
    web.answers["/image"] = ok(DATA)
    assert world.order_import("alice", image["id"], "web-download", uri=URL)[0] == 202, "and it may be tried again"
    assert "os_glance_failed_import" not in world.show(image["id"])
    world.work()
    assert world.show(image["id"])["status"] == "active"
    assert "os_glance_failed_import" not in world.show(image["id"])


def test_staged_data_that_is_bad(glance: Glance) -> None:
    image = glance.create()
    assert glance.stage("alice", image["id"], QCOW2_WITH_BACKING).status == 204
    assert glance.order_import("alice", image["id"])[0] == 202
    glance.work()
    assert "does not match" in task_of(glance, image)["message"]
    assert glance.show(image["id"])["status"] == "queued"
    assert glance.files() == []


@pytest.mark.parametrize(
    "uri",
    [None, "", "file:///etc/passwd", "http://127.0.0.1/", "http://2130706433/", "http://[::1]/", "http://a:22/",
     "http://[64:ff9b::7f00:1]/", "http://u@a.example/", "http://0x7f.1/", "ftp://a.example/"],
)  # fmt: skip
def test_urls_that_are_refused_at_once(world: Glance, uri: str | None) -> None:
    image = world.create()
    assert world.order_import("alice", image["id"], "web-download", uri=uri)[0] == 400
    assert world.show(image["id"])["status"] == "queued"


def test_who_may_and_when(world: Glance) -> None:
    image, staged = world.create(), world.create()
    for who, status in (("bob", 404), ("amy", 403), ("nobody", 403), ("stranger", 401)):
        assert world.order_import(who, image["id"], "web-download", uri=URL)[0] == status
        assert world.stage(who, image["id"], b"x").status == status
        assert world.call(who, "GET", f"{image['self']}/tasks")[0] == (200 if who == "amy" else status)
    for name in ("copy-image", "glance-download", "magic", ""):
        assert world.order_import("alice", image["id"], name, uri=URL)[0] == 400
    body = {"method": {"name": "web-download", "uri": URL}, "stores": ["other"]}
    assert world.call("alice", "POST", f"{image['self']}/import", body)[0] == 400
    assert world.call("alice", "POST", f"{image['self']}/import", {"method": "web-download"})[0] == 400
    assert world.order_import("alice", image["id"])[0] == 409, "nothing is staged"
    bare = world.create(container_format=None)
    assert "container_format" in world.order_import("alice", bare["id"], "web-download", uri=URL)[1]
    assert world.stage("alice", staged["id"], b"some data").status == 204
    assert world.stage("alice", staged["id"], b"again").status == 409
    assert world.upload("alice", staged["id"], b"again").status == 409
    assert world.order_import("alice", staged["id"], "web-download", uri=URL)[0] == 409
    assert world.order_import("alice", staged["id"])[0] == 202
    assert world.order_import("alice", staged["id"])[0] == 409
    world.work()
    assert world.order_import("alice", staged["id"])[0] == 409
    world.config.images.web_download = False
    assert world.order_import("alice", image["id"], "web-download", uri=URL)[0] == 400
    assert world.call("alice", "GET", "/v2/info/import")[1]["import-methods"]["value"] == ["glance-direct"]


def test_a_project_has_so_many_at_a_time(world: Glance) -> None:
    images = [world.create() for _ in range(11)]
    answers = [world.order_import("alice", image["id"], "web-download", uri=URL)[0] for image in images]
    assert answers == [202] * 10 + [413]
    assert world.order_import("bob", world.create("bob")["id"], "web-download", uri=URL)[0] == 202


def test_an_image_deleted_in_between(world: Glance, web: Web) -> None:
    image = world.create()
    assert world.order_import("alice", image["id"], "web-download", uri=URL)[0] == 202

    def answer(peer: socket.socket) -> None:
        peer.sendall(ok(DATA)[:1_500_000])
        assert world.call("alice", "DELETE", image["self"])[0] == 204
        peer.sendall(ok(DATA)[1_500_000:])

    web.answers["/image"] = answer
    for _ in range(3):
        world.work()
    assert world.files() == []
    (task,) = world.call("admin", "GET", "/v2/tasks")[1]["tasks"]
    assert task["status"] == "failure"
    assert world.imports.failures == {}


def test_a_registry_that_is_away_costs_time_only(world: Glance) -> None:
    image = world.create()
    assert world.order_import("alice", image["id"], "web-download", uri=URL)[0] == 202
    world.transport.down = True
    world.work()
    assert "does not answer" in world.imports.read_failure
    world.transport.down = False
    world.imports._due.clear()
    world.work()
    assert world.show(image["id"])["status"] == "active"


def test_the_end_of_the_service_is_no_failure(tmp_path: Path, web: Web) -> None:
    outbound = web.outbound()
    world = glance_in(tmp_path, outbound)
    image = world.create()
    assert world.order_import("alice", image["id"], "web-download", uri=URL)[0] == 202
    outbound.stopping.set()
    world.work()
    assert (world.show(image["id"])["status"], world.files()) == ("importing", [])
    outbound.stopping.clear()
    world.imports._due.clear()
    world.work()
    assert world.show(image["id"])["status"] == "active"


def test_tasks_are_forgotten_after_two_days(world: Glance) -> None:
    first, second = world.create(), world.create()
    for image in (first, second):
        assert world.order_import("alice", image["id"], "web-download", uri=URL)[0] == 202
        world.work()
        with world.db.transaction() as tx:
            tx.write(
                sa.update(image_tasks)
                .where(image_tasks.c.image_id == first["id"])
                .values(finished_at=clock.later(-3 * 86400))
            )
    assert len(world.call("admin", "GET", "/v2/tasks")[1]["tasks"]) == 1


def test_notifications_of_what_was_sent_and_shared(glance: Glance) -> None:
    image = glance.active(data=b"0123456789")
    assert glance.download("alice", image["id"], Range="bytes=2-4").body == b"234"
    glance.call("alice", "POST", f"{image['self']}/members", {"member": "red"})
    glance.call("bob", "PUT", f"{image['self']}/members/red", {"status": "accepted"})
    glance.call("alice", "DELETE", f"{image['self']}/members/red")
    with glance.db.read() as tx:
        rows = tx.all(sa.select(notifications).order_by(notifications.c.created_at))
    told = {row.event_type: row.payload for row in rows}
    assert told["image.send"] == {
        "bytes_sent": 3, "image_id": image["id"], "receiver_tenant_id": "blue", "receiver_user_id": "u1",
        "destination_ip": "127.0.0.1", "owner_id": "blue",
    }  # fmt: skip
    assert told["image.member.create"]["status"] == "pending"
    assert told["image.member.update"]["status"] == "accepted"
    assert told["image.member.delete"]["deleted"] is True


# deaths


def order_and_download(glance: Glance, image_id: str) -> None:
    assert glance.order_import("alice", image_id, "web-download", uri=URL)[0] == 202
    glance.imports.run_once()


def stage_and_import(glance: Glance, image_id: str) -> None:
    assert glance.stage("alice", image_id, DATA).status == 204
    assert glance.order_import("alice", image_id)[0] == 202
    glance.imports.run_once()


def bad_download(glance: Glance, image_id: str) -> None:
    assert glance.order_import("alice", image_id, "web-download", uri="http://images.example/bad")[0] == 202
    glance.imports.run_once()


def bad_stage(glance: Glance, image_id: str) -> None:
    assert glance.stage("alice", image_id, QCOW2_WITH_BACKING).status == 204
    assert glance.order_import("alice", image_id)[0] == 202
    glance.imports.run_once()


def settle(glance: Glance) -> None:
    """Passes of both loops, in either order, until all is said; the last ones write nothing."""
    for _ in range(3):
        glance.clean()
        glance.imports._due.clear()
        glance.work()
    assert glance.imports.failures == {}
    assert glance.imports.reconciler.read() == {}
    assert glance.loop.failures == {}
    assert glance.loop.reconciler.read() == {}


@pytest.mark.parametrize(
    ("work", "data", "ends"),
    [
        (order_and_download, ONE_PIECE, {"queued", "active"}),
        (stage_and_import, DATA, {"queued", "uploading", "active"}),
        (bad_download, None, {"queued"}),
        (bad_stage, None, {"queued", "uploading"}),
    ],
)
def test_an_import_dies_anywhere(ground: Path, web: Web, work: Any, data: bytes | None, ends: set[str]) -> None:
    web.answers["/image"] = ok(ONE_PIECE)
    web.answers["/bad"] = ok(QCOW2_WITH_BACKING)

    def begin(name: str) -> tuple[Path, Glance, str]:
        directory = ground / name
        directory.mkdir()
        glance = glance_on_disk(directory, outbound=web.outbound())
        databases.make_tables(glance.db.engine)
        image_id = str(glance.create()["id"])
        glance.db.engine.dispose()
        return directory, glance, image_id

    directory, _, image_id = begin("count")
    count = run_child(directory, image_id, work, None, web.outbound())
    assert count >= 8
    outcomes = set()
    for die_at in range(1, count + 1):
        directory, glance, image_id = begin(str(die_at))
        assert run_child(directory, image_id, work, die_at, web.outbound()) == -1, "the death was reached"
        settle(glance)
        status = glance.show(image_id)["status"]
        outcomes.add(status)
        if status == "active":
            assert glance.download("alice", image_id).body == data
        assert len(glance.files()) == (0 if status == "queued" else 1), (die_at, status, glance.files())
        if status == "uploading":
            assert glance.order_import("alice", image_id)[0] == 202
            settle(glance)
            assert glance.show(image_id)["status"] == ("active" if work is stage_and_import else "queued")
    assert outcomes == ends
