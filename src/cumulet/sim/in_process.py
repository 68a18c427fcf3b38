"""A service reached by a function call instead of a socket: the same routes, headers and errors."""

from collections.abc import Mapping

import msgspec

from cumulet.core.client import Controller
from cumulet.core.http import App


class InProcess(Controller):
    """``caller``: the host or service that asks, and shows ``token``."""

    def __init__(self, app: App, caller: str, token: str) -> None:
        super().__init__(app.name, "http://in-process", caller, token)
        self._app = app

    def _request(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, dict[str, str], bytes]:
        status, data, answered = self._app.call(method, path, body, {**self._headers(), **headers})
        raw = data if isinstance(data, bytes) else msgspec.json.encode(data)
        if status >= 400:
            self._refused(status, raw, path)
        return status, {key.lower(): value for key, value in answered.items()}, raw
