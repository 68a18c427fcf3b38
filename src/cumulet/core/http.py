"""Routing, and the checks that no handler can forget.

A route names its policy; there is no default, so an unprotected URL has to say ``PUBLIC``.  Handlers are plain
synchronous functions: they get a ``Request`` with a parsed body, return plain data (or a ``Reply``) and raise
``ApiError``; JSON, status codes, tokens, request ids, microversions and errors are this module's business only.
Routes with ``streams`` are ``async`` and move bytes without holding them.
"""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from msgspec import Struct
from msgspec.structs import replace
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from cumulet.core import access, asgi, microversion, openapi, routing, schema
from cumulet.core.config import Config
from cumulet.core.context import REQUEST_ID, Context, new_request_id
from cumulet.core.db import Database
from cumulet.core.errors import (
    ApiError,
    BadRequest,
    Forbidden,
    MethodNotAllowed,
    NotFound,
    Retry,
    Unauthorized,
    Unavailable,
)
from cumulet.core.metrics import REQUEST_SECONDS, REQUESTS
from cumulet.core.policy import AUTHENTICATED, HOST, PUBLIC, Policies, PolicyError

LOG = logging.getLogger(__name__)
ACCESS = logging.getLogger("cumulet.access")
Json = dict[str, Any]
T = TypeVar("T")
LONGEST_BODY = 1024 * 1024
MOST_PARAMETERS = 1000
TRIES = 5
"""How often what lost a race, or its database connection, (``Retry``) is called before the caller is asked to."""


class Reply(Struct, frozen=True):
    """An answer that is more than data.  ``data`` is JSON, unless it is ``bytes`` with a ``content_type``."""

    data: Any = None
    status: int = 0  # 0: the route's
    headers: Mapping[str, str] = {}
    content_type: str = "application/json"
    stream: AsyncIterator[bytes] | None = None


@dataclass(frozen=True)
class Route:
    """One line of an API.  ``action`` tells apart what is posted to one URL by the body's only key.

    ``body`` is a msgspec type; without it the handler's ``body`` is ``None``.  ``since`` and ``until`` bound
    the microversions in which the route exists.  ``also`` are statuses that it answers beside ``status`` and
    what others of its kind do: ``/openapi.json`` tells them.
    """

    method: str
    path: str
    handler: Callable[["Request"], Any]
    policy: str
    status: int = 200
    body: Any = None
    response: Any = None
    also: tuple[int, ...] = ()
    action: str = ""
    since: microversion.Version | None = None
    until: microversion.Version | None = None
    streams: bool = False
    longest_body: int = LONGEST_BODY
    hides: bool = False  # its URL holds a secret: logs show its pattern

    def exists_at(self, version: microversion.Version) -> bool:
        return (self.since is None or version >= self.since) and (self.until is None or version <= self.until)


@dataclass(frozen=True)
class Caller:
    """How an app finds out who is calling; both raise Unauthorized."""

    user: Callable[[str], Context]  # from a token
    host: Callable[[str, str], Context]  # from a host's name and its token


