"""The other controllers, as far as they have images' data that this one has not."""

import http.client
import logging
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote

from cumulet.core.client import connect
from cumulet.core.errors import Unavailable
from cumulet.core.secrets import host_token
from cumulet.glance.public import copy_ticket

LOG = logging.getLogger(__name__)
SILENT_SECONDS = 10.0


class Data(Protocol):
    """What an image's data is read from, once."""

    def read(self, amount: int, /) -> bytes: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Peers:
    """``hosts``: addresses of all controllers; that this one is among them costs a question and is no harm."""

    hosts: Sequence[str] = ()
    port: int = 0
    node: str = ""
    secret: str = ""
    trust: ssl.SSLContext | None = None

    def open(self, image_id: str, first: int = 0) -> Data | None:
        """The data from this byte on, from the first that has it; None if nobody has.

        Unavailable if nobody of those that answer has it, and not all answer.
        """
        silent = []
        for host in self.hosts if len(self.hosts) > 1 else ():
            try:
                found = self._ask(host, image_id, first)
            except (OSError, http.client.HTTPException) as error:
                LOG.info("%s cannot be asked for image %s: %s", host, image_id, error)
                silent.append(host)
                continue
            if found.status in (200, 206):
                return found
            found.close()
        if silent:
            raise Unavailable(f"the data of image {image_id} is not here, and {', '.join(silent)} cannot be asked")
        return None

    def _ask(self, host: str, image_id: str, first: int) -> http.client.HTTPResponse:
        connection = connect(host, self.port, self.trust, SILENT_SECONDS)
        headers = {
            "X-Cumulet-Host": self.node,
            "X-Cumulet-Host-Token": host_token(self.secret, self.node),
            "X-Image-Ticket": copy_ticket(self.secret, image_id, self.node),
            "Range": f"bytes={first}-",
            "Connection": "close",  # so the answer has the connection for itself
        }
        try:
            connection.request("GET", f"/hosts/{quote(self.node, safe='')}/copies/{image_id}", headers=headers)
            return connection.getresponse()
        except BaseException:
            connection.close()
            raise
