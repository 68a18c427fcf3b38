"""The story of an image's metadata: made, seen, found, changed, deleted; by whom, and in what words."""

from typing import Any

import pytest

from tests.glance.rig import PATCH, Glance

FIELDS = {
    "id", "name", "status", "visibility", "owner", "size", "virtual_size", "disk_format", "container_format",
    "checksum", "os_hash_algo", "os_hash_value", "min_disk", "min_ram", "protected", "tags", "created_at",
    "updated_at", "file", "schema", "self", "os_hidden",
}  # fmt: skip


def names(document: Any) -> list[str]:
    return [image["name"] for image in document["images"]]


def test_versions(glance: Glance) -> None:
    status, root = glance.call("", "GET", "/")
    assert status == 300
    assert root["versions"][0] == {
        "id": "v2.9",
        "status": "CURRENT",
        "links": [{"rel": "self", "href": "http://127.0.0.1:9292/v2/"}],
    }
    assert [v["id"] for v in root["versions"]] == [f"v2.{minor}" for minor in range(9, -1, -1)]
    assert glance.call("", "GET", "/versions") == (200, root)
    assert glance.call("", "GET", "/v2/") == (300, root)
    assert glance.call("", "GET", "/v2.3") == (300, root)
    assert glance.call("", "GET", "/v2.10")[0] == 404
    assert glance.call("", "GET", "/v1/images")[0] == 404
    for verb in ("GET", "DELETE", "PATCH"):
        assert glance.call("alice", verb, "/v2/images/")[0] == 404, "an image with an empty id"
    assert glance.call("", "GET", "/healthcheck") == (200, "OK")


def test_schemas_name_every_field(glance: Glance) -> None:
    status, schema = glance.call("alice", "GET", "/v2/schemas/image")
    assert status == 200
    assert set(schema["properties"]) >= FIELDS
    assert schema["additionalProperties"] == {"type": "string"}
    assert schema["properties"]["status"]["readOnly"]
    assert schema["properties"]["disk_format"]["enum"][0] is None
    for name in ("images", "member", "members", "task", "tasks"):
        assert glance.call("alice", "GET", f"/v2/schemas/{name}")[1]["name"] == name
    assert glance.call("", "GET", "/v2/schemas/image")[0] == 401


def test_info(glance: Glance) -> None:
    assert glance.call("alice", "GET", "/v2/info/import")[1]["import-methods"]["value"] == [
        "glance-direct",
        "web-download",
    ]
    assert [store["id"] for store in glance.call("alice", "GET", "/v2/info/stores")[1]["stores"]] == ["file"]


def test_create_and_show(glance: Glance) -> None:
    image = glance.create(tags=["b", "a", "b"], min_ram="64", **{"owner_specified.openstack.md5": ""})
    assert set(image) == FIELDS | {"owner_specified.openstack.md5"}
    assert image["status"] == "queued"
    assert image["owner"] == "blue"
    assert image["visibility"] == "shared"
    assert image["tags"] == ["a", "b"]
    assert image["min_ram"] == 64
    assert image["size"] is image["checksum"] is image["os_hash_value"] is image["os_hash_algo"] is None
    assert image["self"] == f"/v2/images/{image['id']}"
    assert image["file"] == f"/v2/images/{image['id']}/file"
    assert image["schema"] == "/v2/schemas/image"
    assert len(image["created_at"]) == 20
    assert glance.call("amy", "GET", image["self"]) == (200, image)
    _, _, headers = glance.api.call("POST", "/v2/images", {}, {"X-Auth-Token": "alice"})
    assert headers["Location"].startswith("http://127.0.0.1:9292/v2/images/")
    assert headers["OpenStack-image-import-methods"] == "glance-direct,web-download"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ([], 400),
        (b"{", 400),
        (None, 400),
        ({"name": 1.5}, 400),
        ({"name": "x" * 256}, 400),
        ({"id": "not-a-uuid"}, 400),
        ({"visibility": "secret"}, 400),
        ({"disk_format": "floppy"}, 400),
        ({"container_format": "ova"}, 400),
        ({"min_disk": -1}, 400),
        ({"min_ram": 2**31}, 400),
        ({"tags": "a"}, 400),
        ({"tags": [""]}, 400),
        ({"tags": ["x" * 256]}, 400),
        ({"tags": [str(n) for n in range(129)]}, 413),
        ({"os_distro": 5}, 400),
        ({"os_distro": None}, 400),
        ({"": "x"}, 400),
        ({'a"b': "x"}, 400),
        ({"x" * 256: "x"}, 400),
        ({f"p{n}": "" for n in range(129)}, 413),
        ({"status": "active"}, 403),
        ({"size": 5}, 403),
        ({"checksum": "x"}, 403),
        ({"direct_url": "file:///etc/passwd"}, 403),
        ({"locations": [{"url": "file:///etc/passwd", "metadata": {}}]}, 403),
        ({"location": "file:///etc/passwd"}, 403),
        ({"deleted": "True"}, 403),
        ({"os_glance_import_task": "x"}, 403),
        ({"owner": "red"}, 403),
        ({"visibility": "public"}, 403),
    ],
)
def test_bad_images_are_refused(glance: Glance, body: Any, status: int) -> None:
    assert glance.call("alice", "POST", "/v2/images", body)[0] == status
    assert glance.call("admin", "GET", "/v2/images")[1]["images"] == []


