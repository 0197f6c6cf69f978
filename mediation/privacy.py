"""What policies oblige to do about personal data before anything is told: members taken away, texts masked.

``redact`` are paths of members below the resource that is told; a path leads through lists and ends at what is taken
away. ``mask`` are kinds of texts, which are masked wherever they stand. Who is told of itself keeps what is said of it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from convergedon.core.errors import Unavailable

MASKS: Mapping[str, re.Pattern[str]] = {
    "email": re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"),
    "iban": re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b"),
    "phone": re.compile(
        r"(?<![\w./:+-])(?:(?:\+|00)[1-9](?:[ ()/-]{0,2}\d){6,14}|\(?0\d{2,5}\)?[ /-]\d{3,}(?:[ -]?\d+)*)(?![\w:-])"
    ),
}
"""Kinds of texts, in the order in which they are looked for: an account number may look like a telephone number."""
NAMES = frozenset({"id", "href"})
"""Members that lead to things. A telephone number is not looked for there: an identifier may well look like one."""


def private(body: Mapping[str, Any], obligations: Mapping[str, Any], own: Collection[str] = ()) -> dict[str, Any]:
    """What may be told of a resource. ``own`` are the parties that are told, and keep what is said of them.

    Raises Unavailable for what cannot be carried out: then it is not told.
    """
    unknown = set(obligations.get("mask", ())) - MASKS.keys()
    if unknown:
        raise Unavailable(f"the policy obliges to mask {', '.join(sorted(unknown))}, which nobody here can")
    told: Any = body
    for path in obligations.get("redact", ()):
        told = _without(told, path.split("."), own)
    return dict(_masked(told, [kind for kind in MASKS if kind in obligations.get("mask", ())], own))


def _without(value: Any, path: Sequence[str], own: Collection[str]) -> Any:
    if isinstance(value, list):
        return [_without(one, path, own) for one in value]
    if not isinstance(value, dict) or path[0] not in value or _is_of(value, own):
        return value
    if len(path) == 1:
        return {name: inner for name, inner in value.items() if name != path[0]}
    return {**value, path[0]: _without(value[path[0]], path[1:], own)}


def _is_of(value: Mapping[str, Any], own: Collection[str]) -> bool:
    """Whether an object speaks of one of these parties: by its id, or by that of the party that it encloses."""
    party = value.get("partyOrPartyRole")
    return value.get("id") in own or (isinstance(party, dict) and party.get("id") in own)


def _masked(value: Any, kinds: Sequence[str], own: Collection[str], name: str = "") -> Any:
    if isinstance(value, str):
        return masked(value, [kind for kind in kinds if kind != "phone" or name not in NAMES])
    if isinstance(value, list):
        return [_masked(one, kinds, own, name) for one in value]
    if isinstance(value, dict) and not _is_of(value, own):
        return {key: _masked(inner, kinds, own, key) for key, inner in value.items()}
    return value


def masked(text: str, kinds: Collection[str]) -> str:
    """A text with what is of these kinds in it replaced by the kind's name."""
    for kind, pattern in MASKS.items():
        if kind in kinds:
            text = pattern.sub(f"[{kind}]", text)
    return text
