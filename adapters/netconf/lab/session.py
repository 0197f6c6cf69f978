"""One NETCONF session with a lab element."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lxml import etree  # type: ignore[import-untyped]

from convergedon.adapters.netconf.lab.framing import chunked, delimited
from convergedon.adapters.netconf.lab.messages import NC, parse, serialise

if TYPE_CHECKING:
    import asyncssh

LARGEST_MESSAGE = 16_777_216
FRAMING_1_1 = "urn:ietf:params:netconf:base:1.1"


@dataclass(eq=False)
class Session:
    """What a client has opened; whoever serves it reads its messages and writes answers."""

    id: int
    process: asyncssh.SSHServerProcess[bytes]
    chunked: bool = False
    closing: bool = False
    subscribed: bool = False
    buffer: bytearray = field(default_factory=bytearray)

    async def greet(self, capabilities: tuple[str, ...]) -> bool:
        """Exchange hellos and agree on a framing; whether the peer speaks NETCONF."""
        self.write(self._hello(capabilities))
        message = await self.read()
        try:
            hello = parse(message or b"")
        except etree.XMLSyntaxError:
            return False
        theirs = {(node.text or "").strip() for node in hello.iter(f"{{{NC}}}capability")}
        self.chunked = FRAMING_1_1 in theirs & set(capabilities)
        return bool(hello.tag == f"{{{NC}}}hello")

    def drop(self) -> None:
        self.closing = True
        self.process.get_extra_info("connection").abort()

    def write(self, message: bytes) -> None:
        framed = b"\n#%d\n%s\n##\n" % (len(message), message) if self.chunked else message + b"]]>]]>"
        self.process.stdout.write(framed)

    async def read(self) -> bytes | None:
        """Read one message; None when the peer has gone or breaks the framing (RFC 6242)."""
        while True:
            message, rest = (chunked if self.chunked else delimited)(bytes(self.buffer))
            if message is not None:
                self.buffer[:] = rest
                return message
            received = await self.process.stdin.read(65_536)
            if not received or len(self.buffer) > LARGEST_MESSAGE:
                return None
            self.buffer += received

    def _hello(self, capabilities: tuple[str, ...]) -> bytes:
        hello = etree.Element(f"{{{NC}}}hello", nsmap={None: NC})
        listed = etree.SubElement(hello, f"{{{NC}}}capabilities")
        for capability in capabilities:
            etree.SubElement(listed, f"{{{NC}}}capability").text = capability
        etree.SubElement(hello, f"{{{NC}}}session-id").text = str(self.id)
        return serialise(hello)