def test_who_may_create(glance: Glance) -> None:
    assert glance.call("amy", "POST", "/v2/images", {"name": "x"})[0] == 403
    assert glance.call("nobody", "POST", "/v2/images", {"name": "x"})[0] == 403
    assert glance.call("", "POST", "/v2/images", {"name": "x"})[0] == 401
    assert glance.create("admin", owner="red", visibility="public")["owner"] == "red"
    assert glance.create("alice", visibility="community")["visibility"] == "community"


def test_an_id_is_given_once(glance: Glance) -> None:
    given = "5C0B1F7C-13C4-4E5E-9D86-5C1D0E3B6F00"
    assert glance.create(id=given)["id"] == given.lower()
    status, page = glance.call("bob", "POST", "/v2/images", {"id": given})
    assert status == 409
    assert "already exists" in page
    glance.call("alice", "DELETE", f"/v2/images/{given.lower()}")
    assert glance.call("alice", "POST", "/v2/images", {"id": given})[0] == 409


def test_who_sees_what(glance: Glance) -> None:
    images = {
        visibility: glance.create("alice", name=visibility, visibility=visibility)
        for visibility in ("private", "shared", "community")
    }
    images["public"] = glance.create("admin", name="public", visibility="public")
    seen = {name: glance.call("bob", "GET", image["self"])[0] for name, image in images.items()}
    assert seen == {"private": 404, "shared": 404, "community": 200, "public": 200}
    assert names(glance.call("bob", "GET", "/v2/images")[1]) == ["public"]
    assert names(glance.call("bob", "GET", "/v2/images?visibility=community")[1]) == ["community"]
    assert set(names(glance.call("bob", "GET", "/v2/images?visibility=all")[1])) == {"community", "public"}
    assert set(names(glance.call("alice", "GET", "/v2/images")[1])) == {"private", "shared", "community", "public"}
    assert set(names(glance.call("admin", "GET", "/v2/images")[1])) == {"private", "shared", "public"}
    assert names(glance.call("admin", "GET", "/v2/images?visibility=private")[1]) == ["private"]
    assert glance.call("nobody", "GET", "/v2/images")[0] == 403
    _, page = glance.call("bob", "GET", images["private"]["self"])
    assert f"No image found with ID {images['private']['id']}" in page
    assert glance.call("bob", "GET", "/v2/images/cirros")[0] == 404


def test_filters(glance: Glance) -> None:
    one = glance.active(name="one", data=b"12345", tags=["x", "y"], os_distro="debian", protected=True)
    two = glance.active(name="two, too", data=b"1234567890", tags=["x"], os_distro="alpine", min_ram=512)
    three = glance.create(name="three", os_hidden=True, disk_format="qcow2")

    def found(query: str) -> set[str]:
        status, document = glance.call("alice", "GET", f"/v2/images?{query}")
        assert status == 200, document
        return set(names(document))

    both = {"one", "two, too"}
    assert found("") == both
    assert found("name=one") == {"one"}
    assert found("name=in:one,%22two,%20too%22") == both
    assert found(f"id=in%3A{one['id']},{three['id']}") == {"one"}
    assert found(f"id={two['id']}") == {"two, too"}
    assert found("status=active") == both
    assert found("status=queued&os_hidden=true") == {"three"}
    assert found("os_hidden=True") == {"three"}
    assert found("visibility=shared") == both
    assert found("visibility=private") == set()
    assert found("owner=blue") == both
    assert found("owner=red") == set()
    assert found("tag=x") == both
    assert found("tag=x&tag=y") == {"one"}
    assert found("size_min=6") == {"two, too"}
    assert found("size_max=5") == {"one"}
    assert found("min_ram=512") == {"two, too"}
    assert found("protected=true") == {"one"}
    assert found("os_distro=debian") == {"one"}
    assert found("os_distro=debian&os_distro=alpine") == {"two, too"}
    assert found("nonsense=1") == set()
    assert found("a%22b=1") == set()
    assert found(f"checksum={one['checksum']}") == {"one"}
    assert found(f"os_hash_value={two['os_hash_value']}") == {"two, too"}
    assert found("created_at=gt:2020-01-01T00:00:00Z") == both
    assert found("created_at=lt:2020-01-01T00:00:00Z") == set()
    assert found(f"updated_at={one['updated_at']}") >= {"one"}


