"""What goes wrong on a lab element, given to it as a list: a test says where on the line something breaks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lxml import etree  # type: ignore[import-untyped]

from convergedon.adapters.netconf.lab.messages import NC

FaultKind = Literal["refuse", "delay", "silence", "drop-before", "drop-after", "ignore", "garble"]


@dataclass
class Fault:
    """Something that goes wrong the next ``times`` an RPC comes.

    ``rpc`` is the operation's name; a commit that opens a confirmed commit is called ``commit-confirmed``. refuse
    answers with an error, delay waits ``seconds``, silence never answers, drop-before cuts the connection before the
    RPC is done and drop-after when it is done and not yet answered, ignore answers ok and does nothing, garble answers
    what is not XML.
    """

    kind: FaultKind
    rpc: str
    times: int = 1
    seconds: float = 0.0
    words: str = "the element was told to refuse this"


def name_of(operation: etree._Element | None) -> str:
    """By which name faults know an operation."""
    if operation is None:
        return ""
    name = str(etree.QName(operation).localname)
    return "commit-confirmed" if name == "commit" and operation.find(f"{{{NC}}}confirmed") is not None else name
