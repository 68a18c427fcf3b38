"""createImage: an image of a server's disk."""

from typing import Any

import pytest
import sqlalchemy as sa

from cumulet.core.clock import now
from cumulet.glance.public import upload_ticket
from cumulet.glance.tables import images
from cumulet.nova import hosts
from tests.nova.api_cloud import SECRETS, Cloud


@pytest.fixture
def cloud() -> Cloud:
    cloud = Cloud()
    cloud.add_host("h1")
    return cloud


def snapshot(cloud: Cloud, server: str, **more: Any) -> str:
    body = {"createImage": {"name": "backup", **more}}
    made: str = cloud.good("alice", "POST", f"/servers/{server}/action", body)["image_id"]
    return made


def refused(cloud: Cloud, server: str, who: str = "alice", **wish: Any) -> tuple[int, str]:
    return cloud.refused(who, "POST", f"/servers/{server}/action", {"createImage": {"name": "backup", **wish}})


def image(cloud: Cloud, image_id: str) -> Any:
    with cloud.db.read() as tx:
        return tx.find(sa.select(images).where(images.c.id == image_id))


def task(cloud: Cloud, server: str) -> tuple[str, str | None]:
    shown = cloud.show("alice", server)
    return shown["status"], shown["OS-EXT-STS:task_state"]


def test_the_image_is_there_at_once_and_gets_its_data_from_the_host(cloud: Cloud) -> None:
    base = cloud.add_image(min_ram=64, properties={"os_distro": "cirros", "hw_disk_bus": "virtio"})
    server = cloud.running(imageRef=base)
    made = snapshot(cloud, server, metadata={"why": "tests", "hw_disk_bus": "scsi"})
    row = image(cloud, made)
    assert (row.name, row.owner, row.visibility, row.stored_at) == ("backup", "red", "private", None)
    assert (row.disk_format, row.container_format, row.min_disk, row.min_ram) == ("qcow2", "bare", 1, 64)
    assert row.properties == {
        "os_distro": "cirros", "hw_disk_bus": "scsi", "why": "tests", "image_type": "snapshot",
        "instance_uuid": server, "user_id": "alice", "base_image_ref": base,
    }  # fmt: skip
    assert len(cloud.notified("image.create")) == 1
    assert task(cloud, server) == ("ACTIVE", "image_snapshot")
    with cloud.db.read() as tx:
        (verb,) = hosts.list_intents(tx, "h1", SECRETS.host_secret)[server].verbs
    ticket = upload_ticket(SECRETS.host_secret, made, "h1")
    assert (verb.name, verb.args) == ("createImage", {"image_id": made, "ticket": ticket})
    cloud.report(server, "on")
    assert task(cloud, server) == ("ACTIVE", "image_uploading")
    assert "task_state image_uploading" in refused(cloud, server)[1]
    with cloud.db.transaction() as tx:
        tx.write(sa.update(images).where(images.c.id == made).values(stored_at=now()))
    cloud.report(server, "on", verbs_done=(verb.id,))
    assert task(cloud, server) == ("ACTIVE", None)
    assert image(cloud, made).deleted_at is None
    for event in ("snapshot.start", "snapshot.end"):
        assert len(cloud.notified(f"compute.instance.{event}")) == 1


def test_until_2_45_the_answer_is_a_location(cloud: Cloud) -> None:
    server = cloud.running()
    body = {"createImage": {"name": "backup"}}
    status, answer, headers = cloud.answer("alice", "POST", f"/servers/{server}/action", body, "2.44")
    assert (status, answer) == (202, b"")
    place, _, made = headers["Location"].rpartition("/")
    assert place == "http://127.0.0.1:9292/images"
    assert image(cloud, made).name == "backup"


def test_an_image_that_comes_to_nothing_is_gone(cloud: Cloud) -> None:
    """The host cannot make it, an administrator calls it off, or the server is deleted."""
    server = cloud.running()
    first = snapshot(cloud, server)
    (verb,) = cloud.verbs(server)
    cloud.report(server, "on", verbs_done=(verb,), verb_faults={str(verb): "the disk is full"})
    newest = cloud.get("alice", f"/servers/{server}/os-instance-actions")["instanceActions"][0]
    assert (newest["action"], newest["message"]) == ("createImage", "Error")
    assert task(cloud, server) == ("ACTIVE", None)
    second = snapshot(cloud, server)
    cloud.act("admin", server, os_resetState={"state": "active"})
    assert task(cloud, server) == ("ACTIVE", None)
    cloud.report(server, "on")
    third = snapshot(cloud, server)
    cloud.good("alice", "DELETE", f"/servers/{server}")
    cloud.report(server, "absent")
    for made in (first, second, third):
        assert image(cloud, made).deleted_at
    assert len(cloud.notified("image.delete")) == 3
    assert len(cloud.notified("compute.instance.snapshot.error")) == 1