@pytest.mark.parametrize(
    "query",
    [
        "limit=x", "limit=-1", "marker=nonsense", "sort=color", "sort=name:up", "sort_key=nonsense", "sort_dir=up",
        "sort=name&sort_key=name", "sort_key=name&sort_dir=asc&sort_dir=desc", "visibility=hidden",
        "member_status=maybe", "size_min=x", "size_max=-1", "os_hidden=perhaps", "protected=2", "changes-since=1",
        "created_at=yesterday", "name=gt:x", "id=in:%22a",
    ],
)  # fmt: skip
def test_bad_queries_are_named(glance: Glance, query: str) -> None:
    glance.create()
    status, page = glance.call("alice", "GET", f"/v2/images?{query}")
    assert status == 400
    assert "400 Bad Request" in page


def test_sort_and_pages(glance: Glance) -> None:
    for name in ("b", "a", "c"):
        glance.create(name=name)
    assert names(glance.call("alice", "GET", "/v2/images")[1]) == ["c", "a", "b"]
    assert names(glance.call("alice", "GET", "/v2/images?sort=name:asc,size:desc")[1]) == ["a", "b", "c"]
    assert names(glance.call("alice", "GET", "/v2/images?sort=name")[1]) == ["c", "b", "a"]
    assert names(glance.call("alice", "GET", "/v2/images?sort_key=status&sort_key=name&sort_dir=asc")[1]) == [
        "a",
        "b",
        "c",
    ]
    _, page = glance.call("alice", "GET", "/v2/images?limit=2&sort=name:asc")
    assert names(page) == ["a", "b"]
    assert page["first"] == "/v2/images?limit=2&sort=name%3Aasc"
    assert page["schema"] == "/v2/schemas/images"
    _, last = glance.call("alice", "GET", page["next"])
    assert names(last) == ["c"]
    assert "next" not in last
    assert last["first"] == page["first"]


def test_a_page_is_25_images_unless_asked(glance: Glance) -> None:
    for number in range(27):
        glance.create(name=str(number))
    _, page = glance.call("alice", "GET", "/v2/images")
    assert len(page["images"]) == 25
    assert page["first"] == "/v2/images"
    assert len(glance.call("alice", "GET", page["next"])[1]["images"]) == 2
    assert len(glance.call("alice", "GET", "/v2/images?limit=1000")[1]["images"]) == 27


def test_patch(glance: Glance) -> None:
    image = glance.create(os_distro="debian")
    status, changed = glance.patch(
        "alice",
        image["id"],
        {"op": "replace", "path": "/name", "value": "new"},
        {"op": "add", "path": "/a~1b", "value": "1"},
        {"op": "replace", "path": "/os_distro", "value": "alpine"},
        {"op": "replace", "path": "/tags", "value": ["t"]},
        {"op": "add", "path": "/protected", "value": True},
    )
    assert status == 200
    assert {k: changed[k] for k in ("name", "a/b", "os_distro", "tags", "protected")} == {
        "name": "new",
        "a/b": "1",
        "os_distro": "alpine",
        "tags": ["t"],
        "protected": True,
    }
    assert glance.show(image["id"]) == changed
    assert "os_distro" not in glance.patch("alice", image["id"], {"op": "remove", "path": "/os_distro"})[1]
    assert glance.patch("alice", image["id"])[0] == 200
    old = "application/openstack-images-v2.0-json-patch"
    assert glance.patch("alice", image["id"], {"add": "/x", "value": "1"}, Content_Type=old)[1]["x"] == "1"
    assert glance.patch("alice", image["id"], {"add": "/x", "value": "2"}, Content_Type=old)[0] == 409
    assert glance.patch("alice", image["id"], {"remove": "/x"}, Content_Type=old)[0] == 200
    assert glance.patch("alice", image["id"], {"remove": "/x", "add": "/y"}, Content_Type=old)[0] == 400


