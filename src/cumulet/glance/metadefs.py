"""/v2/metadefs/namespaces and /resource_types: the catalogue of what properties of images, flavors … may mean.

Dashboards offer from it; nothing in the cloud acts on it.  A namespace is public, or its project's own; only
administrators change the catalogue.  What a namespace defines is ``metadef_items``'s.
"""

import uuid
from typing import Annotated, Any, Literal
from urllib.parse import quote

from msgspec import Meta

from cumulet.core import clock, schema
from cumulet.core.errors import NotFound
from cumulet.core.http import Reply, Request, Route
from cumulet.core.schema import UNSET, Strict, UnsetType
from cumulet.glance import metadef_items
from cumulet.glance.metadef_items import Association, MetadefName, MetadefObject, Tag, get_namespace, target
from cumulet.glance.metadef_model import Item, Namespace, NamespaceChange, NewNamespace
from cumulet.glance.wiring import registry_of

WELL_KNOWN = (
    "OS::Cinder::Volume",
    "OS::Glance::Image",
    "OS::Nova::Aggregate",
    "OS::Nova::Flavor",
    "OS::Nova::Server",
)
"""Types of resources that namespaces can be for from the start."""
_OWN = ("namespace", "display_name", "description", "visibility", "protected", "owner")


class NamespaceBody(Strict):
    """A new namespace, or what an old one becomes.  What is read only may be sent back, and changes nothing."""

    namespace: MetadefName
    display_name: Annotated[str, Meta(max_length=80)] | UnsetType | None = UNSET
    description: Annotated[str, Meta(max_length=500)] | UnsetType | None = UNSET
    visibility: Literal["public", "private"] | UnsetType = UNSET
    protected: bool | UnsetType = UNSET
    owner: Annotated[str, Meta(max_length=255)] | UnsetType | None = UNSET
    resource_type_associations: list[Association] | UnsetType = UNSET
    objects: list[MetadefObject] | UnsetType = UNSET
    properties: dict[str, dict[str, Any]] | UnsetType = UNSET
    tags: list[Tag] | UnsetType = UNSET
    created_at: Any = UNSET
    updated_at: Any = UNSET
    self: Any = UNSET
    schema: Any = UNSET


def list_namespaces(request: Request) -> dict[str, Any]:
    request.enforce("list_metadef_resource_types")
    page = registry_of(request).list_metadefs(request.context, request.query)
    seen = [each for each in page.namespaces if request.allows("get_metadef_namespace", target(each))]
    answer: dict[str, Any] = {
        "namespaces": [view(each) for each in seen],
        "first": "/v2/metadefs/namespaces",
        "schema": "/v2/schemas/metadefs/namespaces",
    }
    if page.next_marker and request.one("limit"):
        answer["next"] = f"/v2/metadefs/namespaces?limit={request.one('limit')}&marker={page.next_marker}"
    return answer


def show_namespace(request: Request) -> dict[str, Any]:
    """With ``resource_type`` the properties have the prefix that they have on that type's things."""
    found = get_namespace(request, "get_metadef_namespace")
    document = full_view(found)
    asked = request.one("resource_type")
    if asked is not None:
        prefix = next(
            (item.document.get("prefix") for item in found.of("resource_type") if item.name == asked), None
        )
        if all(item.name != asked for item in found.of("resource_type")):
            raise NotFound(f"Resource type {asked} is not associated with namespace {found.namespace}.")
        document["properties"] = {
            f"{prefix or ''}{name}": each for name, each in document.get("properties", {}).items()
        }
    return document


