"""The catalogue of metadata definitions: namespaces and what they define, for whom."""

from typing import Any

import pytest

from tests.glance.rig import Glance

ALL = "/v2/metadefs/namespaces"


def make(glance: Glance, name: str = "OS::Compute::Hypervisor", **values: Any) -> dict[str, Any]:
    status, made = glance.call("admin", "POST", ALL, {"namespace": name, **values})
    assert status == 201, made
    return dict(made)


def good(glance: Glance, method: str, url: str, body: Any = None, who: str = "admin", **headers: str) -> Any:
    status, data = glance.call(who, method, url, body, **headers)
    assert status < 300, (method, url, status, data)
    return data


def test_the_life_of_a_namespace(glance: Glance) -> None:
    made = make(
        glance,
        display_name="Hypervisor",
        visibility="public",
        protected=True,
        resource_type_associations=[{"name": "OS::Glance::Image", "prefix": "hw_"}],
        objects=[
            {"name": "CPU", "required": ["cores"], "properties": {"cores": {"title": "n", "type": "integer"}}}
        ],
        properties={"vendor": {"title": "Vendor", "type": "string", "enum": ["a", "b"]}},
        tags=[{"name": "fast"}],
    )
    one = f"{ALL}/{made['namespace']}"
    assert (made["self"], made["owner"], made["visibility"], made["protected"]) == (one, "ops", "public", True)
    shown = good(glance, "GET", one, who="bob")
    assert shown == made
    assert shown["properties"] == {"vendor": {"title": "Vendor", "type": "string", "enum": ["a", "b"]}}
    assert shown["tags"] == [{"name": "fast"}]
    assert shown["objects"][0]["properties"]["cores"]["type"] == "integer"
    assert shown["resource_type_associations"][0]["prefix"] == "hw_"
    prefixed = good(glance, "GET", f"{one}?resource_type=OS::Glance::Image")
    assert list(prefixed["properties"]) == ["hw_vendor"]
    assert glance.call("admin", "GET", f"{one}?resource_type=other")[0] == 404
    listed = good(glance, "GET", ALL, who="alice")["namespaces"]
    assert [each["namespace"] for each in listed] == [made["namespace"]]
    assert "objects" not in listed[0]
    assert glance.call("admin", "DELETE", one)[0] == 403
    changed = good(glance, "PUT", one, {"namespace": "other", "visibility": "private"})
    assert (changed["namespace"], changed["visibility"], changed["protected"]) == ("other", "private", False)
    assert "display_name" not in changed
    assert glance.call("admin", "GET", one)[0] == 404
    assert glance.call("bob", "GET", f"{ALL}/other")[0] == 404
    assert good(glance, "GET", ALL, who="bob")["namespaces"] == []
    assert glance.call("admin", "DELETE", f"{ALL}/other")[0] == 204
    assert glance.call("admin", "GET", f"{ALL}/other")[0] == 404


def test_who_may_do_what(glance: Glance) -> None:
    make(glance, "open", visibility="public")
    make(glance, "theirs", owner="blue")
    for who in ("alice", "amy", "bob"):
        assert glance.call(who, "POST", ALL, {"namespace": "x"})[0] == 403
        for method, path, body in (
            ("PUT", "open", {"namespace": "open"}),
            ("DELETE", "open", None),
            ("POST", "open/objects", {"name": "x"}),
            ("POST", "open/properties", {"name": "x", "title": "x", "type": "string"}),
            ("POST", "open/tags", {"tags": []}),
            ("POST", "open/resource_types", {"name": "x"}),
            ("DELETE", "open/tags", None),
        ):
            assert glance.call(who, method, f"{ALL}/{path}", body)[0] == 403, (who, method, path)
    assert glance.call("alice", "GET", f"{ALL}/theirs")[0] == 200
    for path in ("", "/objects", "/properties", "/tags", "/resource_types", "/objects/x"):
        assert glance.call("bob", "GET", f"{ALL}/theirs{path}")[0] == 404
    assert glance.call("nobody", "GET", ALL)[0] == 403


def test_pages_and_filters(glance: Glance) -> None:
    for name in ("a", "b", "c"):
        make(glance, name, visibility="public", resource_type_associations=[{"name": f"OS::{name}"}])
    first = good(glance, "GET", f"{ALL}?limit=2&sort_key=namespace&sort_dir=asc")
    assert [each["namespace"] for each in first["namespaces"]] == ["a", "b"]
    assert first["next"] == f"{ALL}?limit=2&marker=b"
    rest = good(glance, "GET", f"{ALL}?limit=2&marker=b&sort_key=namespace&sort_dir=asc")
    assert [each["namespace"] for each in rest["namespaces"]] == ["c"]
    found = good(glance, "GET", f"{ALL}?resource_types=OS::a,OS::c&sort_key=namespace&sort_dir=asc")
    assert [each["namespace"] for each in found["namespaces"]] == ["a", "c"]
    types = [each["name"] for each in good(glance, "GET", "/v2/metadefs/resource_types")["resource_types"]]
    assert {"OS::a", "OS::Glance::Image", "OS::Nova::Flavor"} <= set(types)