@dataclass
class Request:
    """What a handler gets.  ``params`` are the URL's parts, ``query`` its pairs in order."""

    app: "App"
    method: str
    path: str
    headers: Mapping[str, str]  # names in lower case
    params: dict[str, str] = field(default_factory=dict)
    query: Sequence[tuple[str, str]] = ()
    context: Context = field(default_factory=Context)
    body: Any = None
    version: microversion.Version = (0, 0)
    client: str = ""
    raw: bytes = b""
    routes: Sequence[Route] = ()  # those of its URL and method
    http: HttpRequest | None = None
    legacy: bool = False  # came by a root of old, where microversions are not known

    @property
    def db(self) -> Database:
        return self.app.db

    @property
    def config(self) -> Config:
        return self.app.config

    @property
    def shown_path(self) -> str:
        """Its path as logs may have it."""
        return next((route.path for route in self.routes if route.hides), self.path)

    def one(self, name: str) -> str | None:
        """The last value of a query parameter."""
        return next((value for key, value in reversed(self.query) if key == name), None)

    def many(self, name: str) -> list[str]:
        return [value for key, value in self.query if key == name]

    def allows(self, rule: str, target: Mapping[str, Any] | None = None) -> bool:
        """Whether the policy lets the caller do this to ``target`` (default: a thing of their own)."""
        return self.app.policies.allows(rule, self.context, self._target(target))

    def enforce(self, rule: str, target: Mapping[str, Any] | None = None) -> None:
        self.app.policies.enforce(rule, self.context, self._target(target))

    def _target(self, target: Mapping[str, Any] | None) -> Mapping[str, Any]:
        return self.app.own_target(self.context) if target is None else target

    def stream(self) -> AsyncIterator[bytes]:
        """The body's bytes as they arrive; for routes with ``streams``."""
        assert self.http is not None
        return self.http.stream()

    async def run(self, work: Callable[..., T], *args: Any) -> T:
        """Call something that blocks (the database, a file) from an ``async`` handler."""
        return await self.app.run(self.app.insist, self, work, *args)


def own(context: Context) -> Json:
    """The target of a thing that the caller owns."""
    return {
        "project_id": context.project_id,
        "tenant_id": context.project_id,
        "user_id": context.user_id,
        "domain_id": context.domain_id,
    }


