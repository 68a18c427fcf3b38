"""What a controller service is given: the database, the bus, secrets, and how to know a caller."""

from collections.abc import Callable
from dataclasses import dataclass

from cumulet.core.bus import Bus
from cumulet.core.config import Config
from cumulet.core.context import Context
from cumulet.core.db import Database
from cumulet.core.errors import Unauthorized
from cumulet.core.http import Caller, Reply, Request
from cumulet.core.policy import Policies
from cumulet.core.schema import encode
from cumulet.core.secrets import Secrets, host_token, same


@dataclass(frozen=True)
class ControllerEnv:
    config: Config
    db: Database
    bus: Bus
    secrets: Secrets
    authenticate: Callable[[str], Context]  # keystone's check of a token, in process

    @property
    def caller(self) -> Caller:
        return Caller(self.authenticate, self._authenticate_host)

    def policies(self, project: str, defaults: dict[str, str]) -> Policies:
        """A project's rules, with the overrides of ``etc/policy.d/<project>.yaml`` if an operator made one."""
        import msgspec

        file = self.config.etc / "policy.d" / f"{project}.yaml"
        overrides = msgspec.yaml.decode(file.read_bytes(), type=dict[str, str]) if file.exists() else {}
        return Policies(defaults, overrides)

    def _authenticate_host(self, host: str, token: str) -> Context:
        if not host or not same(token, host_token(self.secrets.host_secret, host)):
            raise Unauthorized("this is not the token of that host")
        return Context(host=host)


def etagged(request: Request, document: object) -> Reply:
    """``document`` as JSON with an ETag; 304 without a body if the caller has it already."""
    body = encode(document)
    etag = etag_of(body)
    if request.headers.get("if-none-match") == etag:
        return Reply(None, 304, {"ETag": etag})
    return Reply(body, 200, {"ETag": etag})


def etag_of(body: bytes) -> str:
    import hashlib

    return hashlib.blake2b(body, digest_size=16).hexdigest()
