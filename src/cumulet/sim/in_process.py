"""A service reached by a function call instead of a socket: the same routes, headers and errors."""

from collections.abc import Callable, Mapping

import msgspec

from cumulet.core.client import Controller
from cumulet.core.errors import Retry
from cumulet.core.http import App
from cumulet.sim.effects import Crash


class InProcess(Controller):
    """``caller``: the host or service that asks, and shows ``token``.

    Without ``died`` the caller dies with a service that dies.  With it, it is told which service that was, and the
    caller hears no answer, as from a socket.
    """

    def __init__(self, app: App, caller: str, token: str, died: Callable[[str], None] | None = None) -> None:
        super().__init__(app.name, "http://in-process", caller, token)
        self._app, self._died = app, died

    def _request(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, dict[str, str], bytes]:
        try:
            status, data, answered = self._app.call(method, path, body, {**self._headers(), **headers})
        except Crash:
            if self._died is None:
                raise
            self._died(self._app.name)
            raise Retry(f"{self._app.name} broke off") from None
        raw = data if isinstance(data, bytes) else msgspec.json.encode(data)
        if status >= 400:
            self._refused(status, raw, path)
        return status, {key.lower(): value for key, value in answered.items()}, raw
