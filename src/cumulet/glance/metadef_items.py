"""/v2/metadefs/namespaces/{namespace}/…: the objects, properties, tags and types of resources of a namespace.

Four kinds of things with nearly the same verbs; each kind's body and view are here, and what they are kept as.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from msgspec import Meta

from cumulet.core import clock, schema
from cumulet.core.errors import BadRequest, NotFound
from cumulet.core.http import Request, Route
from cumulet.core.schema import UNSET, Open, Strict, UnsetType
from cumulet.glance.metadef_model import Item, ItemChange, Namespace
from cumulet.glance.wiring import registry_of

MetadefName = Annotated[str, Meta(min_length=1, max_length=80, pattern=r"^[^/?#]+$")]
TYPES = ("array", "boolean", "integer", "number", "object", "string", None)


class Association(Open):
    """That the namespace is for a type of resources, whose things have its properties with this prefix."""

    name: MetadefName
    prefix: Annotated[str, Meta(max_length=80)] | UnsetType | None = UNSET
    properties_target: Annotated[str, Meta(max_length=80)] | UnsetType | None = UNSET


class MetadefObject(Open):
    name: MetadefName
    description: str | UnsetType | None = UNSET
    required: list[str] | UnsetType = UNSET
    properties: dict[MetadefName, dict[str, Any]] | UnsetType = UNSET


class Tag(Open):
    name: MetadefName


class TagsBody(Strict):
    tags: list[Tag]


@dataclass(frozen=True)
class Kind:
    """``plural`` is the URL's collection; ``rules`` go by verb."""

    name: str
    plural: str
    rules: dict[str, str]

    @property
    def path(self) -> str:
        return f"/v2/metadefs/namespaces/{{namespace}}/{self.plural}"


OBJECT = Kind("object", "objects", {
    "list": "get_metadef_objects", "get": "get_metadef_object", "add": "add_metadef_object",
    "modify": "modify_metadef_object", "delete": "delete_metadef_object", "clear": "delete_metadef_namespace",
})  # fmt: skip
PROPERTY = Kind("property", "properties", {
    "list": "get_metadef_properties", "get": "get_metadef_property", "add": "add_metadef_property",
    "modify": "modify_metadef_property", "delete": "remove_metadef_property", "clear": "delete_metadef_namespace",
})  # fmt: skip
TAG = Kind("tag", "tags", {
    "list": "get_metadef_tags", "get": "get_metadef_tag", "add": "add_metadef_tag", "modify": "modify_metadef_tag",
    "delete": "delete_metadef_tag", "clear": "delete_metadef_tags", "set": "add_metadef_tags",
})  # fmt: skip
RESOURCE_TYPE = Kind("resource_type", "resource_types", {
    "list": "get_metadef_resource_type", "add": "add_metadef_resource_type_association",
    "delete": "remove_metadef_resource_type_association",
})  # fmt: skip


def list_items(request: Request, kind: Kind) -> dict[str, Any]:
    found = _namespace(request, kind, "list")
    items = found.of(kind.name)
    schema_path = f"/v2/schemas/metadefs/{kind.plural}"
    if kind is PROPERTY:
        return {"properties": {item.name: item.document for item in items}, "schema": schema_path}
    if kind is RESOURCE_TYPE:
        return {"resource_type_associations": [association_view(item) for item in items]}
    own = f"/v2/metadefs/namespaces/{found.namespace}/{kind.plural}"
    return {kind.plural: [_view(kind, found, item) for item in items], "first": own, "schema": schema_path}


def show_item(request: Request, kind: Kind) -> dict[str, Any]:
    found = _namespace(request, kind, "get")
    return _view(kind, found, _one(request, kind, found))


def create_item(request: Request, kind: Kind) -> dict[str, Any]:
    """From the body; a tag may also be made by its URL alone."""
    found = _namespace(request, kind, "add")
    item = _item(request, kind)
    return _made(request, kind, found, ItemChange(kind=kind.name, items=[item]))


def replace_item(request: Request, kind: Kind) -> dict[str, Any]:
    """As a whole, perhaps under another name."""
    found = _namespace(request, kind, "modify")
    old = _one(request, kind, found)
    change = ItemChange(
        kind=kind.name, items=[_item(request, kind)], instead_of=old.name, created_at=old.created_at
    )
    return _made(request, kind, found, change)


def set_tags(request: Request) -> dict[str, Any]:
    """All tags at once, instead of those that were there unless the caller asks to append."""
    found = _namespace(request, TAG, "set")
    appended = request.headers.get("x-openstack-append", "").lower() == "true"
    items = [item_of(tag) for tag in request.body.tags]
    change = ItemChange(kind="tag", items=items, instead_of=None if appended else "")
    kept = registry_of(request).put_metadef_items(request.context, found.namespace, change)
    return {"tags": [{"name": item.name} for item in kept]}


def delete_item(request: Request, kind: Kind) -> None:
    found = _namespace(request, kind, "delete")
    registry_of(request).delete_metadef_items(request.context, found.namespace, kind.name, request.params["name"])


def clear_items(request: Request, kind: Kind) -> None:
    found = _namespace(request, kind, "clear")
    registry_of(request).delete_metadef_items(request.context, found.namespace, kind.name, None)


