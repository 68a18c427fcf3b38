"""glance's images as compute's old API shows them."""

from typing import Any

import pytest

from tests.nova.api_cloud import Cloud


@pytest.fixture
def cloud() -> Cloud:
    cloud = Cloud()
    cloud.version = "2.35"
    return cloud


def ids(cloud: Cloud, query: str, who: str = "alice") -> list[str]:
    return [image["id"] for image in cloud.get(who, f"/images{query}")["images"]]


def test_an_image_in_compute_s_form(cloud: Cloud) -> None:
    server = "11111111-2222-4333-8444-555555555555"
    properties = {"instance_uuid": server, "auto_disk_config": "True"}
    image = cloud.add_image(name="backup", min_ram=64, min_disk=1, properties=properties)
    shown = cloud.get("alice", f"/images/{image}")["image"]
    links = shown.pop("links")
    assert [link["rel"] for link in links] == ["self", "bookmark", "alternate"]
    assert links[2]["href"] == f"http://127.0.0.1:9292/images/{image}"
    assert links[0]["href"].endswith(f"/v2.1/images/{image}")
    assert shown.pop("server")["id"] == server
    assert shown.pop("created").endswith("Z")
    assert shown.pop("updated").endswith("Z")
    assert shown == {
        "id": image, "name": "backup", "minRam": 64, "minDisk": 1, "metadata": properties, "status": "ACTIVE",
        "progress": 100, "OS-EXT-IMG-SIZE:size": 1000, "OS-DCF:diskConfig": "AUTO",
    }  # fmt: skip
    odd = cloud.add_image(properties={"auto_disk_config": "perhaps"}, stored_at=None, attempt=None)
    shown = cloud.get("alice", f"/images/{odd}")["image"]
    assert (shown["status"], shown["progress"], shown["OS-DCF:diskConfig"]) == ("SAVING", 25, "MANUAL")
    (listed,) = cloud.get("alice", "/images?name=backup")["images"]
    assert set(listed) == {"id", "name", "links"}
    (listed,) = cloud.get("alice", "/images/detail?name=backup")["images"]
    assert listed == cloud.get("alice", f"/images/{image}")["image"]


def test_filters_and_pages(cloud: Cloud) -> None:
    server = "11111111-2222-4333-8444-555555555555"
    made = {"instance_uuid": server, "image_type": "snapshot"}
    backup = cloud.add_image(name="backup", properties=made, min_ram=64)
    queued = cloud.add_image(name="queued", stored_at=None, attempt=None)
    theirs = cloud.add_image(name="theirs", owner="blue", visibility="private")
    assert set(ids(cloud, "")) == {cloud.image, backup, queued}
    assert theirs in ids(cloud, "", "bob")
    for query, expected in (
        ("name=backup", {backup}),
        ("status=ACTIVE", {cloud.image, backup}),
        ("status=saving", {queued}),
        ("status=ERROR", set()),
        ("type=snapshot", {backup}),
        (f"server={server}", {backup}),
        (f"server=http://nova/v2.1/servers/{server}", {backup}),
        ("property-image_type=snapshot", {backup}),
        ("minRam=64", {backup}),
        ("changes-since=2100-01-01T00:00:00Z", set()),
        ("changes-since=2000-01-01T00:00:00Z", {cloud.image, backup, queued}),
    ):
        assert set(ids(cloud, f"?{query}")) == expected, query
    page = cloud.get("alice", "/images?limit=2")
    assert len(page["images"]) == 2
    follow = page["images_links"][0]["href"].removeprefix("http://127.0.0.1:8774/v2.1")
    assert len(cloud.get("alice", follow)["images"]) == 1
    for bad in ("changes-since=soon", "limit=x", "marker=none", "minRam=x"):
        assert cloud.refused("alice", "GET", f"/images?{bad}")[0] == 400


def test_metadata(cloud: Cloud) -> None:
    image = cloud.add_image(visibility="private", properties={"a": "1"})
    url = f"/images/{image}/metadata"
    assert cloud.good("alice", "POST", url, {"metadata": {"b": "2"}}) == {"metadata": {"a": "1", "b": "2"}}
    assert cloud.good("alice", "PUT", url, {"metadata": {"c": "3"}}) == {"metadata": {"c": "3"}}
    assert cloud.good("alice", "PUT", f"{url}/d", {"meta": {"d": "4"}}) == {"meta": {"d": "4"}}
    assert cloud.get("alice", f"{url}/d") == {"meta": {"d": "4"}}
    assert cloud.get("rita", url, "2.38") == {"metadata": {"c": "3", "d": "4"}}
    assert cloud.refused("alice", "PUT", f"{url}/d", {"meta": {"e": "4"}})[0] == 400
    assert cloud.call("alice", "DELETE", f"{url}/d")[0] == 204
    for method in ("DELETE", "GET"):
        assert cloud.refused("alice", method, f"{url}/d") == (404, "Metadata item was not found")
    assert len(cloud.notified("image.update")) == 4
    many: Any = {"metadata": {str(number): "x" for number in range(129)}}
    assert cloud.refused("alice", "PUT", url, many) == (403, "Image metadata limit exceeded")
    assert cloud.refused("alice", "POST", url, {"metadata": {"status": "x"}})[0] == 403
    assert cloud.refused("alice", "POST", url, {"metadata": {"": "x"}})[0] == 400
    assert cloud.refused("rita", "POST", url, {"metadata": {"x": "y"}})[0] == 403
    assert cloud.refused("bob", "POST", url, {"metadata": {"x": "y"}}) == (404, "Image not found.")
    assert cloud.refused("bob", "POST", f"/images/{cloud.image}/metadata", {"metadata": {"x": "y"}})[0] == 403
    assert cloud.refused("alice", "GET", url, version="2.39")[0] == 404


def test_delete(cloud: Cloud) -> None:
    image = cloud.add_image(visibility="private")
    guarded = cloud.add_image(protected=True)
    url = f"/images/{image}"
    assert cloud.refused("bob", "DELETE", url) == (404, "Image not found.")
    assert cloud.refused("rita", "DELETE", url) == (403, "You are not allowed to delete the image.")
    assert cloud.refused("bob", "DELETE", f"/images/{cloud.image}")[0] == 403
    assert cloud.refused("alice", "DELETE", f"/images/{guarded}")[0] == 403
    assert cloud.call("alice", "DELETE", url) == (204, b"")
    for method in ("GET", "DELETE"):
        assert cloud.refused("alice", method, url) == (404, "Image not found.")
    assert image not in ids(cloud, "")
    assert len(cloud.notified("image.delete")) == 1
    assert cloud.refused("alice", "DELETE", "/images/")[0] == 404
    assert cloud.refused("alice", "GET", "/images", version="2.36")[0] == 404
