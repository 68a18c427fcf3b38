"""The smallest body that a route's type accepts, made from the type: what gets a request as far as its handler."""

from collections.abc import Mapping
from typing import Any

import msgspec.inspect as look

FORMS = {
    r"^[a-zA-Z0-9-]+$": "x",
    r"^/": "/x",
}
"""A text for each pattern that ``x`` does not fit."""


def smallest(kind: Any, values: Mapping[str, Any]) -> Any:
    """``values``: by a field's name, what to put there if its type takes it."""
    return _value(look.type_info(kind), "", values)


def _value(kind: look.Type, name: str, values: Mapping[str, Any]) -> Any:
    if isinstance(kind, look.StructType):
        return {
            field.encode_name: _value(field.type, field.encode_name, values)
            for field in kind.fields
            if field.required or field.encode_name in values
        }
    if name in values:
        return values[name]
    if isinstance(kind, look.UnionType):
        return _value(_simplest(kind), name, values)
    if isinstance(kind, look.LiteralType):
        return kind.values[0]
    if isinstance(kind, look.IntType | look.FloatType):
        return kind.ge if kind.ge is not None else kind.gt + 1 if kind.gt is not None else 0
    if isinstance(kind, look.BoolType):
        return False
    if isinstance(kind, look.StrType):
        return FORMS.get(kind.pattern or "", "x" * max(kind.min_length or 0, 1))
    if isinstance(kind, look.ListType | look.CollectionType):
        return [_value(kind.item_type, name.removesuffix("s"), values) for _ in range(kind.min_length or 0)]
    if isinstance(kind, look.NoneType):
        return None
    return {}


def _simplest(kind: look.UnionType) -> look.Type:
    """What says most: a struct, else anything but ``None``."""
    known = [each for each in kind.types if not isinstance(each, look.NoneType)]
    return next((each for each in known if isinstance(each, look.StructType)), known[0])
