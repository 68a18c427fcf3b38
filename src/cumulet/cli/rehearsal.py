"""Before the fork: every controller service is built and asked for its lists, on an empty database in memory.

What a process does for the first time writes to much of its memory: statements are compiled, bytecode is
specialised, attributes are worked out.  Done here once, in the node's parent, all services share it, and none is
slow at its first request.  Nothing of it lasts: keys and the administrator are of this rehearsal only, no service
is reached, and nothing is logged or counted.
"""

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from msgspec.structs import replace

from cumulet.cli import child, dress
from cumulet.core import db, secrets
from cumulet.core.bus import LocalBus
from cumulet.core.config import Config, Tls
from cumulet.core.context import REQUEST_ID
from cumulet.core.controller import ControllerEnv
from cumulet.core.errors import Retry
from cumulet.core.http import App
from cumulet.core.metrics import REQUEST_SECONDS, REQUESTS
from cumulet.core.service import Service
from cumulet.core.tables import metadata
from cumulet.keystone.public import bootstrap, build_authenticator
from cumulet.services import Named

CHEAP_ROUNDS = 4
"""The cost of the password's hash: it is nobody's."""
UNREACHABLE = "127.255.255.255"
HOST = "rehearsal"
LOGIN = "/v3/auth/tokens"


def rehearse(config: Config, services: Sequence[Named]) -> dict[str, list[int]]:
    """The codes that each API answered.  Only for SQLite: another database cannot be had in memory."""
    codes: dict[str, list[int]] = {}
    if not config.database_url.startswith("sqlite:///"):
        return codes
    with _silence(), tempfile.TemporaryDirectory() as scratch, db.rehearsal(config.database_url) as database:
        metadata.create_all(database.engine)
        here = _elsewhere(config, scratch)
        known = secrets.generate()
        with database.transaction() as tx:
            bootstrap(tx, here, known.admin_password, [])
        env = ControllerEnv(here, database, LocalBus(), known, build_authenticator(here, database))
        agent = {"X-Cumulet-Host": HOST, "X-Cumulet-Host-Token": secrets.host_token(known.host_secret, HOST)}
        token = ""
        for service in services:
            if not service.agent:
                made = child.builder(service)(env)
                token = token or _log_in(made.app, known.admin_password)
                codes[service.name] = _rehearse(made, {"X-Auth-Token": token, **agent})
                dress.rehearse_life(made, env, HOST, agent["X-Cumulet-Host-Token"])
        dress.rehearse_signs(env, HOST, scratch)
    return codes


def _elsewhere(config: Config, scratch: str) -> Config:
    """The same configuration with its files in ``scratch`` and nobody to speak to."""
    found = replace(
        config,
        node=replace(config.node, state_dir=scratch, run_dir=scratch, log_dir=scratch),
        api=replace(config.api, internal_bind=UNREACHABLE, controller=UNREACHABLE),
        tls=Tls(),
        identity=replace(config.identity, bcrypt_rounds=CHEAP_ROUNDS),
        etc_dir=scratch,
    )
    (Path(scratch) / "images").mkdir()
    return found


def _log_in(app: App, password: str) -> str:
    user = {"name": "admin", "domain": {"id": "default"}, "password": password}
    scope = {"project": {"name": "admin", "domain": {"id": "default"}}}
    wish = {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": scope}
    return str(app.call("POST", LOGIN, {"auth": wish})[2].get("X-Subject-Token", ""))


def _rehearse(made: Service, headers: dict[str, str]) -> list[int]:
    for reconciler in made.loops:
        with suppress(Retry):  # it may ask another service
            reconciler.read()
    if not isinstance(made.app, App):
        return []
    asked = [route.path.replace("{host}", HOST) for route in made.app.routes if route.method == "GET"]
    return [made.app.call("GET", path, headers=headers)[0] for path in asked if "{" not in path]


@contextmanager
def _silence() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    before = REQUEST_ID.get()
    try:
        yield
    finally:
        REQUEST_ID.set(before)
        logging.disable(logging.NOTSET)
        REQUESTS.clear()
        REQUEST_SECONDS.clear()