def get_namespace(request: Request, rule: str) -> Namespace:
    """The one in the URL; who may not read it is told the same as of one that does not exist."""
    name = request.params["namespace"]
    found = registry_of(request).get_metadef(request.context, name)
    if not request.allows("get_metadef_namespace", target(found)):
        raise NotFound(f"Metadata definition namespace={name} was not found.")
    request.enforce(rule, target(found))
    return found


def target(namespace: Namespace) -> dict[str, Any]:
    return {"project_id": namespace.owner, "owner": namespace.owner, "visibility": namespace.visibility}


def item_of(body: Association | MetadefObject | Tag) -> Item:
    kind = {Association: "resource_type", MetadefObject: "object", Tag: "tag"}[type(body)]
    document = {name: value for name, value in schema.given(body).items() if name != "name" and value is not None}
    for each in document.get("properties", {}).values():
        _check_type(each)
    return Item(kind, body.name, document)


def property_item(name: str, document: dict[str, Any]) -> Item:
    for field in ("title", "type"):
        if field not in document:
            raise BadRequest(f"Invalid input for field/attribute {field}: it is a required property of {name!r}")
    _check_type(document)
    return Item("property", schema.convert(name, MetadefName), {k: v for k, v in document.items() if k != "name"})


def object_view(namespace: str, item: Item) -> dict[str, Any]:
    return {
        "name": item.name,
        "required": [],
        **item.document,
        "created_at": clock.short(item.created_at),
        "updated_at": clock.short(item.updated_at),
        "self": f"/v2/metadefs/namespaces/{namespace}/objects/{item.name}",
        "schema": "/v2/schemas/metadefs/object",
    }


def association_view(item: Item) -> dict[str, Any]:
    times = {"created_at": clock.short(item.created_at), "updated_at": clock.short(item.updated_at)}
    return {"name": item.name, **item.document, **times}


def _view(kind: Kind, namespace: Namespace, item: Item) -> dict[str, Any]:
    if kind is OBJECT:
        return object_view(namespace.namespace, item)
    if kind is PROPERTY:
        return {"name": item.name, **item.document}
    return association_view(item)  # a tag has a name and times, too


def _namespace(request: Request, kind: Kind, verb: str) -> Namespace:
    return get_namespace(request, kind.rules[verb])


def _one(request: Request, kind: Kind, namespace: Namespace) -> Item:
    for item in namespace.of(kind.name):
        if item.name == request.params["name"]:
            return item
    raise NotFound(
        f"The metadata definition {kind.name} with name={request.params['name']} was not found in "
        f"namespace={namespace.namespace}."
    )


def _item(request: Request, kind: Kind) -> Item:
    if kind is TAG and request.body is None:
        return item_of(Tag(name=schema.convert(request.params["name"], MetadefName)))
    if kind is PROPERTY:
        body: dict[str, Any] = request.body
        if not isinstance(body.get("name"), str):
            raise BadRequest("Invalid input for field/attribute name: it is a required property")
        return property_item(body["name"], body)
    return item_of(request.body)


def _made(request: Request, kind: Kind, namespace: Namespace, change: ItemChange) -> dict[str, Any]:
    kept = registry_of(request).put_metadef_items(request.context, namespace.namespace, change)
    return next(_view(kind, namespace, item) for item in kept if item.name == change.items[0].name)


def _check_type(document: dict[str, Any]) -> None:
    if document.get("type") not in TYPES:
        raise BadRequest(
            f"Invalid input for field/attribute type. Value: {document['type']!r} is not one of {TYPES}"
        )


def _bound(handler: Callable[[Request, Kind], Any], kind: Kind) -> Callable[[Request], Any]:
    return lambda request: handler(request, kind)


def _routes(kind: Kind, body: Any) -> list[Route]:
    one = f"{kind.path}/{{name}}"
    return [
        Route("GET", kind.path, _bound(list_items, kind), kind.rules["list"]),
        Route("GET", one, _bound(show_item, kind), kind.rules["get"]),
        Route("PUT", one, _bound(replace_item, kind), kind.rules["modify"], body=body),
        Route("DELETE", one, _bound(delete_item, kind), kind.rules["delete"], 204),
        Route("DELETE", kind.path, _bound(clear_items, kind), kind.rules["clear"], 204),
    ]


ROUTES = [
    *_routes(OBJECT, MetadefObject),
    Route("POST", OBJECT.path, _bound(create_item, OBJECT), OBJECT.rules["add"], 201, body=MetadefObject),
    *_routes(PROPERTY, dict[str, Any]),
    Route("POST", PROPERTY.path, _bound(create_item, PROPERTY), PROPERTY.rules["add"], 201, body=dict[str, Any]),
    *_routes(TAG, Tag),
    Route("POST", TAG.path, set_tags, TAG.rules["set"], 201, body=TagsBody),
    Route("POST", f"{TAG.path}/{{name}}", _bound(create_item, TAG), TAG.rules["add"], 201),
    Route("GET", RESOURCE_TYPE.path, _bound(list_items, RESOURCE_TYPE), RESOURCE_TYPE.rules["list"]),
    Route("POST", RESOURCE_TYPE.path, _bound(create_item, RESOURCE_TYPE), RESOURCE_TYPE.rules["add"], 201,
          body=Association),
    Route("DELETE", f"{RESOURCE_TYPE.path}/{{name}}", _bound(delete_item, RESOURCE_TYPE),
          RESOURCE_TYPE.rules["delete"], 204),
]  # fmt: skip
