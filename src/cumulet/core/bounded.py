"""HTTP/1.1 with a bound on what comes before a body.

uvicorn's parser takes a request line and headers of any length, from anybody, into memory.  Here a connection whose
head is longer than ``LONGEST_HEAD`` is answered 400 and closed.  Bodies are bounded where their routes are known.
"""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LONGEST_HEAD = 64 * 1024


class BoundedHttp(HttpToolsProtocol):
    _head = 0  # bytes of the present request's head so far
    _in_head = True

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head += len(data)
        super().data_received(data)
        if self._in_head and self._head > LONGEST_HEAD and not self.transport.is_closing():
            self.send_400_response(f"The head of a request has at most {LONGEST_HEAD} bytes.")

    def on_message_begin(self) -> None:
        self._in_head, self._head = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_head, self._head = True, 0
