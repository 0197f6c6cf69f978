"""Bundles: the texts of policies with their data, and the revision that follows from them.

A folder holds one, a message on the bus another; whoever has two bundles of one revision has the same policies twice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from convergedon.core.errors import Misconfigured

TESTS = "_test.rego"


@dataclass(frozen=True)
class Bundle:
    """The texts of policies and their data, by path below the policy folder."""

    policies: Mapping[str, str]
    data: Mapping[str, Any]
    revision: str = field(default="")

    @property
    def in_force(self) -> Bundle:
        """The same without its tests."""
        return replace(self, policies={path: text for path, text in self.policies.items() if not path.endswith(TESTS)})


def bundle(policies: Mapping[str, str], data: Mapping[str, Any]) -> Bundle:
    """With the revision that follows from the content."""
    content = json.dumps([policies, data], sort_keys=True).encode()
    return Bundle(policies, data, hashlib.sha256(content).hexdigest()[:12])


def read(folder: Path | None = None) -> Bundle:
    """Read the policies of a folder, or those that ship. Raises Misconfigured when it has none."""
    root = folder or files("convergedon.policies")
    data = root / "data.json"
    try:
        policies = dict(_texts(root)) if root.is_dir() else {}
        values = json.loads(data.read_text()) if data.is_file() else {}
    except UnicodeDecodeError as error:
        raise Misconfigured(f"a policy in {root} is not UTF-8: {error}") from error
    except ValueError as error:
        raise Misconfigured(f"{data} is not JSON: {error}") from error
    except OSError as error:
        raise Misconfigured(f"the policies in {root} cannot be read: {error.strerror}: {error.filename}") from error
    if not policies:
        raise Misconfigured(f"no policies (*.rego) in {root}")
    if not isinstance(values, dict):
        raise Misconfigured(f"{data} must hold an object")
    return bundle(policies, values)


def _texts(folder: Any, prefix: str = "") -> Sequence[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        path = f"{prefix}{entry.name}"
        if isinstance(entry, Path) and entry.is_symlink() and entry.is_dir():
            continue  # it may lead back to where it stands
        if entry.is_dir():
            found.extend(_texts(entry, f"{path}/"))
        elif path.endswith(".rego"):
            found.append((path, entry.read_text()))
    return found


def write(bundle: Bundle, folder: Path) -> None:
    """Lay a bundle into an empty folder. Raises Misconfigured."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise Misconfigured(f"{folder} is not empty: name a new folder")
        for path, text in bundle.policies.items():
            file = folder / path
            if not file.resolve().is_relative_to(folder.resolve()):
                raise Misconfigured(f"the bundle has a file outside of its folder: {path}")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        (folder / "data.json").write_text(json.dumps(bundle.data, indent=2) + "\n")
    except OSError as error:
        raise Misconfigured(f"{folder} cannot be written: {error.strerror}") from error
