"""Address scopes on one router: whose addresses mean something to whom.  Pure: ports go in, rules come out.

Networks of one scope are routed to each other, and so are those of none.  From one scope to another passes what a
floating IP translates, and IPv4 on its way to a gateway that hides its source.  Towards a gateway of their own
scope, networks need not be hidden: their addresses mean the same outside, and the outside may call them.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from cumulet.neutron.model import RouterPort

FAMILIES = (("ipv4", "scope_v4"), ("ipv6", "scope_v6"))
INSIDE = '"qr-*"'


@dataclass(frozen=True)
class Sides:
    """A router's devices: those inside, by name, and the one outside; '' if there is none."""

    inside: Mapping[str, RouterPort]
    outside: str
    external: RouterPort | None

    @property
    def scoped(self) -> bool:
        """Whether any network has a scope; if none has, each reaches each."""
        ports = [*self.inside.values(), *([self.external] if self.external else [])]
        return any(port.scope_v4 or port.scope_v6 for port in ports)

    def near(self, scope: str) -> list[str]:
        """The devices inside that are in the scope of the outside, ``scope``: which of the two kinds."""
        return [name for name, port in self.inside.items() if getattr(port, scope) == getattr(self.external, scope)]

    def bare(self) -> list[str]:
        """The devices inside whose IPv4 addresses leave as they are, for the outside has the same scope."""
        return self.near("scope_v4") if self.external and self.external.scope_v4 else []


def forward(sides: Sides, snat: bool, fixed: Collection[str]) -> list[str]:
    """Who may begin to talk to whom; ``fixed`` are the addresses that have a floating IP."""
    rules = []
    for family, scope in FAMILIES:
        groups: dict[str, list[str]] = {}
        for name, port in sides.inside.items():
            groups.setdefault(getattr(port, scope), []).append(name)
        for _, names in sorted(groups.items()):
            rules.append(f"meta nfproto {family} iifname {_set(names)} oifname {_set(names)} accept")
    rules.append(f"iifname {INSIDE} oifname {INSIDE} ct status dnat accept")
    return rules + (_beyond(sides, snat, fixed) if sides.outside else [])


def _beyond(sides: Sides, snat: bool, fixed: Collection[str]) -> list[str]:
    outside = f'"{sides.outside}"'
    rules = [f"iifname {outside} oifname {INSIDE} ct status dnat accept"]
    if snat:
        rules.append(f"meta nfproto ipv4 iifname {INSIDE} oifname {outside} accept")
    elif fixed:
        rules.append(f"iifname {INSIDE} oifname {outside} ip saddr {{ {', '.join(sorted(fixed))} }} accept")
    for family, scope in FAMILIES:
        hidden = family == "ipv4" and snat
        if names := sides.bare() if hidden else sides.near(scope):
            rules.append(f"meta nfproto {family} iifname {outside} oifname {_set(names)} accept")
            if not hidden:
                rules.append(f"meta nfproto {family} iifname {_set(names)} oifname {outside} accept")
    return rules


def unhidden(sides: Sides) -> list[str]:
    """The rules before the one that hides sources behind the gateway."""
    names = sides.bare()
    return [f'meta nfproto ipv4 iifname {_set(names)} oifname "{sides.outside}" accept'] if names else []


def _set(names: Collection[str]) -> str:
    return "{ " + ", ".join(f'"{name}"' for name in sorted(names)) + " }"
