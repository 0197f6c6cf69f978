"""What comes over a connection and is no request, or asks for another protocol: answered like every other mistake."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from convergedon.core.errors import Invalid
from convergedon.handlers.answers import refusal


class Wire(HttpToolsProtocol):
    """HTTP/1.1 as uvicorn reads it, with the TM Forum Error body for what it cannot read.

    A client that would like to go on in WebSocket is answered in HTTP (RFC 9110, 7.8): nothing is served in another.
    """

    def send_400_response(self, msg: str) -> None:
        refused = refusal(Invalid("this cannot be read as an HTTP/1.1 request with a known method"))
        headers = [*refused.raw_headers, (b"connection", b"close")]
        lines = [b"HTTP/1.1 400 Bad Request", *(b"%s: %s" % header for header in headers), b"", bytes(refused.body)]
        self.transport.write(b"\r\n".join(lines))
        self.transport.close()

    def _should_upgrade(self) -> bool:
        return False

    def _unsupported_upgrade_warning(self) -> None:
        """It is not worth a warning: the answer says what is served."""