class App:
    """One API: the sum of its routes.  An ASGI application, and a function (``answer``) for tests."""

    def __init__(
        self,
        name: str,
        routes: Iterable[Route],
        *,
        db: Database,
        config: Config,
        policies: Policies,
        caller: Caller,
        render_error: Callable[[ApiError], tuple[bytes, str]],
        versions: microversion.Versions | None = None,
        endpoint: str = "",
        extras: Any = None,
        own_target: Callable[[Context], Json] = own,
        workers: int = 16,
        slash_ends: bool = True,
        request_id_header: str = "",
        legacy_roots: Mapping[str, str] | None = None,
    ) -> None:
        """``legacy_roots``: the first part of a path, and which stands for it where no route is found; there
        every request is of the minimum version, whatever its headers say."""
        self.name, self.db, self.config, self.policies = name, db, config, policies
        self.versions, self.endpoint, self.extras, self.own_target = versions, endpoint, extras, own_target
        self.routes = [*routes, Route("GET", "/openapi.json", _openapi, PUBLIC)]
        unknown = {route.policy for route in self.routes} - {PUBLIC, AUTHENTICATED, HOST} - set(policies.texts)
        if unknown:
            raise PolicyError(f"{name}: routes name rules that nobody has defined: {', '.join(sorted(unknown))}")
        self._caller, self.render_error = caller, render_error
        self._tree = routing.tree(self.routes)
        self._workers, self._losers = workers, threading.Lock()
        self._request_id_headers = ["X-Openstack-Request-Id", *([request_id_header] if request_id_header else [])]
        self._legacy_roots = legacy_roots or {}
        self._slash_ends = slash_ends  # whether "/things/" is "/things", or a thing with an empty name
        self._pool: ThreadPoolExecutor | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        method, path, headers, query, client = asgi.parts(scope)
        request = Request(self, method, path, headers, query=query, client=client)
        try:
            self._find(request)
            if any(route.streams for route in request.routes):
                request.http = HttpRequest(scope, receive)
                reply = await self._answer_stream(request)
            else:
                longest = max(route.longest_body for route in request.routes)
                request.raw = await asgi.read_body(receive, longest)
                reply = await self.run(self.answer, request)
        except ApiError as error:
            reply = self._failed(request, error)
        except ClientDisconnect:
            return
        if reply.stream is not None:
            headers = {**reply.headers, "Date": asgi.date().decode()}
            response = StreamingResponse(reply.stream, reply.status, headers, reply.content_type)
            await response(scope, receive, send)
        else:
            await asgi.send_answer(send, reply.status, reply.headers, _bytes(reply), reply.content_type)

    async def run(self, work: Callable[..., T], *args: Any) -> T:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix=self.name)
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *args)

    def rest(self) -> None:
        """End the threads that answer; the next request makes new ones."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def call(
        self, method: str, url: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any, Mapping[str, str]]:
        """One request, in process: status, JSON (or bytes), headers.  For tests and for the simulated cloud."""
        path, _, query = url.partition("?")
        request = Request(self, method, path, {k.lower(): v for k, v in (headers or {}).items()})
        request.query = parse_qsl(query, keep_blank_values=True)
        request.raw = body if isinstance(body, bytes) else b"" if body is None else schema.encode(body)
        try:
            self._find(request)
            reply = self.answer(request)
        except ApiError as error:
            reply = self._failed(request, error)
        data = _bytes(reply)
        decoded = schema.decode(data, object) if data and "json" in reply.content_type else data
        return reply.status, decoded, reply.headers

    def answer(self, request: Request) -> Reply:
        """Answer one request whose body has been read.  Never raises."""
        started = time.perf_counter()
        route: Route | None = None
        try:
            route = self.insist(request, self._admit, request)
            if request.raw and route.body is not None:
                request.body = schema.decode(request.raw, route.body)
            elif route.body is not None:
                raise BadRequest("the request has no body", kind="HTTPBadRequest")
            reply = self._finish(request, route, self.insist(request, route.handler, request))
        except ApiError as error:
            reply = self._failed(request, error)
        except Exception:
            LOG.exception("%s %s failed", request.method, request.shown_path)
            reply = self._failed(request, _unexpected())
        self._account(request, route, reply.status, started)
        return reply

    async def _answer_stream(self, request: Request) -> Reply:
        started = time.perf_counter()
        route: Route | None = None
        try:
            route = await request.run(self._admit, request)
            result = route.handler(request)
            result = await result if isinstance(result, Awaitable) else result
            reply = self._finish(request, route, result)
        except ApiError as error:
            reply = self._failed(request, error)
        except (ClientDisconnect, asyncio.CancelledError):
            raise
        except Exception:
            LOG.exception("%s %s failed", request.method, request.shown_path)
            reply = self._failed(request, _unexpected())
        self._account(request, route, reply.status, started)
        return reply

    def _find(self, request: Request) -> None:
        """Fill in the URL's ``params`` and all ``routes`` of URL and method.  NotFound or MethodNotAllowed."""
        if len(request.path) > 4096 or "\0" in request.path or len(request.query) > MOST_PARAMETERS:
            raise BadRequest(f"the URL is too long, has more than {MOST_PARAMETERS} parameters, or a NUL in it")
        parts = [part for part in request.path.split("/") if part]
        node, values = routing.descend(self._tree, parts)
        if node is None and parts and parts[0] in self._legacy_roots:
            request.legacy = True
            node, values = routing.descend(self._tree, [self._legacy_roots[parts[0]], *parts[1:]])
        if not self._slash_ends and len(parts) > 1 and request.path.endswith("/"):
            node = None
        if node is None:
            raise NotFound("The resource could not be found.", kind="HTTPNotFound")
        method = "GET" if request.method == "HEAD" and "HEAD" not in node.routes else request.method
        routes = node.routes.get(method)
        if not routes and request.path.endswith("/"):  # a thing with an empty name
            raise NotFound("The resource could not be found.", kind="HTTPNotFound")
        if not routes:
            allowed = ", ".join(sorted(node.routes))
            raise MethodNotAllowed("The method is not allowed for this URL.", headers={"Allow": allowed})
        request.params = dict(zip(node.names[method], values, strict=True))
        request.routes = routes

    def _admit(self, request: Request) -> Route:
        """Who is it, in which version, which route, and may they?"""
        incoming = request.headers.get("x-openstack-request-id", "")
        request.context = Context(request_id=new_request_id(), global_request_id=_request_id(incoming))
        REQUEST_ID.set(request.context.request_id)
        routes = request.routes
        if any(route.policy != PUBLIC for route in routes):
            request.context = self._authenticate(request, routes[0].policy)
        if self.versions:
            legacy = request.legacy
            request.version = self.versions.minimum if legacy else self.versions.choose(request.headers)
        route = self._choose(request, routes)
        if route.policy not in (PUBLIC, AUTHENTICATED, HOST):
            request.enforce(route.policy)
        return route

    def _authenticate(self, request: Request, policy: str) -> Context:
        if policy == HOST:
            host = request.headers.get("x-cumulet-host", "")
            who = self._caller.host(host, request.headers.get("x-cumulet-host-token", ""))
            if request.params.get("host", host) != host:
                raise Forbidden(f"a host may speak for itself only, {host!r} is not {request.params['host']!r}")
        else:
            token = request.headers.get("x-auth-token", "")
            if not token:
                raise Unauthorized("The request you have made requires authentication.")
            who = self._caller.user(token)
            access.check(who, self.name, request.method, request.path)
        ids = request.context
        return replace(who, request_id=ids.request_id, global_request_id=ids.global_request_id)

    def _choose(self, request: Request, routes: Sequence[Route]) -> Route:
        routes = [route for route in routes if route.exists_at(request.version)]
        if len(routes) == 1 and not routes[0].action:
            return routes[0]
        actions = schema.decode(request.raw, dict[str, Any]) if any(route.action for route in routes) else {}
        for route in routes:
            if not route.action or (route.action in actions and len(actions) == 1):
                return route
        if routes:
            raise BadRequest(f"There is no such action: {', '.join(actions) or 'none given'}")
        raise NotFound("The resource could not be found.", kind="HTTPNotFound")

    def insist(self, request: Request, work: Callable[..., T], *args: Any) -> T:
        """Call ``work`` again as long as it loses (``Retry``): nothing of what it tried lasts.

        Who has lost goes in single file: all at once would let one of them win, time after time.
        """
        for attempt in range(TRIES):
            try:
                with self._losers if attempt else nullcontext():
                    return work(*args)
            except Retry as reason:
                LOG.info("%s %s lost a race (%s), try %d", request.method, request.shown_path, reason, attempt + 1)
                last = reason
        raise Unavailable(f"too many others change the same thing at once: {last}")

    def _finish(self, request: Request, route: Route, result: Any) -> Reply:
        headers = self._headers(request)
        if not isinstance(result, Reply):
            return Reply(result, route.status, headers)
        return replace(result, status=result.status or route.status, headers=headers | dict(result.headers))

    def _failed(self, request: Request, error: ApiError) -> Reply:
        if not request.context.request_id:
            request.context = Context(request_id=new_request_id())
        body, content_type = self.render_error(error)
        headers = {**self._headers(request), **error.headers}
        if error.status == 401:
            headers.setdefault("WWW-Authenticate", f'Keystone uri="{self.config.keystone_url}"')
        return Reply(body, error.status, headers, content_type)

    def _headers(self, request: Request) -> dict[str, str]:
        headers = dict.fromkeys(self._request_id_headers, request.context.request_id)
        if self.versions and request.version != (0, 0) and not request.legacy:
            headers.update(self.versions.echo(request.version))
        return headers

    def _account(self, request: Request, route: Route | None, status: int, started: float) -> None:
        seconds, path = time.perf_counter() - started, route.path if route else "unknown"
        REQUESTS.labels(request.method, path, str(status)).inc()
        REQUEST_SECONDS.labels(path).observe(seconds)
        who = request.context.project_id or request.context.host or "-"
        ACCESS.info("%s %s %d %.1f ms %s", request.method, request.shown_path, status, seconds * 1000, who)


def _openapi(request: Request) -> Json:
    """This API, described."""
    return openapi.document(request.app)


def _bytes(reply: Reply) -> bytes:
    if reply.data is None:
        return b""
    return reply.data if isinstance(reply.data, bytes) else schema.encode(reply.data)


def _request_id(text: str) -> str:
    """A request id given by the caller, if it looks like one."""
    good = len(text) == 40 and text.startswith("req-") and all(c in "0123456789abcdef-" for c in text[4:])
    return text if good else ""


def _unexpected() -> ApiError:
    return ApiError("An unexpected error prevented the server from fulfilling your request.")
