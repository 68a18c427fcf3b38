"""What nova-api asks a server's nova-compute by HTTP: what only the host can know and nobody keeps."""

import http.client
import ssl

from cumulet.core.client import connect_host
from cumulet.core.errors import Unavailable
from cumulet.core.secrets import host_token

PATIENCE_SECONDS = 5.0
LONGEST_ANSWER = 16 << 20


def ask_host(
    secret: str, trust: ssl.SSLContext | None, host: str, address: str, port: int, path: str, server_id: str
) -> tuple[int, bytes]:
    """Status and body of a GET; Unavailable if the host has not said where it is, or does not answer."""
    if not address:
        raise Unavailable(f"the host of instance {server_id} has not said where it can be asked")
    headers = {"X-Cumulet-Host": host, "X-Cumulet-Host-Token": host_token(secret, host)}
    connection = connect_host(host, address, port, trust, PATIENCE_SECONDS)
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response.status, response.read(LONGEST_ANSWER)
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(f"the host of instance {server_id} does not answer; try again later") from error
    finally:
        connection.close()
