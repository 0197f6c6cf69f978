"""NETCONF messages in a stream of octets (RFC 6242): with an end mark, and in chunks."""

from __future__ import annotations

import re


def delimited(received: bytes) -> tuple[bytes | None, bytes]:
    message, delimiter, rest = received.partition(b"]]>]]>")
    return (message.strip(), rest) if delimiter else (None, received)


_CHUNK = re.compile(rb"\n#([1-9]\d{0,9})\n")


def chunked(received: bytes) -> tuple[bytes | None, bytes]:
    parts: list[bytes] = []
    at = 0
    while True:
        if parts and received.startswith(b"\n##\n", at):
            return b"".join(parts), received[at + 4 :]
        head = _CHUNK.match(received, at)
        if head is None:
            if len(received) - at >= 14 and not received.startswith(b"\n##", at):
                raise OSError("the peer breaks the chunked framing")
            return None, received
        end = head.end() + int(head[1])
        if end > len(received):
            return None, received
        parts.append(received[head.end() : end])
        at = end
