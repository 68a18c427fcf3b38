"""/v3/credentials: secrets that users keep here, e.g. the keys of the EC2 API.

Everybody sees and changes their own only; administrators, and readers of the system, all.  Neither owner nor
project is the caller's to choose: whoever could name another would act as that other.  At rest the secrets are
encrypted; who has the database alone has nothing.
"""

import hashlib
from typing import Annotated, Any

import msgspec
import sqlalchemy as sa
from msgspec import Meta
from sqlalchemy.engine import Row

from cumulet.core import clock, schema
from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest, Conflict, Forbidden, Unavailable
from cumulet.core.http import Json, Request, Route
from cumulet.core.listing import Listing, list_page
from cumulet.core.schema import UNSET, Open, UnsetType
from cumulet.keystone import documents
from cumulet.keystone.documents import IdText, Name
from cumulet.keystone.keys import Keyrings
from cumulet.keystone.policies import refuse_delegated
from cumulet.keystone.tables import credentials, projects, users

Blob = Annotated[str, Meta(min_length=1, max_length=8192)]
FIXED_KEYS = ("trust_id", "app_cred_id", "access_token_id", "access_id")
"""What a blob may say of where it came from; not the client's to change."""


class NewCredential(Open):
    blob: Blob
    type: Name
    user_id: IdText | UnsetType | None = UNSET
    project_id: IdText | None = None


class NewCredentialBody(Open):
    credential: NewCredential


class ChangedCredential(Open):
    blob: Blob | UnsetType = UNSET
    type: Name | UnsetType = UNSET
    user_id: IdText | UnsetType = UNSET
    project_id: IdText | UnsetType | None = UNSET


class ChangedCredentialBody(Open):
    credential: ChangedCredential


LISTING = Listing(
    credentials.c.id, {"user_id": credentials.c.user_id, "type": credentials.c.type}, default_sort=(("id", "asc"),)
)


def list_credentials(request: Request) -> Json:
    refuse_delegated(request, "credentials")
    statement = sa.select(credentials)
    if not request.allows("identity:list_credentials", {}):
        statement = statement.where(credentials.c.user_id == request.context.user_id)
    with request.db.read() as tx:
        page = list_page(tx, statement, request, LISTING)
    return documents.collection(request, "credentials", (view(request, row) for row in page.rows), page)


def show_credential(request: Request) -> Json:
    refuse_delegated(request, "credentials")
    with request.db.read() as tx:
        return {"credential": view(request, get_credential(tx, request, "identity:get_credential"))}


def create_credential(request: Request) -> Json:
    refuse_delegated(request, "credentials")
    wanted: NewCredential = request.body.credential
    owner = request.context.user_id if isinstance(wanted.user_id, UnsetType) else wanted.user_id
    request.enforce("identity:create_credential", {"target.credential.user_id": owner or None})
    check_project(request, wanted.type, wanted.project_id)
    row: Json = {
        "id": _id(wanted.type, wanted.blob),
        "user_id": owner or request.context.user_id,
        "project_id": wanted.project_id,
        "type": wanted.type,
        "sealed_blob": seal_blob(request, wanted.blob),
        "extra": documents.extras(request, "credential", NewCredential),
        "created_at": clock.now(),
    }
    if _fixed(wanted.blob):
        raise BadRequest(f"Invalid input: a blob may not name {', '.join(_fixed(wanted.blob))}")
    with request.db.transaction() as tx:
        check_exist(tx, row["user_id"], wanted.project_id)
        try:
            tx.write(credentials.insert(), row)
        except Conflict as error:
            text = f"Duplicate entry found with ID {row['id']}"
            raise Conflict(f"Conflict occurred attempting to store credential - {text}.") from error
        documents.notify(tx, request, "credential.created", row["id"])
        return {"credential": view(request, _row(tx, row["id"]))}


def update_credential(request: Request) -> Json:
    refuse_delegated(request, "credentials")
    wanted: ChangedCredential = request.body.credential
    with request.db.transaction() as tx:
        row = get_credential(tx, request, "identity:update_credential", lock=True)
        given = schema.given(wanted)
        owner, project_id = given.get("user_id", row.user_id), given.get("project_id", row.project_id)
        request.enforce("identity:update_credential", {"target.credential.user_id": owner})
        if project_id != row.project_id:
            check_project(request, given.get("type", row.type), project_id)
        check_exist(tx, owner, project_id)
        blob = read_blob(request, row)
        if isinstance(wanted.blob, str) and _fixed(wanted.blob) != _fixed(blob):
            raise BadRequest(f"Update of `{FIXED_KEYS[0]}` and the like in a blob is not allowed.")
        type_ = given.get("type", row.type)
        if type_ == "ec2" and _id(type_, given.get("blob", blob)) != row.id and row.type != "ec2":
            raise BadRequest("A credential that was not made as an ec2 credential cannot become one.")
        values: Json = {name: given[name] for name in ("type", "user_id", "project_id") if name in given}
        values["sealed_blob"] = seal_blob(request, given.get("blob", blob))
        values["extra"] = {**row.extra, **documents.extras(request, "credential", ChangedCredential)}
        tx.write(sa.update(credentials).where(credentials.c.id == row.id).values(values))
        documents.notify(tx, request, "credential.updated", row.id)
        return {"credential": view(request, _row(tx, row.id))}


