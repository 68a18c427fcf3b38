"""Checks of what users write that several of nova's resources share; each raises BadRequest."""

import re
from collections.abc import Mapping

from cumulet.core.errors import BadRequest

_METADATA_KEY = re.compile(r"[a-zA-Z0-9\-_:. ]{1,255}")
_UNSAFE_REGEX = re.compile(r"\)[*+?{]|\\[1-9]|\(\?")
_QUANTIFIER = re.compile(r"(?<!\\)[*+{]")
LONGEST_PATTERN = 255
QUANTIFIERS = 2


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
        re.compile(pattern)
    except re.error as error:
        raise BadRequest(
            f"Invalid input for query parameters {name}. Value: {pattern!r} is not a 'regex'"
        ) from error
    hard = _UNSAFE_REGEX.search(pattern) or len(_QUANTIFIER.findall(pattern)) > QUANTIFIERS
    if hard or len(pattern) > LONGEST_PATTERN:
        raise BadRequest(
            f"Invalid input for query parameters {name}. Value: {pattern[:300]!r} is too complex: at most "
            f"{QUANTIFIERS} repetitions, none of a group, no references and at most {LONGEST_PATTERN} characters"
        )
    return pattern