@pytest.mark.parametrize(
    ("plural", "body", "other"),
    [
        ("objects", {"name": "x", "description": "an x"}, {"name": "y", "required": ["z"]}),
        (
            "properties",
            {"name": "x", "title": "X", "type": "string"},
            {"name": "y", "title": "Y", "type": "integer", "minimum": 0},
        ),
        ("tags", {"name": "x"}, {"name": "y"}),
    ],
)
def test_the_life_of_what_a_namespace_defines(glance: Glance, plural: str, body: Any, other: Any) -> None:
    make(glance, "ns", visibility="public")
    place = f"{ALL}/ns/{plural}"
    made = good(glance, "POST", f"{place}/x" if plural == "tags" else place, None if plural == "tags" else body)
    assert {name: made[name] for name in body} == body
    again = f"{place}/x" if plural == "tags" else place
    assert glance.call("admin", "POST", again, None if plural == "tags" else body)[0] == 409
    assert good(glance, "GET", f"{place}/x", who="bob") == made
    changed = good(glance, "PUT", f"{place}/x", other)
    assert {name: changed[name] for name in other} == other
    assert glance.call("admin", "GET", f"{place}/x")[0] == 404
    names = good(glance, "GET", place)[plural]
    assert (list(names) if plural == "properties" else [each["name"] for each in names]) == ["y"]
    assert glance.call("admin", "PUT", f"{place}/x", other)[0] == 404
    assert glance.call("admin", "DELETE", f"{place}/y")[0] == 204
    assert glance.call("admin", "DELETE", f"{place}/y")[0] == 404
    assert glance.call("admin", "DELETE", place)[0] == 204
    assert not good(glance, "GET", place)[plural]


def test_tags_are_set_at_once(glance: Glance) -> None:
    make(glance, "ns")
    place = f"{ALL}/ns/tags"
    tags = [{"name": "a"}, {"name": "b"}]
    assert good(glance, "POST", place, {"tags": tags}) == {"tags": tags}
    good(glance, "POST", place, {"tags": [{"name": "c"}]}, X_Openstack_Append="True")
    assert [each["name"] for each in good(glance, "GET", place)["tags"]] == ["a", "b", "c"]
    good(glance, "POST", place, {"tags": [{"name": "d"}]})
    assert [each["name"] for each in good(glance, "GET", place)["tags"]] == ["d"]


def test_types_of_resources(glance: Glance) -> None:
    make(glance, "ns")
    place = f"{ALL}/ns/resource_types"
    made = good(glance, "POST", place, {"name": "OS::Nova::Flavor", "prefix": "hw:"})
    assert (made["name"], made["prefix"]) == ("OS::Nova::Flavor", "hw:")
    assert good(glance, "GET", place)["resource_type_associations"] == [made]
    good(glance, "PUT", f"{ALL}/ns", {"namespace": "ns", "protected": True})
    assert glance.call("admin", "DELETE", f"{place}/OS::Nova::Flavor")[0] == 403
    good(glance, "PUT", f"{ALL}/ns", {"namespace": "ns"})
    assert glance.call("admin", "DELETE", f"{place}/OS::Nova::Flavor")[0] == 204
    assert glance.call("admin", "DELETE", f"{place}/OS::Nova::Flavor")[0] == 404


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("", {}),
        ("", {"namespace": ""}),
        ("", {"namespace": "a/b"}),
        ("", {"namespace": "x" * 81}),
        ("", {"namespace": "x", "visibility": "shared"}),
        ("", {"namespace": "x", "properties": {"p": {"type": "string"}}}),
        ("", {"namespace": "x", "properties": {"p": {"title": "p", "type": "text"}}}),
        ("", {"namespace": "x", "objects": [{"name": "o", "properties": {"p": {"type": ["string"]}}}]}),
        ("", {"namespace": "x", "unknown": 1}),
        ("/ns/objects", {"name": "x", "properties": {"p": 5}}),
        ("/ns/properties", {"title": "x", "type": "string"}),
        ("/ns/properties", {"name": "a/b", "title": "x", "type": "string"}),
        ("/ns/properties", []),
        ("/ns/tags", {"tags": [{}]}),
        ("/ns/resource_types", {"name": ""}),
    ],
)
def test_malformed_definitions(glance: Glance, path: str, body: Any) -> None:
    make(glance, "ns")
    assert glance.call("admin", "POST", f"{ALL}{path}", body)[0] == 400


def test_nothing_is_made_by_halves(glance: Glance) -> None:
    make(glance, "ns")
    assert glance.call("admin", "POST", ALL, {"namespace": "ns"})[0] == 409
    twice = {"namespace": "x", "tags": [{"name": "a"}, {"name": "a"}]}
    assert glance.call("admin", "POST", ALL, twice)[0] == 409
    assert glance.call("admin", "GET", f"{ALL}/x")[0] == 404
    assert glance.call("admin", "POST", f"{ALL}/none/objects", {"name": "x"})[0] == 404


@pytest.mark.parametrize("name", ["object", "objects", "property", "properties", "tag", "tags", "namespace"])
def test_schemas(glance: Glance, name: str) -> None:
    assert good(glance, "GET", f"/v2/schemas/metadefs/{name}", who="alice")["name"] == name


def test_a_name_in_any_script_has_an_address(glance: Glance) -> None:
    status, _, headers = glance.api.call("POST", ALL, {"namespace": "ключ 1"}, {"X-Auth-Token": "admin"})
    assert status == 201
    assert headers["Location"].endswith("/v2/metadefs/namespaces/%D0%BA%D0%BB%D1%8E%D1%87%201")
