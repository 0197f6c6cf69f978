"""Whether a bundle is fit to be put in force: its tests, and what its authors agreed on for every policy."""

from __future__ import annotations

from convergedon.core.bundles import Bundle
from convergedon.core.engines import Embedded
from convergedon.core.errors import Unavailable


def run_tests(bundle: Bundle) -> list[tuple[str, bool]]:
    """Evaluate every rule ``test_*`` of the packages whose name ends in ``_test``: (name, passed)."""
    engine, results = Embedded(bundle), []
    for text in bundle.policies.values():
        lines = text.splitlines()
        package = next(line.split()[1] for line in lines if line.startswith("package "))
        names = {line.split()[0] for line in lines if line.startswith("test_")}
        if package.endswith("_test"):
            results += [(f"{package}.{name}", _passes(engine, f"data.{package}.{name}")) for name in sorted(names)]
    return results


def _passes(engine: Embedded, rule: str) -> bool:
    try:
        return engine.ask(rule, {}) is True
    except Unavailable:
        return False