@pytest.mark.parametrize(
    ("down", "power"), [("os_stop", "off"), ("pause", "paused"), ("suspend", "suspended")], ids=lambda word: word
)
def test_a_server_that_is_not_running(cloud: Cloud, down: str, power: str) -> None:
    server = cloud.running()
    cloud.act("alice", server, **{down: None})
    cloud.report(server, power, reached=False)
    status = task(cloud, server)[0]
    snapshot(cloud, server)
    assert task(cloud, server) == (status, "image_snapshot")
    cloud.report(server, power, reached=False, verbs_done=cloud.verbs(server))
    assert task(cloud, server) == (status, None)


def backup(cloud: Cloud, server: str, rotation: int | str, kind: str = "daily") -> str:
    """A backup that is done: its id."""
    wish = {"name": "backup", "backup_type": kind, "rotation": rotation, "metadata": {"why": "tests"}}
    before = set(there(cloud))
    cloud.good("alice", "POST", f"/servers/{server}/action", {"createBackup": wish})
    (made,) = set(there(cloud)) - before
    assert task(cloud, server) == ("ACTIVE", "image_backup")
    with cloud.db.transaction() as tx:
        tx.write(sa.update(images).where(images.c.id == made).values(stored_at=now()))
    cloud.report(server, "on", verbs_done=cloud.verbs(server))
    return made


def there(cloud: Cloud) -> list[str]:
    mine = sa.select(images.c.id).where(images.c.deleted_at.is_(None), images.c.name == "backup")
    with cloud.db.read() as tx:
        return [row.id for row in tx.all(mine.order_by(images.c.created_at))]


def test_the_oldest_backups_of_a_kind_go(cloud: Cloud) -> None:
    server, other = cloud.running(), cloud.running()
    weekly, elsewhere = backup(cloud, server, 1, "weekly"), backup(cloud, other, 1)
    daily = [backup(cloud, server, 2) for _ in range(3)]
    assert there(cloud) == [weekly, elsewhere, *daily[1:]]
    assert image(cloud, daily[2]).properties == {
        "image_type": "backup", "backup_type": "daily", "instance_uuid": server, "user_id": "alice",
        "base_image_ref": cloud.image, "why": "tests",
    }  # fmt: skip
    with cloud.db.transaction() as tx:
        tx.write(sa.update(images).where(images.c.id == daily[1]).values(protected=True))
    newest = backup(cloud, server, "1")
    assert there(cloud) == [weekly, elsewhere, daily[1], newest], "who is protected stays"
    backup(cloud, server, 0)
    assert there(cloud) == [weekly, elsewhere, daily[1]]
    action = cloud.get("alice", f"/servers/{server}/os-instance-actions")["instanceActions"][0]
    assert (action["action"], action["message"]) == ("createBackup", None)


def test_a_backup_s_answer_and_what_is_refused(cloud: Cloud) -> None:
    server = cloud.running()
    url, wish = f"/servers/{server}/action", {"name": "backup", "backup_type": "daily", "rotation": 1}
    for bad in (
        {"rotation": -1},
        {"rotation": "x"},
        {"backup_type": ""},
        {"name": ""},
        {"x": 1},
        {"rotation": None},
    ):
        assert cloud.refused("alice", "POST", url, {"createBackup": {**wish, **bad}})[0] == 400
    assert cloud.refused("rita", "POST", url, {"createBackup": wish})[0] == 403
    assert cloud.refused("bob", "POST", url, {"createBackup": wish})[0] == 404
    assert cloud.good("alice", "POST", url, {"createBackup": wish}) == {"image_id": there(cloud)[0]}
    assert "task_state image_backup" in cloud.refused("alice", "POST", url, {"createBackup": wish})[1]
    cloud.report(server, "on", verbs_done=cloud.verbs(server))
    answer = cloud.answer("alice", "POST", url, {"createBackup": wish}, "2.44")
    assert answer[2]["Location"].startswith("http://127.0.0.1:9292/images/")
    cloud.report(server, "on", verbs_done=cloud.verbs(server))
    assert cloud.call("alice", "POST", url, {"createBackup": {**wish, "rotation": 0}}) == (202, b"")


def test_what_is_refused(cloud: Cloud) -> None:
    server = cloud.running()
    for bad in (
        {"name": ""},
        {"name": " x"},
        {"name": "x" * 256},
        {"metadata": {"": "x"}},
        {"size": 1},
        {"name": None},
    ):
        assert refused(cloud, server, **bad)[0] == 400
    assert cloud.refused("alice", "POST", f"/servers/{server}/action", {"createImage": {}})[0] == 400
    for reserved in ("status", "owner", "id"):
        assert refused(cloud, server, metadata={reserved: "x"})[0] == 403
    many = {str(number): "x" for number in range(129)}
    assert refused(cloud, server, metadata=many)[0] == 403
    assert refused(cloud, server, "rita")[0] == 403
    assert refused(cloud, server, "bob")[0] == 404
    building = cloud.create()
    assert refused(cloud, building) == (409, f"Instance {building} is not ready")
    with cloud.db.read() as tx:
        assert len(tx.all(sa.select(images.c.id))) == 1, "what is refused leaves no image"
    cloud.act("alice", server, lock=None)
    snapshot(cloud, server)
