"""Routing and the checks that no handler can forget."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from cumulet.core import schema
from cumulet.core.bus import LocalBus
from cumulet.core.config import Config
from cumulet.core.context import Context
from cumulet.core.db import Database
from cumulet.core.errors import ApiError, Conflict, Retry, Unauthorized
from cumulet.core.http import App, Caller, Reply, Request, Route
from cumulet.core.microversion import Change, Versions, render
from cumulet.core.policy import HOST, PUBLIC, Policies, PolicyError
from tests import databases


class Wish(schema.Strict):
    name: str
    size: int = 0


def show(request: Request) -> Any:
    return {"id": request.params["id"], "project": request.context.project_id, "name": request.body}


def create(request: Request) -> Any:
    return {"name": request.body.name, "size": request.body.size}


def fail(request: Request) -> Any:
    raise {"bug": ZeroDivisionError("secret detail"), "race": Retry("lost"), "conflict": Conflict("taken")}[
        request.params["how"]
    ]


def versioned(request: Request) -> Any:
    changes = [Change((2, 5), "thing", lambda document: document.pop("new"))]
    return render(changes, "thing", {"old": 1, "new": 2}, request.version)


def forget(request: Request) -> None:
    return None


def invent(request: Request) -> dict[str, Any]:
    return {}


async def echo(request: Request) -> Reply:
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
    return Reply({"size": size, "project": request.context.project_id})


ROUTES = [
    Route("GET", "/things/{id}", show, "things:show"),
    Route("POST", "/things", create, "things:create", 201, body=Wish),
    Route("GET", "/things/detail", lambda request: {"detail": True}, PUBLIC),
    Route("GET", "/fail/{how}", fail, PUBLIC),
    Route("DELETE", "/inventions", forget, "things:create", 204),
    Route("POST", "/inventions", invent, "things:create", 201, also=(415,)),
    Route("GET", "/versioned", versioned, PUBLIC),
    Route("GET", "/late", lambda request: {}, PUBLIC, since=(2, 5)),
    Route("POST", "/things/{id}/action", lambda request: {"did": "stop"}, "things:show", 202, action="stop"),
    Route("POST", "/things/{id}/action", lambda request: {"did": "start"}, "things:create", action="start"),
    Route("GET", "/hosts/{host}/work", lambda request: {"host": request.context.host}, HOST),
    Route("PUT", "/things/{id}/data", echo, "things:show", streams=True),
    Route("GET", "/files/{path:path}", lambda request: {"path": request.params["path"]}, PUBLIC),
]
TOKENS = {
    "alice": Context(user_id="u1", project_id="p1", roles=frozenset({"member"})),
    "reader": Context(user_id="u2", project_id="p1", roles=frozenset({"reader"})),
}


def user(token: str) -> Context:
    if token not in TOKENS:
        raise Unauthorized("The request you have made requires authentication.")
    return TOKENS[token]


def host(name: str, token: str) -> Context:
    if token != f"token-of-{name}":
        raise Unauthorized("this is not the token of that host")
    return Context(host=name)


@pytest.fixture
def app() -> App:
    policies = Policies({"things:show": "role:reader or role:member", "things:create": "role:member"})
    return App(
        "things",
        ROUTES,
        db=Database(databases.url(), LocalBus()),
        config=Config(),
        policies=policies,
        caller=Caller(user, host),
        render_error=render_error,
        versions=Versions("compute", (2, 1), (2, 9), "X-OpenStack-Nova-API-Version"),
    )


def render_error(error: ApiError) -> tuple[bytes, str]:
    return schema.encode({"error": error.message, "kind": error.kind}), "application/json"


def call(
    app: App, method: str, url: str, body: Any = None, token: str = "alice", **headers: str
) -> tuple[int, Any]:
    sent = {"X-Auth-Token": token} if token else {}
    status, data, _ = app.call(method, url, body, {**sent, **{k.replace("_", "-"): v for k, v in headers.items()}})
    return status, data


def test_a_route_gets_its_parameters_and_its_caller(app: App) -> None:
    assert call(app, "GET", "/things/7") == (200, {"id": "7", "project": "p1", "name": None})
    assert call(app, "GET", "/things/detail")[1] == {"detail": True}
    assert call(app, "GET", "/files/a/b/c")[1] == {"path": "a/b/c"}


def test_no_token_a_bad_one_and_a_role_that_is_not_enough(app: App) -> None:
    status, _, headers = app.call("GET", "/things/7")
    assert status == 401
    assert headers["WWW-Authenticate"].startswith("Keystone uri=")
    assert call(app, "GET", "/things/7", token="nobody")[0] == 401
    assert call(app, "POST", "/things", {"name": "x"}, token="reader")[0] == 403
    assert call(app, "POST", "/things", {"name": "x"}) == (201, {"name": "x", "size": 0})


def test_headers_that_name_a_user_are_not_believed(app: App) -> None:
    status, _, _ = app.call(
        "GET", "/things/7", headers={"X-User-Id": "u1", "X-Roles": "admin", "X-Project-Id": "p1"}
    )
    assert status == 401


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({"nome": "x"}, "nome"),
        ({"name": 5}, "name"),
        (b"{", "Malformed"),
        ({"name": "x", "size": "y"}, "size"),
        (b"", "body"),
    ],
)
def test_a_bad_body_is_a_400_that_names_what_is_wrong(app: App, body: Any, word: str) -> None:
    status, data = call(app, "POST", "/things", body)
    assert status == 400
    assert word in data["error"]


def test_numbers_may_come_as_text(app: App) -> None:
    assert call(app, "POST", "/things", {"name": "x", "size": "3"})[1]["size"] == 3


def test_unknown_urls_and_methods(app: App) -> None:
    assert call(app, "GET", "/nothing")[0] == 404
    status, _, headers = app.call("DELETE", "/things/detail", headers={"X-Auth-Token": "alice"})
    assert (status, headers["Allow"]) == (405, "GET")


def test_errors_are_rendered_and_bugs_tell_nothing(app: App, caplog: pytest.LogCaptureFixture) -> None:
    assert call(app, "GET", "/fail/conflict") == (409, {"error": "taken", "kind": "Conflict"})
    assert call(app, "GET", "/fail/race")[0] == 503
    status, data = call(app, "GET", "/fail/bug")
    assert status == 500
    assert "secret" not in str(data)
    assert "secret detail" in caplog.text


def test_microversions_are_chosen_echoed_and_bounded(app: App) -> None:
    def ask(version: str) -> tuple[int, Any]:
        return call(app, "GET", "/versioned", OpenStack_API_Version=f"compute {version}")

    assert ask("2.5")[1] == {"old": 1, "new": 2}
    assert ask("2.4")[1] == {"old": 1}
    assert ask("latest")[1] == {"old": 1, "new": 2}
    assert call(app, "GET", "/versioned")[1] == {"old": 1}
    assert ask("2.10")[0] == 406
    assert ask("two")[0] == 400
    _, _, headers = app.call("GET", "/versioned", headers={"X-OpenStack-Nova-API-Version": "2.6"})
    assert headers["OpenStack-API-Version"] == "compute 2.6"
    assert call(app, "GET", "/late")[0] == 404


def test_actions_share_a_url_and_have_policies_of_their_own(app: App) -> None:
    assert call(app, "POST", "/things/7/action", {"stop": None}) == (202, {"did": "stop"})
    assert call(app, "POST", "/things/7/action", {"start": None}, token="reader")[0] == 403
    assert call(app, "POST", "/things/7/action", {"fly": None})[0] == 400
    assert call(app, "POST", "/things/7/action", {"stop": None, "start": None})[0] == 400


def test_a_host_speaks_for_itself_only(app: App) -> None:
    good = {"X_Cumulet_Host": "h1", "X_Cumulet_Host_Token": "token-of-h1"}
    assert call(app, "GET", "/hosts/h1/work", token="", **good) == (200, {"host": "h1"})
    assert call(app, "GET", "/hosts/h2/work", token="", **good)[0] == 403
    assert call(app, "GET", "/hosts/h1/work")[0] == 401


def test_request_ids_are_given_and_taken(app: App) -> None:
    _, _, headers = app.call("GET", "/things/detail")
    assert headers["X-Openstack-Request-Id"].startswith("req-")


def test_over_asgi_bodies_stream_and_long_ones_are_refused(app: App) -> None:
    client = TestClient(app, raise_server_exceptions=False)
    sent = client.put("/things/7/data", content=b"x" * 3_000_000, headers={"X-Auth-Token": "alice"})
    assert sent.json() == {"size": 3_000_000, "project": "p1"}
    assert client.put("/things/7/data", content=b"x").status_code == 401
    refused = client.post("/things", content=b"x" * 2_000_000, headers={"X-Auth-Token": "alice"})
    assert refused.status_code == 413
    assert client.get("/things/%2e%2e").status_code == 401


def test_the_api_describes_itself(app: App) -> None:
    document = call(app, "GET", "/openapi.json")[1]
    assert document["paths"]["/things"]["post"]["x-policies"] == ["things:create"]
    assert "Wish" in document["components"]["schemas"]
    assert "/hosts/{host}/work" not in document["paths"]


def test_the_api_describes_its_answers(app: App) -> None:
    """By what a handler returns, what checks before it answer, and what a route says itself."""
    document = call(app, "GET", "/openapi.json")[1]
    paths, errors = document["paths"], document["components"]["responses"]
    assert paths["/inventions"]["delete"]["responses"]["204"] == {"description": "done"}
    made = paths["/inventions"]["post"]["responses"]
    assert made["201"]["content"]["application/json"]["schema"] == {"type": "object"}
    assert set(made) == {"201", "400", "401", "403", "404", "406", "409", "413", "415", "503"}
    assert made["415"] == {"$ref": "#/components/responses/415"}
    error = errors["415"]["content"]["application/json"]["schema"]
    assert error["properties"] == {"error": {"type": "string"}, "kind": {"type": "string"}}
    actions = paths["/things/{id}/action"]["post"]["requestBody"]["content"]["application/json"]["schema"]["anyOf"]
    assert [each["required"] for each in actions] == [["stop"], ["start"]]
    sent = paths["/things/{id}/data"]["put"]["requestBody"]["content"]
    assert list(sent) == ["application/octet-stream"]


def test_a_rule_that_nobody_defined_is_said_at_the_start(app: App) -> None:
    routes = [Route("GET", "/other", lambda request: {}, "things:forgotten")]
    with pytest.raises(PolicyError, match="things:forgotten"):
        App(
            "x",
            routes,
            db=app.db,
            config=app.config,
            policies=app.policies,
            caller=Caller(user, host),
            render_error=render_error,
        )
