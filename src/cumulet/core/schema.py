"""Bodies: msgspec types in, plain JSON out; what does not fit is one clear 400.

Values are read leniently (``"1"`` for 1), since OpenStack's clients send both; unknown keys are an error where
the type says ``forbid_unknown_fields``.
"""

from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from cumulet.core.errors import BadRequest

__all__ = ["UNSET", "Count", "Open", "Strict", "UnsetType", "decode", "encode", "given"]
T = TypeVar("T")
Count = Annotated[int, Meta(ge=0, le=0x7FFFFFFF)]
"""A number that every database's integer holds; generations are such."""


class Strict(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A body in which an unknown key is an error.  Fields that may be absent default to ``UNSET``."""


class Open(msgspec.Struct, kw_only=True):
    """A body whose unknown keys are ignored."""


def decode(raw: bytes, kind: type[T]) -> T:
    """``raw`` as ``kind``; raises BadRequest with what is wrong and where."""
    try:
        return msgspec.json.decode(raw, type=kind, strict=False)
    except msgspec.ValidationError as error:
        raise BadRequest(f"Invalid input: {error}", kind="ValidationError") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"Malformed request body: {error}", kind="HTTPBadRequest") from error


def convert(value: Any, kind: type[T]) -> T:
    """Like ``decode``, for data that is already parsed."""
    try:
        return msgspec.convert(value, type=kind, strict=False)
    except msgspec.ValidationError as error:
        raise BadRequest(f"Invalid input: {error}", kind="ValidationError") from error


encode = msgspec.json.encode


def given(struct: msgspec.Struct) -> dict[str, Any]:
    """The fields that the caller sent (those that are not ``UNSET``), by their names in Python."""
    return {name: value for name in struct.__struct_fields__ if (value := getattr(struct, name)) is not UNSET}
