"""How a host gets the certificate that it serves other hosts and controllers with.

The host makes a key, which never leaves it, and shows the public part with its token.  What is signed is the name
that goes with the token and nothing else: the request does not name anybody.
"""

from datetime import UTC, datetime
from typing import Annotated

from msgspec import Meta

from cumulet.core import certificates
from cumulet.core.errors import Unavailable
from cumulet.core.http import Request, Route
from cumulet.core.policy import HOST
from cumulet.core.schema import Strict

LONGEST_KEY = 2000


class Wish(Strict):
    public_key: Annotated[str, Meta(max_length=LONGEST_KEY)]


def route(authority: str) -> Route:
    """``authority``: its key and certificate, as the cloud's secrets have it."""

    def sign(request: Request) -> dict[str, str]:
        if not authority:
            raise Unavailable("this cloud has no certificate authority: its secrets are of before there was one")
        key, name = request.body.public_key, request.params["host"]
        return {"certificate": certificates.sign(authority, key, [name], datetime.now(UTC), certificates.HOST_DAYS)}

    return Route("POST", "/hosts/{host}/certificate", sign, HOST, body=Wish)