def delete_credential(request: Request) -> None:
    refuse_delegated(request, "credentials")
    with request.db.transaction() as tx:
        row = get_credential(tx, request, "identity:delete_credential")
        tx.write(sa.delete(credentials).where(credentials.c.id == row.id))
        documents.notify(tx, request, "credential.deleted", row.id)


def get_credential(tx: Transaction, request: Request, rule: str, *, lock: bool = False) -> Row[Any]:
    """The one in the URL; who may not see it is told the same as of one that does not exist."""
    key = request.params["credential_id"]
    row = documents.find_row(tx, credentials, key, lock=lock)
    request.enforce(rule, {"target.credential.user_id": row.user_id} if row else {})
    if row is None:
        raise documents.missing("credential", key)
    return row


def view(request: Request, row: Row[Any]) -> Json:
    return {
        **row.extra,
        "id": row.id,
        "user_id": row.user_id,
        "project_id": row.project_id,
        "type": row.type,
        "blob": read_blob(request, row),
        "links": {"self": documents.link(request, f"credentials/{row.id}")},
    }


def check_project(request: Request, type_: str, project_id: str | None) -> None:
    """One's own credential can be for the project of one's token only; administrators may name any."""
    if type_ == "ec2" and not project_id:
        raise BadRequest("Invalid input: an ec2 credential requires a project_id")
    everybodys = request.allows("identity:create_credential", {})
    if project_id and not everybodys and project_id != request.context.project_id:
        raise Forbidden(
            "You are not authorized to perform the requested action: keep a credential for another project than "
            "the token's."
        )


def check_exist(tx: Transaction, user_id: str, project_id: str | None) -> None:
    if not tx.find(sa.select(users.c.id).where(users.c.id == user_id)):
        raise documents.missing("user", user_id)
    if project_id and not tx.find(sa.select(projects.c.id).where(projects.c.id == project_id)):
        raise documents.missing("project", project_id)


def _id(type_: str, blob: str) -> str:
    if type_.lower() != "ec2":
        return documents.new_id()
    access = mapping(blob).get("access")
    if not isinstance(access, str) or not access:
        raise BadRequest("Invalid blob in credential: an ec2 credential is a JSON object with access and secret")
    return ec2_id(access)


def ec2_id(access: str) -> str:
    """The id of the ec2 credential that was made with this access key; a later blob may have another one."""
    return hashlib.sha256(access.encode(errors="surrogatepass")).hexdigest()


def mapping(blob: str) -> Json:
    """The blob as a JSON object; empty if it is none."""
    try:
        found = msgspec.json.decode(blob)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _fixed(blob: str) -> Json:
    return {name: value for name, value in mapping(blob).items() if name in FIXED_KEYS and value is not None}


def seal_blob(request: Request, blob: str) -> str:
    rings: Keyrings = request.app.extras
    return rings.credentials.seal(blob.encode(errors="surrogatepass"))


def read_blob(request: Request, row: Row[Any]) -> str:
    rings: Keyrings = request.app.extras
    text = row.sealed_blob + "=" * (-len(row.sealed_blob) % 4)
    blob = rings.credentials.open(text.encode())
    if blob is None:
        raise Unavailable(f"credential {row.id} was sealed with a key that is not in etc/credential-keys")
    return blob.decode(errors="surrogatepass")


def _row(tx: Transaction, key: str) -> Row[Any]:
    return tx.all(sa.select(credentials).where(credentials.c.id == key))[0]


_ONE = "/v3/credentials/{credential_id}"
ROUTES = [
    Route("GET", "/v3/credentials", list_credentials, "identity:list_credentials"),
    Route("POST", "/v3/credentials", create_credential, "identity:create_credential", 201, body=NewCredentialBody),
    Route("GET", _ONE, show_credential, "identity:get_credential"),
    Route("PATCH", _ONE, update_credential, "identity:update_credential", body=ChangedCredentialBody),
    Route("DELETE", _ONE, delete_credential, "identity:delete_credential", 204),
]
