"""The certificate by which others know this host: signed by a controller, exchanged in the middle of its life.

Until there is one the host serves with one that nobody trusts (``core.certificates.prepare``), and who wants
something of it waits.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from msgspec import Struct

from cumulet.core import certificates
from cumulet.core.config import Config
from cumulet.core.reconcile import Reconciler

LOOK_SECONDS = 3600.0


class Signed(Struct):
    """What a controller answers (``core.signing``)."""

    certificate: str


class Identity:
    """``sign``: has a controller sign the public part of a key for this host.  Retry if there is none."""

    def __init__(
        self,
        config: Config,
        host: str,
        sign: Callable[[str], str],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._config, self._host, self._sign, self._now = config, host, sign, now

    def reconciler(self) -> Reconciler[str]:
        return Reconciler("certificate", self.read, self.renew, resync_seconds=LOOK_SECONDS, events=False)

    def read(self) -> Mapping[str, str]:
        """What is served with now; nothing where there is no TLS."""
        if not self._config.tls.on:
            return {}
        path = certificates.host_path(self._config)
        return {"certificate": path.read_text() if path.exists() else ""}

    def renew(self, served: str) -> None:
        authority = certificates.authority_path(self._config).read_text()
        if certificates.still_good(served, authority, [self._host], self._now()):
            return
        key = certificates.make_key()
        certificates.write_host(self._config, key + self._sign(certificates.public_key(key)))
