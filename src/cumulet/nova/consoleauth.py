"""nova-consoleauth: issues and checks the tokens of the console proxies.

Only the hash of a token is kept.  A token is good for one server on the host that has it now, for
``console.token_seconds``, and for one use: nova-novncproxy takes it, and gets a ticket to the host for it.  Whether
the server still has a screen is looked up when the token is taken, so that a late clean-up lets nobody in; the loop
removes what is over: as soon as a server is ordered off or away, or else with its next pass.
"""

import hashlib
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from cumulet.core import clock
from cumulet.core.context import Context, Secret
from cumulet.core.controller import ControllerEnv
from cumulet.core.db import Database, Transaction
from cumulet.core.errors import ApiError, Forbidden, Unauthorized
from cumulet.core.http import App, Caller, Reply, Request, Route
from cumulet.core.policy import HOST, PUBLIC, Policies
from cumulet.core.reconcile import Outcome, Reconciler
from cumulet.core.schema import encode
from cumulet.core.secrets import host_token, same, service_token, sign
from cumulet.core.service import Service
from cumulet.core.tables import agents
from cumulet.nova.console_tickets import make_proof, make_ticket
from cumulet.nova.console_tokens import API, NAME, PROXY, Found, Issued, Place, Screen, Shown, Taken, Wish
from cumulet.nova.services import COMPUTE, host_address
from cumulet.nova.tables import console_tokens, server_hosts, servers

MOST_TOKENS = 20
"""Of one server; the oldest go first."""
_SHOWING = ("on", "paused")
_has_screen = sa.and_(
    server_hosts.c.wanted == "run",
    server_hosts.c.seen_power.in_(_SHOWING),
    servers.c.power.in_(_SHOWING),
    servers.c.deleted_at.is_(None),
)
_SCREEN = (
    sa.select(server_hosts.c.server_id, server_hosts.c.host, agents.c.details)
    .join_from(server_hosts, servers)
    .outerjoin(agents, sa.and_(agents.c.binary == COMPUTE, agents.c.host == server_hosts.c.host))
    .where(_has_screen, servers.c.id == sa.bindparam("server"))
)
_GOOD = sa.select(console_tokens).where(
    console_tokens.c.hash == sa.bindparam("digest"), console_tokens.c.expires_at > sa.bindparam("now")
)
_OVER = sa.select(console_tokens.c.hash).where(
    sa.or_(
        console_tokens.c.expires_at <= sa.bindparam("now"),
        ~sa.exists(
            sa.select(servers.c.id)
            .join_from(servers, server_hosts)
            .where(
                _has_screen,
                servers.c.id == console_tokens.c.server_id,
                server_hosts.c.host == console_tokens.c.host,
            )
        ),
    )
)


def issue_token(request: Request) -> Issued:
    """A new token to a server's screen; an empty one if it has none now."""
    _admit(request, API)
    token = Secret.generate()
    with request.db.transaction() as tx:
        screen = _find_screen(tx, request.body.server_id)
        if screen is None:
            return Issued("")
        _make_room(tx, screen.server_id)
        row = {
            "hash": _hash(token),
            "server_id": screen.server_id,
            "host": screen.host,
            "expires_at": clock.later(request.config.console.token_seconds),
        }
        tx.write(console_tokens.insert(), row)
    return Issued(str(token))


def find_token(request: Request) -> Found:
    """Where a token leads to, for administrators; it stays good."""
    _admit(request, API)
    with request.db.read() as tx:
        screen = _follow(tx, _find_token(tx, request.body.token))
    return Found(Place(screen.server_id, host_address(screen)) if screen else None)


def take_token(request: Request) -> Taken:
    """What a token opens.  Of two who show it at once one gets nothing."""
    _admit(request, PROXY)
    with request.db.transaction() as tx:
        row = _find_token(tx, request.body.token)
        if row is None or not tx.write(sa.delete(console_tokens).where(console_tokens.c.hash == row.hash)):
            return Taken()
        screen = _follow(tx, row)
    if screen is None:
        return Taken()
    by_host = partial(sign, host_token(request.app.extras, screen.host))
    ticket = make_ticket(by_host, screen.server_id, time.time())
    proof = make_proof(by_host, ticket)
    return Taken(Screen(screen.server_id, host_address(screen), screen.host, ticket, proof))


def _find_token(tx: Transaction, token: str) -> Row[Any] | None:
    return tx.find(_GOOD, {"digest": _hash(token), "now": clock.now()})


def _follow(tx: Transaction, token: Row[Any] | None) -> Row[Any] | None:
    """The screen that a token was issued for, if the same host still shows it."""
    screen = _find_screen(tx, token.server_id) if token else None
    return screen if token and screen and screen.host == token.host else None


def _find_screen(tx: Transaction, server_id: str) -> Row[Any] | None:
    return tx.find(_SCREEN, {"server": server_id})


def _make_room(tx: Transaction, server_id: str) -> None:
    """A user may ask as often as they like."""
    mine = console_tokens.c.server_id == server_id
    newest_first = sa.select(console_tokens.c.hash).where(mine).order_by(console_tokens.c.expires_at.desc())
    surplus = [row.hash for row in tx.all(newest_first)][MOST_TOKENS - 1 :]
    if surplus:
        tx.write(sa.delete(console_tokens).where(console_tokens.c.hash.in_(surplus)))


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _admit(request: Request, service: str) -> None:
    if request.context.host != service:
        raise Forbidden(f"this is for {service} only")


class Tidier:
    """Removes tokens that are over."""

    def __init__(self, db: Database, resync_seconds: float) -> None:
        self._db, self._resync_seconds = db, resync_seconds

    def reconciler(self) -> Reconciler[str]:
        return Reconciler(
            "console-tokens",
            self.read,
            reconcile_all=self.remove,
            topics=("nova.servers",),
            resync_seconds=self._resync_seconds,
        )

    def read(self) -> Mapping[str, str]:
        with self._db.read() as tx:
            return {row.hash: row.hash for row in tx.all(_OVER, {"now": clock.now()})}

    def remove(self, over: Mapping[str, str]) -> Mapping[str, Outcome]:
        with self._db.transaction() as tx:
            tx.write(sa.delete(console_tokens).where(console_tokens.c.hash.in_(list(over))))
        return {}


def render_error(error: ApiError) -> tuple[bytes, str]:
    return encode({"error": {"code": error.status, "message": error.message}}), "application/json"


def build_app(env: ControllerEnv) -> App:
    def user(token: str) -> Context:
        raise Unauthorized(f"{NAME} serves other services only")

    def service(name: str, token: str) -> Context:
        if name not in (API, PROXY) or not same(token, service_token(env.secrets.host_secret, name)):
            raise Unauthorized(f"{NAME} serves {API} and {PROXY} only")
        return Context(host=name)

    return App(
        NAME,
        ROUTES,
        db=env.db,
        config=env.config,
        policies=Policies({}),
        caller=Caller(user, service),
        render_error=render_error,
        extras=env.secrets.host_secret,
    )


def show_health(request: Request) -> Reply:
    return Reply(b"OK", content_type="text/plain")


ROUTES = (
    Route("POST", "/tokens", issue_token, HOST, body=Wish),
    Route("POST", "/tokens/find", find_token, HOST, body=Shown),
    Route("POST", "/tokens/take", take_token, HOST, body=Shown),
    Route("GET", "/healthcheck", show_health, PUBLIC),
)


def build(env: ControllerEnv) -> Service:
    return Service(app=build_app(env), loops=[Tidier(env.db, env.config.agents.resync_seconds).reconciler()])
