"""The nouns of the metadata definitions.  Types only."""

from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType


class Item(Struct, frozen=True):
    """What a namespace defines: an object, a property, a tag, or that it is for a type of resources."""

    kind: str  # 'object', 'property', 'tag', 'resource_type'
    name: str
    document: dict[str, Any] = {}
    created_at: str = ""
    updated_at: str = ""


class Namespace(Struct, frozen=True, kw_only=True):
    namespace: str
    display_name: str | None
    description: str | None
    visibility: str
    protected: bool
    owner: str | None
    created_at: str
    updated_at: str
    items: list[Item] = msgspec.field(default_factory=list)

    def of(self, kind: str) -> list[Item]:
        return [item for item in self.items if item.kind == kind]


class NamespacePage(Struct, frozen=True):
    namespaces: list[Namespace]
    next_marker: str | None = None  # null: this is the last page


class NewNamespace(Struct, frozen=True, kw_only=True):
    id: str
    namespace: str
    display_name: str | None
    description: str | None
    visibility: str
    protected: bool
    owner: str | None
    items: list[Item]


class NamespaceChange(Struct, frozen=True, kw_only=True):
    namespace: str
    display_name: str | UnsetType | None = UNSET
    description: str | UnsetType | None = UNSET
    visibility: str | UnsetType = UNSET
    protected: bool | UnsetType = UNSET
    owner: str | UnsetType | None = UNSET


class ItemChange(Struct, frozen=True, kw_only=True):
    """``instead_of``: the name of the one to replace; empty for all of this kind, null for none."""

    kind: str
    items: list[Item]
    instead_of: str | None = None
    created_at: str = ""