def create_namespace(request: Request) -> Reply:
    wanted: NamespaceBody = request.body
    items = [
        *_given(request, wanted.resource_type_associations, "add_metadef_resource_type_association"),
        *_given(request, wanted.objects, "add_metadef_object"),
        *_given(request, wanted.tags, "add_metadef_tag"),
    ]
    if not isinstance(wanted.properties, UnsetType):
        request.enforce("add_metadef_property")
        items += [metadef_items.property_item(name, each) for name, each in wanted.properties.items()]
    values = schema.given(wanted)
    made = registry_of(request).create_metadef(
        request.context,
        NewNamespace(
            id=str(uuid.uuid4()),
            namespace=wanted.namespace,
            display_name=values.get("display_name"),
            description=values.get("description"),
            visibility=values.get("visibility", "private"),
            protected=values.get("protected", False),
            owner=values.get("owner", request.context.project_id or None),
            items=items,
        ),
    )
    return Reply(full_view(made), headers={"Location": quote(f"{request.app.endpoint}{_path(made)}", safe=":/")})


def update_namespace(request: Request) -> dict[str, Any]:
    """As a whole: what the body does not say goes back to how it is without it."""
    found = get_namespace(request, "modify_metadef_namespace")
    wanted: NamespaceBody = request.body
    change = NamespaceChange(
        namespace=wanted.namespace,
        display_name=None if isinstance(wanted.display_name, UnsetType) else wanted.display_name,
        description=None if isinstance(wanted.description, UnsetType) else wanted.description,
        visibility="private" if isinstance(wanted.visibility, UnsetType) else wanted.visibility,
        protected=False if isinstance(wanted.protected, UnsetType) else wanted.protected,
        owner=found.owner if isinstance(wanted.owner, UnsetType) else wanted.owner,
    )
    return view(registry_of(request).change_metadef(request.context, found.namespace, change))


def delete_namespace(request: Request) -> None:
    found = get_namespace(request, "delete_metadef_namespace")
    registry_of(request).delete_metadef(request.context, found.namespace)


def list_resource_types(request: Request) -> dict[str, Any]:
    """Those that are well known, and those that a namespace is for."""
    known = sorted({*WELL_KNOWN, *registry_of(request).list_metadef_types(request.context)})
    return {"resource_types": [{"name": name} for name in known]}


def view(namespace: Namespace) -> dict[str, Any]:
    associations = [metadef_items.association_view(item) for item in namespace.of("resource_type")]
    given = {name: value for name in _OWN if (value := getattr(namespace, name)) is not None}
    return {
        **given,
        **({"resource_type_associations": associations} if associations else {}),
        "created_at": clock.short(namespace.created_at),
        "updated_at": clock.short(namespace.updated_at),
        "self": _path(namespace),
        "schema": "/v2/schemas/metadefs/namespace",
    }


def full_view(namespace: Namespace) -> dict[str, Any]:
    parts = {
        "objects": [metadef_items.object_view(namespace.namespace, item) for item in namespace.of("object")],
        "properties": {item.name: item.document for item in namespace.of("property")},
        "tags": [{"name": item.name} for item in namespace.of("tag")],
    }
    return {**view(namespace), **{name: part for name, part in parts.items() if part}}


def _given(request: Request, bodies: Any, rule: str) -> list[Item]:
    if isinstance(bodies, UnsetType):
        return []
    request.enforce(rule)
    return [metadef_items.item_of(body) for body in bodies]


def _path(namespace: Namespace) -> str:
    return f"/v2/metadefs/namespaces/{namespace.namespace}"


_ALL, _ONE = "/v2/metadefs/namespaces", "/v2/metadefs/namespaces/{namespace}"
ROUTES = [
    Route("GET", _ALL, list_namespaces, "get_metadef_namespaces"),
    Route("POST", _ALL, create_namespace, "add_metadef_namespace", 201, body=NamespaceBody),
    Route("GET", _ONE, show_namespace, "get_metadef_namespace"),
    Route("PUT", _ONE, update_namespace, "modify_metadef_namespace", body=NamespaceBody),
    Route("DELETE", _ONE, delete_namespace, "delete_metadef_namespace", 204),
    Route("GET", "/v2/metadefs/resource_types", list_resource_types, "list_metadef_resource_types"),
]
