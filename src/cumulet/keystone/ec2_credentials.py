"""/v3/users/{user_id}/credentials/OS-EC2: the keys of the EC2 API, made here instead of brought along.

They are credentials of type ``ec2`` as those of ``credentials``, seen by their access key; the rules of who may
have them for which project are the same.
"""

import uuid
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Row

from cumulet.core import clock
from cumulet.core.db import Transaction
from cumulet.core.http import Json, Request, Route
from cumulet.core.schema import Open
from cumulet.keystone import credentials, documents
from cumulet.keystone.documents import IdText
from cumulet.keystone.policies import refuse_delegated
from cumulet.keystone.tables import credentials as table
from cumulet.keystone.tables import users

KIND = "ec2"


class NewKeysBody(Open):
    tenant_id: IdText


def list_ec2_credentials(request: Request) -> Json:
    refuse_delegated(request, "credentials")
    request.enforce("identity:ec2_list_credentials", {"user_id": request.params["user_id"]})
    mine = sa.and_(table.c.user_id == request.params["user_id"], table.c.type == KIND)
    with request.db.read() as tx:
        _check_user(tx, request)
        found = tx.all(sa.select(table).where(mine).order_by(table.c.created_at, table.c.id))
    return documents.collection(request, "credentials", (view(request, row) for row in found))


def show_ec2_credential(request: Request) -> Json:
    refuse_delegated(request, "credentials")
    with request.db.read() as tx:
        return {"credential": view(request, get_ec2_credential(tx, request, "identity:ec2_get_credential"))}


def create_ec2_credential(request: Request) -> Json:
    refuse_delegated(request, "credentials")
    user_id, project_id = request.params["user_id"], request.body.tenant_id
    request.enforce("identity:ec2_create_credential", {"target.credential.user_id": user_id})
    credentials.check_project(request, KIND, project_id)
    access = uuid.uuid4().hex
    blob = msgspec.json.encode({"access": access, "secret": uuid.uuid4().hex, "trust_id": None}).decode()
    row: Json = {
        "id": credentials.ec2_id(access),
        "user_id": user_id,
        "project_id": project_id,
        "type": KIND,
        "sealed_blob": credentials.seal_blob(request, blob),
        "created_at": clock.now(),
    }
    with request.db.transaction() as tx:
        credentials.check_exist(tx, user_id, project_id)
        tx.write(table.insert(), row)
        documents.notify(tx, request, "credential.created", row["id"])
        return {"credential": view(request, tx.all(sa.select(table).where(table.c.id == row["id"]))[0])}


def delete_ec2_credential(request: Request) -> None:
    refuse_delegated(request, "credentials")
    with request.db.transaction() as tx:
        row = get_ec2_credential(tx, request, "identity:ec2_delete_credential")
        tx.write(sa.delete(table).where(table.c.id == row.id))
        documents.notify(tx, request, "credential.deleted", row.id)


def get_ec2_credential(tx: Transaction, request: Request, rule: str) -> Row[Any]:
    """The one with the access key in the URL, if it is the user's in the URL."""
    user_id, access = request.params["user_id"], request.params["access"]
    row = documents.find_row(tx, table, credentials.ec2_id(access))
    if row is not None and (
        row.user_id != user_id or row.type != KIND or _keys(request, row).get("access") != access
    ):
        row = None
    request.enforce(rule, {"target.credential.user_id": row.user_id if row else user_id})
    if row is None:
        raise documents.missing("credential", access)
    return row


def view(request: Request, row: Row[Any]) -> Json:
    keys = _keys(request, row)
    path = f"users/{row.user_id}/credentials/OS-EC2/{keys.get('access')}"
    return {
        "user_id": row.user_id,
        "tenant_id": row.project_id,
        "access": keys.get("access"),
        "secret": keys.get("secret"),
        "trust_id": keys.get("trust_id"),
        "links": {"self": documents.link(request, path)},
    }


def _keys(request: Request, row: Row[Any]) -> Json:
    return credentials.mapping(credentials.read_blob(request, row))


def _check_user(tx: Transaction, request: Request) -> None:
    if documents.find_row(tx, users, request.params["user_id"]) is None:
        raise documents.missing("user", request.params["user_id"])


_ALL = "/v3/users/{user_id}/credentials/OS-EC2"
_ONE = f"{_ALL}/{{access}}"
ROUTES = [
    Route("GET", _ALL, list_ec2_credentials, "identity:ec2_list_credentials"),
    Route("POST", _ALL, create_ec2_credential, "identity:ec2_create_credential", 201, body=NewKeysBody),
    Route("GET", _ONE, show_ec2_credential, "identity:ec2_get_credential"),
    Route("DELETE", _ONE, delete_ec2_credential, "identity:ec2_delete_credential", 204),
]
