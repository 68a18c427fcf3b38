"""nova's paging on top of ``core.listing``: pages of at most 1,000, and a ``next`` link only."""

from dataclasses import replace

from cumulet.core.errors import BadRequest
from cumulet.core.http import Json, Request
from cumulet.core.listing import Page, links

PAGE = 1000
PAGING = frozenset({"limit", "marker", "sort_key", "sort_dir"})
"""What of ``core.listing``'s paging compute has; a sort key that is not looked at here is not obeyed either."""


def next_links(request: Request, collection: str, page: Page) -> Json:
    """``{collection_links: [...]}`` to be merged into a list's answer; empty on the last page."""
    if page.next_marker is None:
        return {}
    paged = request if request.one("limit") else replace(request, query=[*request.query, ("limit", str(PAGE))])
    found = [link for link in links(paged, collection, page) if link["rel"] == "next"]
    return {f"{collection}_links": found}


def only(request: Request, names: frozenset[str]) -> Request:
    """The request without the filters that are not among ``names``."""
    return replace(request, query=[(k, v) for k, v in request.query if k in names or k in PAGING])


def boolean(value: object, name: str) -> bool:
    """OpenStack's many words for yes and no."""
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if word in ("true", "1", "on", "yes", "t", "y"):
        return True
    if word in ("false", "0", "off", "no", "f", "n"):
        return False
    raise BadRequest(f"Invalid input for field/attribute {name}. Value: {value}. {value!r} is not a boolean")


def whole_number(text: str | None, name: str) -> int | None:
    """A query parameter that is a number of 0 or more; None if it was not given."""
    if text is not None and not (text.isascii() and text.isdigit() and len(text) < 10):
        raise BadRequest(f"Invalid input for query parameters {name}. Value: {text[:300]} is not a number")
    return None if text is None else int(text)
