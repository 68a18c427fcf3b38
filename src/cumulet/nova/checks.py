"""Checks of what users write that several of nova's resources share; each raises BadRequest."""

import re
from collections.abc import Mapping

from cumulet.core.errors import BadRequest

_METADATA_KEY = re.compile(r"[a-zA-Z0-9\-_:. ]{1,255}")
_UNSAFE_REGEX = re.compile(r"\)[*+?{]|\\[1-9]|\(\?")
_QUANTIFIER = re.compile(r"(?<!\\)[*+{]")
_CHOICE = re.compile(r"(?<!\\)[?|]")
LONGEST_PATTERN = 255
QUANTIFIER_COST, MOST_COST = 4, 10
"""A repetition multiplies the ways to match a name by its length, a choice (``?``, ``|``) by two."""


def check_name(value: str, what: str = "name") -> str:
    """A name of 1 to 255 printable characters that neither begins nor ends with white space."""
    if not 1 <= len(value) <= 255:
        raise BadRequest(
            f"Invalid input for field/attribute {what}. Value: {value[:300]}. It has 1 to 255 characters"
        )
    if not value.isprintable() or value != value.strip():
        raise BadRequest(
            f"Invalid input for field/attribute {what}. Value: {value!r}. "
            "Only printable characters are allowed, and no white space at either end"
        )
    return value


def check_description(value: str | None, what: str = "description", longest: int = 255) -> str | None:
    if value is not None and (len(value) > longest or not value.isprintable()):
        raise BadRequest(
            f"Invalid input for field/attribute {what}. It has at most {longest} printable characters on one line"
        )
    return value


def check_metadata(items: Mapping[str, str]) -> dict[str, str]:
    """Metadata of a server: keys of a small alphabet, values of at most 255 characters."""
    for key, value in items.items():
        if not _METADATA_KEY.fullmatch(key):
            raise BadRequest(
                f"Invalid input for field/attribute metadata. Value: {key[:300]!r}. "
                "A key has 1 to 255 letters, digits, spaces, or any of - _ : ."
            )
        if len(value) > 255:
            raise BadRequest(f"Invalid input for field/attribute {key}. Its value is longer than 255 characters")
    return dict(items)


def check_regex(pattern: str, name: str) -> str:
    """A regular expression that is sound, and cannot be made to run for ages on a name."""
    try:
        re.compile(pattern[: LONGEST_PATTERN + 1])
    except (re.error, OverflowError, RecursionError) as error:
        raise BadRequest(
            f"Invalid input for query parameters {name}. Value: {pattern[:300]!r} is not a 'regex'"
        ) from error
    cost = QUANTIFIER_COST * len(_QUANTIFIER.findall(pattern)) + len(_CHOICE.findall(pattern))
    if len(pattern) > LONGEST_PATTERN or _UNSAFE_REGEX.search(pattern) or cost > MOST_COST:
        raise BadRequest(
            f"Invalid input for query parameters {name}. Value: {pattern[:300]!r} is too complex: "
            f"at most {MOST_COST // QUANTIFIER_COST} repetitions and some choices, none of a group, no references "
            f"and at most {LONGEST_PATTERN} characters"
        )
    return pattern
