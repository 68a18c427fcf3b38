"""How a node joins: by a token that a controller gave out for its name, once, for a while.

A token is the number of its row and a key that only controllers can work out again.  Who joins proves to have the
key and never sends it; the answer, the node's parcel, is sealed with it.  So whoever listens or answers in the
controller's place learns nothing and gives nothing.  A node that would get the cloud's own secrets, a controller,
cannot join: it is deployed.
"""

import base64
import hashlib
import uuid

import msgspec
import sqlalchemy as sa
from cryptography.fernet import Fernet, InvalidToken

from cumulet.core import clock, parcels, topology
from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest, Unauthorized, Unavailable
from cumulet.core.http import Reply, Request, Route
from cumulet.core.parcels import Parcel
from cumulet.core.policy import PUBLIC
from cumulet.core.schema import Strict
from cumulet.core.secrets import same, sign
from cumulet.core.tables import join_tokens


class Proof(Strict):
    proof: str


def issue(tx: Transaction, secret: str, node: str, seconds: float) -> str:
    """A token with which ``node`` may join; earlier ones for this name are no longer good."""
    tx.write(sa.delete(join_tokens).where(join_tokens.c.node == node))
    number = uuid.uuid4().hex
    tx.write(join_tokens.insert(), {"id": number, "node": node, "expires_at": clock.later(seconds)})
    return f"{number}.{_key(secret, number, node)}"


def routes(secret: str) -> list[Route]:
    """What nova-conductor serves."""

    def join(request: Request) -> Reply:
        return _join(secret, request)

    return [Route("POST", "/join/{id}", join, PUBLIC, body=Proof)]


def _join(secret: str, request: Request) -> Reply:
    """The sealed parcel of the node that the token is for; the token is used up with it."""
    config, now = request.config, clock.now()
    with request.db.transaction() as tx:
        row = tx.find(sa.select(join_tokens).where(join_tokens.c.id == request.params["id"]))
        if row is None or not same(request.body.proof, prove(_key(secret, row.id, row.node))):
            raise Unauthorized("this is not a token of this cloud")
        fresh = join_tokens.c.used_at.is_(None), join_tokens.c.expires_at > now
        if not tx.write(sa.update(join_tokens).where(join_tokens.c.id == row.id, *fresh).values(used_at=now)):
            raise Unauthorized(
                f"this token was used or is too old: 'cumulet node token {row.node}' makes a new one"
            )
        try:
            found = topology.load(topology.file(config))
            node = topology.get_node(found, row.node)
        except BadRequest as error:
            raise Unavailable(f"the controller's topology: {error.message}") from error
        check(topology.controls(node), node.name)
        parcel = parcels.make(found, "", node, config.etc)
    sealed = _fernet(_key(secret, row.id, row.node)).encrypt(msgspec.json.encode(parcel))
    return Reply(sealed, content_type="application/octet-stream")


def check(controls: bool, name: str) -> None:
    if controls:
        raise BadRequest(f"{name} is to run controller services, so it would get the cloud's secrets: deploy it")


def prove(key: str) -> str:
    """What who has the key says, and nobody else can."""
    return sign(key, "join")


def opened(key: str, answer: bytes) -> Parcel:
    """Unauthorized if this was not sealed by a controller that made the token."""
    try:
        return msgspec.json.decode(_fernet(key).decrypt(answer), type=Parcel)
    except (InvalidToken, msgspec.MsgspecError) as error:
        raise Unauthorized("who answered is not the controller that made this token") from error


def _key(secret: str, number: str, node: str) -> str:
    return sign(secret, f"join:{number}:{node}")


def _fernet(key: str) -> Fernet:
    return Fernet(base64.urlsafe_b64encode(hashlib.sha256(f"parcel:{key}".encode()).digest()))
