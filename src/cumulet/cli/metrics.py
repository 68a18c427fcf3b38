"""cumulet-metrics: every service's Prometheus metrics on one URL, each line labelled with its service.

Services serve their own metrics on their status sockets; this one gathers them when it is scraped and holds
nothing itself.  A service that does not answer is ``cumulet_up{service=…} 0``.
"""

import asyncio
import re

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from cumulet.core.config import Config
from cumulet.core.controller import ControllerEnv
from cumulet.core.service import Service

SECONDS = 2.0
_LINE = re.compile(r"(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>.*)\})?(?P<rest> .+)")


def build(env: ControllerEnv) -> Service:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        path = Request(scope).url.path
        if path == "/metrics":
            response = Response(await gather(env.config), media_type="text/plain; version=0.0.4")
        else:
            response = Response("OK" if path == "/healthcheck" else "", 200 if path == "/healthcheck" else 404)
        await response(scope, receive, send)

    return Service(app)


async def gather(config: Config) -> str:
    """All metrics as one exposition; comments once for each metric."""
    texts = await asyncio.gather(*(_scrape(config, service.name) for service in config.services))
    comments: dict[str, None] = {}
    samples: list[str] = []
    for service, text in zip(config.services, texts, strict=True):
        samples.append(f'cumulet_up{{service="{service.name}"}} {int(bool(text))}')
        for line in text.splitlines():
            if line.startswith("#"):
                comments[line] = None
            elif match := _LINE.fullmatch(line):
                labels = ",".join(filter(None, (f'service="{service.name}"', match["labels"])))
                samples.append(f"{match['name']}{{{labels}}}{match['rest']}")
    return "\n".join([*comments, *sorted(samples)]) + "\n"


async def _scrape(config: Config, name: str) -> str:
    """A service's own exposition; empty if it does not answer in time."""
    try:
        async with asyncio.timeout(SECONDS):
            reader, writer = await asyncio.open_unix_connection(config.run / "status" / f"{name}.sock")
            writer.write(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")
            answer = await reader.read()
            writer.close()
    except (OSError, TimeoutError):
        return ""
    head, _, body = answer.partition(b"\r\n\r\n")
    return body.decode() if b" 200 " in head.split(b"\r\n")[0] else ""