@pytest.mark.parametrize(
    ("step", "status"),
    [
        ("not an object", 400),
        ({"path": "/name", "value": "x"}, 400),
        ({"op": "copy", "path": "/name", "from": "/owner"}, 400),
        ({"op": "add", "path": "name", "value": "x"}, 400),
        ({"op": "add", "path": "/", "value": "x"}, 400),
        ({"op": "add", "path": "/a/b", "value": "x"}, 400),
        ({"op": "add", "path": "/tags/0", "value": "x"}, 400),
        ({"op": "add", "path": "/a~2", "value": "x"}, 400),
        ({"op": "add", "path": 5, "value": "x"}, 400),
        ({"op": "add", "path": "/name"}, 400),
        ({"op": "add", "value": "x"}, 400),
        ({"op": "add", "path": "/name", "value": 5.5}, 400),
        ({"op": "add", "path": "/x", "value": 5}, 400),
        ({"op": "replace", "path": "/x", "value": "5"}, 409),
        ({"op": "remove", "path": "/x"}, 409),
        ({"op": "remove", "path": "/name"}, 403),
        ({"op": "replace", "path": "/id", "value": "5"}, 403),
        ({"op": "replace", "path": "/status", "value": "queued"}, 403),
        ({"op": "replace", "path": "/checksum", "value": "5"}, 403),
        ({"op": "replace", "path": "/size", "value": 5}, 403),
        ({"op": "replace", "path": "/created_at", "value": "5"}, 403),
        ({"op": "add", "path": "/locations/-", "value": {"url": "file:///etc/passwd", "metadata": {}}}, 403),
        ({"op": "replace", "path": "/locations", "value": []}, 403),
        ({"op": "remove", "path": "/locations/0"}, 403),
        ({"op": "add", "path": "/os_glance_x", "value": "1"}, 403),
        ({"op": "replace", "path": "/owner", "value": "red"}, 403),
        ({"op": "replace", "path": "/visibility", "value": "public"}, 403),
        ({"op": "replace", "path": "/disk_format", "value": "qcow2"}, 403),
        ({"op": "replace", "path": "/container_format", "value": "ami"}, 403),
    ],
)
def test_bad_patches_change_nothing(glance: Glance, step: Any, status: int) -> None:
    image = glance.active()
    assert glance.patch("alice", image["id"], {"op": "replace", "path": "/name", "value": "new"}, step)[0] == status
    assert glance.show(image["id"]) == image


def test_patch_takes_its_content_type(glance: Glance) -> None:
    image = glance.create()
    for wrong in ("application/json", ""):
        status, page = glance.patch("alice", image["id"], Content_Type=wrong)
        assert status == 415
        assert PATCH in page
    assert glance.call("alice", "PATCH", image["self"], {"op": "add"}, Content_Type=PATCH)[0] == 400


def test_who_may_change_and_delete(glance: Glance) -> None:
    image = glance.create("alice", visibility="community")
    step = {"op": "replace", "path": "/name", "value": "mine"}
    assert glance.patch("bob", image["id"], step)[0] == 403
    assert glance.patch("amy", image["id"], step)[0] == 403
    assert glance.call("bob", "DELETE", image["self"])[0] == 403
    assert glance.patch("bob", glance.create("alice")["id"], step)[0] == 404
    public = {"op": "replace", "path": "/visibility", "value": "public"}
    assert glance.patch("admin", image["id"], public, {"op": "replace", "path": "/owner", "value": "red"})[0] == 200
    assert glance.patch("bob", image["id"], step)[0] == 200
    assert glance.call("bob", "DELETE", image["self"])[0] == 204


def test_delete(glance: Glance) -> None:
    image = glance.active(protected=True)
    status, page = glance.call("alice", "DELETE", image["self"])
    assert status == 403
    assert f"Image {image['id']} is protected and cannot be deleted." in page
    glance.patch("alice", image["id"], {"op": "replace", "path": "/protected", "value": False})
    assert glance.call("alice", "DELETE", image["self"]) == (204, "")
    for who in ("alice", "admin"):
        assert glance.call(who, "GET", image["self"])[0] == 404
        assert glance.download(who, image["id"]).status == 404
        assert names(glance.call(who, "GET", "/v2/images?os_hidden=false")[1]) == []
    status, page = glance.call("alice", "DELETE", image["self"])
    assert status == 404
    assert f"Failed to find image {image['id']} to delete" in page


