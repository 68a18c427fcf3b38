"""Websockets whose handshake cannot be read are refused.

uvicorn hands a request for one to a stricter parser than that of its own HTTP, and leaves the connection open, for
as long as the caller likes, if that one refuses it (a URL of more than 8 KB, say).
"""

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol


class BoundedWebsocket(WebSocketsSansIOProtocol):
    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.transport.is_closing():
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()
