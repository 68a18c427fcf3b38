"""Microversions as data: the newest body is built once, and changes are undone for older clients.

A project keeps one table of ``Change``s.  ``render`` takes the document of the newest version and undoes, from
the newest backwards, each change that the caller's version does not have.  Handlers do not branch on versions.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cumulet.core.errors import BadRequest, NotAcceptable

Version = tuple[int, int]


@dataclass(frozen=True)
class Versions:
    """The range that a service announces, and the headers by which a caller picks from it."""

    service: str  # the service type in ``OpenStack-API-Version: compute 2.1``
    minimum: Version
    maximum: Version
    legacy_header: str = ""  # e.g. X-OpenStack-Nova-API-Version

    def choose(self, headers: Mapping[str, str]) -> Version:
        """The version the caller asks for; the minimum if none.  400 if malformed, 406 if not announced."""
        asked = headers.get(self.legacy_header.lower(), "") if self.legacy_header else ""
        for item in headers.get("openstack-api-version", "").split(","):
            service, _, value = item.strip().partition(" ")
            if service == self.service:
                asked = value.strip()
        if not asked:
            return self.minimum
        if asked == "latest":
            return self.maximum
        version = parse(asked)
        if not self.minimum <= version <= self.maximum:
            raise NotAcceptable(
                f"Version {asked} is not supported by the API. "
                f"Minimum is {text(self.minimum)} and maximum is {text(self.maximum)}.",
                kind="computeFault",
            )
        return version

    def echo(self, version: Version) -> dict[str, str]:
        """The answer's headers that name the version used."""
        headers = {
            "OpenStack-API-Version": f"{self.service} {text(version)}",
            "Vary": "OpenStack-API-Version",
        }
        if self.legacy_header:
            headers[self.legacy_header] = text(version)
            headers["Vary"] += f", {self.legacy_header}"
        return headers


@dataclass(frozen=True)
class Change:
    """``since`` this version the document of ``resource`` is as built; ``undo`` makes it as it was before."""

    since: Version
    resource: str
    undo: Callable[[dict[str, Any]], None]


def render(changes: Iterable[Change], resource: str, document: dict[str, Any], version: Version) -> dict[str, Any]:
    """``document`` (of the newest version, changed in place) as ``version`` had it."""
    for change in sorted(changes, key=lambda change: change.since, reverse=True):
        if change.resource == resource and version < change.since:
            change.undo(document)
    return document


def parse(value: str) -> Version:
    major, _, minor = value.partition(".")
    if not (major.isascii() and major.isdigit() and minor.isascii() and minor.isdigit() and len(value) < 10):
        raise BadRequest(f"API Version String {value} is of invalid format. Must be of format MajorNum.MinorNum.")
    return int(major), int(minor)


def text(version: Version) -> str:
    return f"{version[0]}.{version[1]}"