def test_tags(glance: Glance) -> None:
    image = glance.create("alice", visibility="community")
    for _ in range(2):
        assert glance.call("alice", "PUT", f"{image['self']}/tags/gold") == (204, "")
    assert glance.show(image["id"])["tags"] == ["gold"]
    assert glance.call("bob", "PUT", f"{image['self']}/tags/lead")[0] == 403
    assert glance.call("alice", "PUT", f"{image['self']}/tags/{'x' * 256}")[0] == 400
    assert glance.call("alice", "DELETE", f"{image['self']}/tags/gold") == (204, "")
    assert glance.call("alice", "DELETE", f"{image['self']}/tags/gold")[0] == 404
    assert glance.call("alice", "PUT", "/v2/images/none/tags/gold")[0] == 404


def test_deactivate(glance: Glance) -> None:
    image = glance.active()
    assert glance.call("alice", "POST", f"{image['self']}/actions/deactivate") == (204, "")
    assert glance.show(image["id"])["status"] == "deactivated"
    assert glance.call("alice", "GET", "/v2/images?status=deactivated")[1]["images"][0]["id"] == image["id"]
    assert glance.download("alice", image["id"]).status == 403
    assert glance.download("admin", image["id"]).status == 200
    assert glance.call("alice", "POST", f"{image['self']}/actions/deactivate")[0] == 204
    assert glance.call("alice", "POST", f"{image['self']}/actions/reactivate")[0] == 204
    assert glance.show(image["id"])["status"] == "active"
    queued = glance.create()
    assert glance.call("alice", "POST", f"{queued['self']}/actions/deactivate")[0] == 400
    assert glance.call("bob", "POST", f"{image['self']}/actions/deactivate")[0] == 404


def test_error_pages_cannot_carry_markup(glance: Glance) -> None:
    status, page = glance.call("alice", "GET", "/v2/images?visibility=<script>")
    assert status == 400
    assert "&lt;script&gt;" in page
    assert "<script>" not in page


def test_the_catalogue_of_properties_begins_empty(glance: Glance) -> None:
    status, body = glance.call("amy", "GET", "/v2/metadefs/namespaces?limit=20&resource_types=OS::Glance::Image")
    assert (status, body["namespaces"]) == (200, [])
    assert glance.call("amy", "GET", body["schema"])[1]["properties"]["namespaces"]["items"]["name"] == "namespace"
    types = glance.call("amy", "GET", "/v2/metadefs/resource_types")[1]["resource_types"]
    assert {"name": "OS::Glance::Image"} in types
    for path in ("namespaces", "resource_types"):
        assert glance.call("nobody", "GET", f"/v2/metadefs/{path}")[0] == 403
        assert glance.call("", "GET", f"/v2/metadefs/{path}")[0] == 401
    assert glance.call("admin", "POST", "/v2/metadefs/resource_types", {"namespace": "x"})[0] == 405


def test_a_page_of_nothing(glance: Glance) -> None:
    glance.create()
    body = glance.call("alice", "GET", "/v2/images?limit=0")[1]
    assert body["images"] == []
    assert "next" not in body
    for text in ("-1", "x", "1.5"):
        assert glance.call("alice", "GET", f"/v2/images?limit={text}")[0] == 400


@pytest.mark.parametrize("name", ["created_at", "updated_at"])
def test_filters_of_time(glance: Glance, name: str) -> None:
    image = glance.create()
    then = image[name]

    def found(query: str) -> int:
        status, body = glance.call("alice", "GET", f"/v2/images?{name}={query}")
        assert status == 200, body
        return len(body["images"])

    for operator, count in (("eq", 1), ("gte", 1), ("lte", 1), ("gt", 0), ("lt", 0), ("neq", 0)):
        assert found(f"{operator}:{then}") == count, operator
    assert found(then) == 1
    assert found("gt:2020-01-01T00:00:00Z") == found("lt:2099-01-01T00:00:00%2B02:00") == 1
    for text in ("gt:yesterday", "near:2020-01-01T00:00:00Z", "gt:"):
        assert glance.call("alice", "GET", f"/v2/images?{name}={text}")[0] == 400
