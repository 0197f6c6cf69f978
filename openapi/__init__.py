"""Our OpenAPI documents, one for each API version.

A document is written with references into ``common.yaml``; ``document`` hands it out whole, as connexion
and the readers of ``openapi.json`` want it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import unquote

import yaml

try:
    from yaml import CSafeLoader as SafeLoader
except ImportError:  # PyYAML without libyaml
    from yaml import SafeLoader  # type: ignore[assignment]

COMMON = "common.yaml"
NAMES = tuple(
    sorted(
        file.name.removesuffix(".yaml")
        for file in files(__name__).iterdir()
        if file.name.endswith(".yaml") and file.name != COMMON
    )
)


@cache
def document(name: str) -> dict[str, Any]:
    """Read a document of ``NAMES``. It is shared by all callers: copy it before changing anything.

    What it uses of common.yaml is merged into its own components, so ``common.yaml#/...`` becomes ``#/...``.
    Schemas stay references: some are recursive.
    """
    found, common = _read(f"{name}.yaml"), _common()
    wanted = [reference for reference in _references(found) if reference.startswith(COMMON)]
    for path, item in found["paths"].items():
        if "$ref" in item:  # OpenAPI 3.0 has no components/pathItems: a shared path is copied into its place
            found["paths"][path] = _look_up(common, item["$ref"])
            wanted.extend(_references(found["paths"][path]))
    merged = set()
    while wanted:
        reference = wanted.pop().removeprefix(COMMON)
        if reference in merged or not reference.startswith("#/components/"):
            continue
        merged.add(reference)
        _, _, section, key = reference.split("/")
        part, own = _look_up(common, reference), found["components"].setdefault(section, {})
        if own.get(key, part) not in (part, {"$ref": COMMON + reference}):
            raise ValueError(f"{name}.yaml has a {key} of its own and uses the one of {COMMON} too")
        own[key] = part
        wanted.extend(_references(part))
    whole: dict[str, Any] = json.loads(json.dumps(found).replace(f'"{COMMON}#/', '"#/'))
    return whole


@cache
def _common() -> dict[str, Any]:
    return _read(COMMON)


def _read(file: str) -> dict[str, Any]:
    """By libyaml, where there is one: each process reads all documents when it starts, and it is ten times as fast."""
    read: dict[str, Any] = yaml.load(files(__name__).joinpath(file).read_text(encoding="utf-8"), SafeLoader)
    return read


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        node = list(node.values())
    if isinstance(node, list):
        for value in node:
            yield from _references(value)


def _look_up(tree: Any, reference: str) -> Any:
    """Follow a JSON pointer in a URI fragment (RFC 6901, section 6)."""
    for key in unquote(reference.partition("#/")[2]).split("/"):
        tree = tree[key.replace("~1", "/").replace("~0", "~")]
    return tree
