"""Bytes in both directions, until either side has enough."""

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect


async def first_of(one: Coroutine[Any, Any, None], other: Coroutine[Any, Any, None]) -> None:
    """Run both; when one ends, or fails because its side has gone, the other is stopped."""
    tasks = [asyncio.create_task(one), asyncio.create_task(other)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    for error in ended:
        if isinstance(error, Exception) and not isinstance(error, OSError | WebSocketDisconnect):
            raise error


async def receive(socket: WebSocket) -> bytes | None:
    """The next message; None when the other side has closed, or speaks in text."""
    message = await socket.receive()
    data: bytes | None = message.get("bytes") if message["type"] == "websocket.receive" else None
    return data


async def close(socket: WebSocket) -> None:
    """Say good-bye, to one who may have gone."""
    with contextlib.suppress(RuntimeError, OSError, WebSocketDisconnect):
        await socket.close()
