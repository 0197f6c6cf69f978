"""Runtime expressions: jq, as the DSL has it, less what would make a workflow unsafe or different when run again.

A workflow goes on from what is kept of it, so an expression must say the same each time: no clock, no input of its own,
no environment (which holds secrets). It must also end: what may run for ever, or as long as a hostile text takes, is no
part of it. What is left is checked before a definition is in force.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import jq  # type: ignore[import-not-found]
import orjson

from convergedon.core.errors import Invalid

MARK = re.compile(r"\s*\$\{(.*)\}\s*", re.DOTALL)
ALWAYS = ("context", "input", "output", "workflow", "task", "runtime")
"""Variables that every expression has."""
UNENDING = "def repeat while until recurse range foreach label limit combinations walk"
CHANGING = (
    "now localtime mktime strftime strflocaltime gmtime input inputs debug stderr input_line_number input_filename"
)
OUTSIDE = "env import include modulemeta get_search_list halt halt_error builtins"
MATCHING = "test match capture scan splits sub gsub"
REFUSED = frozenset(f"{UNENDING} {CHANGING} {OUTSIDE} {MATCHING}".split())
WORD = re.compile(r"\$ENV\b|\$__\w+|(?<![\w.$])[A-Za-z_]\w*")
LARGEST = 262_144
"""Bytes that the value of an expression may have."""


def is_expression(value: Any) -> bool:
    return isinstance(value, str) and MARK.fullmatch(value) is not None


def expressions(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every expression inside a value, with where it stands."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from expressions(inner, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from expressions(inner, f"{path}[{number}]")
    elif is_expression(value):
        yield path, value


def fault(expression: str, variables: Sequence[str] = ()) -> str:
    """What is wrong with an expression where these variables are known besides; empty when nothing is."""
    text = _text(expression)
    if used := sorted({word for word in WORD.findall(text) if word in REFUSED or word.startswith("$")}):
        return f"{used[0]} is not allowed in expressions"
    try:
        _program(text, tuple(sorted({*ALWAYS, *variables})))
    except ValueError as error:
        return str(error).splitlines()[0].removeprefix("jq: error: ").rstrip(":")
    return ""


def evaluate(value: Any, this: Any, variables: Mapping[str, Any]) -> Any:
    """A value with every expression inside it replaced by what it says of ``this`` (jq's dot).

    Raises Invalid for an expression that fails or says nothing, or more than one thing.
    """
    if isinstance(value, Mapping):
        return {name: evaluate(inner, this, variables) for name, inner in value.items()}
    if isinstance(value, list):
        return [evaluate(inner, this, variables) for inner in value]
    return _value(value, this, variables) if is_expression(value) else value


def _value(expression: str, this: Any, variables: Mapping[str, Any]) -> Any:
    text = _text(expression)
    known = {**dict.fromkeys(ALWAYS), **variables}
    try:
        found = _program(text, tuple(sorted(known))).input_value({**known, "this": this}).all()
    except ValueError as error:
        raise Invalid(f"{expression.strip()}: {error}") from None
    if len(found) != 1:
        raise Invalid(f"{expression.strip()}: it has {len(found)} values, and one is needed")
    if len(orjson.dumps(found[0])) > LARGEST:
        raise Invalid(f"{expression.strip()}: its value is larger than {LARGEST} bytes")
    return found[0]


def _text(expression: str) -> str:
    found = MARK.fullmatch(expression)
    return found[1].strip() if found else expression


@lru_cache(1024)
def _program(text: str, variables: tuple[str, ...]) -> Any:
    """Compiled once: what differs from one evaluation to the next comes with the input. Raises ValueError."""
    bound = ", ".join(f"${name}" for name in variables)
    return jq.compile(f". as {{{bound}}} | .this | ({text}\n)")
