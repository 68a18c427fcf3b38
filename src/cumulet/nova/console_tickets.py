"""Tickets to a server's screen: given out by nova-consoleauth, shown by nova-novncproxy, checked by nova-compute.

A ticket is a time and an HMAC with the host's token, so it is good for one server of one host and for half a
minute; the proxy cannot make one.  The host answers it with a proof that it has that token too: an address that
somebody else answers at gets nothing of what the user types.
"""

from collections.abc import Callable

from cumulet.core.secrets import same

TICKET_SECONDS = 30
TICKET, PROOF = "X-Console-Ticket", "X-Console-Proof"
Sign = Callable[[str], str]
"""An HMAC with a host's token."""


def make_ticket(sign: Sign, server_id: str, now: float) -> str:
    expires = str(int(now) + TICKET_SECONDS)
    return f"{expires}.{sign(_text(server_id, expires))}"


def is_valid(sign: Sign, ticket: str, server_id: str, now: float) -> bool:
    """Whether it is a ticket of this host to this server's screen, and not too old."""
    expires, _, signature = ticket.partition(".")
    if not (expires.isascii() and expires.isdecimal() and len(expires) < 15 and signature.isascii()):
        return False
    return same(signature, sign(_text(server_id, expires))) and now <= int(expires) <= now + 2 * TICKET_SECONDS


def make_proof(sign: Sign, ticket: str) -> str:
    return sign(f"proof:{ticket}")


def _text(server_id: str, expires: str) -> str:
    return f"screen:{server_id}:{expires}"
