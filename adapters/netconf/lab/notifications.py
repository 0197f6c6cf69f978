"""The one stream of a lab element's notifications, and its replay (RFC 5277)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from datetime import UTC, datetime

from lxml import etree  # type: ignore[import-untyped]

from convergedon.adapters.netconf.lab.messages import NOTIFICATION, RpcError, told
from convergedon.adapters.netconf.lab.session import Session

STREAM = "NETCONF"
STREAMS = "urn:ietf:params:xml:ns:netmod:notification"
REPLAYED = 1_000


class Stream:
    """What was told, for those who ask for it later: as much as ``kept``, since the element started."""

    def __init__(self, kept: int = REPLAYED) -> None:
        self.told: deque[tuple[datetime, bytes]] = deque(maxlen=kept)
        self.replays = True
        self.created = datetime.now(UTC)
        self.aged: datetime | None = None
        """When the last that is forgotten was told."""

    def tell(self, content: etree._Element, sessions: Iterable[Session]) -> None:
        """Send a notification to whoever subscribed, and keep it."""
        now = datetime.now(UTC)
        message = told(now, content)
        if len(self.told) == self.told.maxlen:
            self.aged = self.told[0][0]
        self.told.append((now, message))
        for session in sessions:
            if session.subscribed and not session.closing:
                session.write(message)

    def subscribe(self, session: Session, operation: etree._Element) -> None:
        if session.subscribed:
            raise RpcError("operation-failed", "this session has a subscription", type_="protocol")
        stream = operation.findtext(f"{{{NOTIFICATION}}}stream", STREAM).strip()
        if stream != STREAM:
            raise RpcError("invalid-value", f"there is no stream {stream!r}", type_="protocol")
        since = operation.findtext(f"{{{NOTIFICATION}}}startTime")
        if since is not None and not self.replays:
            raise RpcError("operation-failed", "nothing is replayed here", type_="protocol")
        session.subscribed = True
        if since is not None:
            asyncio.get_running_loop().call_soon(self._replay, session, since.strip())  # after the answer

    def described(self) -> etree._Element:
        """What stands under /netconf/streams (RFC 5277, 3.2.5.1)."""
        netconf = etree.Element(f"{{{STREAMS}}}netconf", nsmap={None: STREAMS})
        stream = etree.SubElement(etree.SubElement(netconf, f"{{{STREAMS}}}streams"), f"{{{STREAMS}}}stream")
        said = {
            "name": STREAM,
            "description": "what this element tells by itself",
            "replaySupport": "true" if self.replays else "false",
            "replayLogCreationTime": self.created.isoformat(),
            "replayLogAgedTime": self.aged.isoformat() if self.aged else None,
        }
        for leaf, text in said.items():
            if text is not None:
                etree.SubElement(stream, f"{{{STREAMS}}}{leaf}").text = text
        return netconf

    def _replay(self, session: Session, since: str) -> None:
        for at, message in self.told:
            if at >= datetime.fromisoformat(since):
                session.write(message)
        session.write(told(datetime.now(UTC), etree.Element(f"{{{NOTIFICATION}}}replayComplete")))
