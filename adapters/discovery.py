"""Which adapters there are: the packages beside this module, and those that other distributions bring."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping
from importlib.metadata import distribution, entry_points
from typing import Any

import convergedon.adapters
from convergedon.adapters.contract import Adapter, Device
from convergedon.core import plugins
from convergedon.core.errors import Misconfigured
from convergedon.core.settings import Settings

GROUP = "convergedon.adapters"
KIT = "testing"
"""The package beside the adapters that is none."""
Factory = Callable[[Settings, Mapping[str, Device]], Adapter]


def adapters() -> dict[str, Factory]:
    """Every adapter's factory by its name. An adapter is imported when its factory is called, not before.

    Ours are the packages below convergedon.adapters (a lab is a module inside one, so it is none). Raises
    Misconfigured when another distribution takes a name that is taken.
    """
    ours = {
        module.name: f"convergedon.adapters.{module.name}"
        for module in pkgutil.iter_modules(convergedon.adapters.__path__)
        if module.ispkg and module.name != KIT
    }
    return plugins.factories("adapter", GROUP, ours)


def require(name: str) -> Factory:
    """The factory of an installed adapter. Raises Misconfigured, naming those that are installed."""
    known = adapters()
    if name not in known:
        raise Misconfigured(f"there is no adapter {name}; installed are {', '.join(sorted(known))}")
    return known[name]


def origin(name: str) -> dict[str, Any]:
    """Which distribution brings an adapter."""
    brought = {entry.name: entry.dist for entry in entry_points(group=GROUP)}
    dist = brought.get(name) or distribution("convergedon")
    return {"name": name, "version": dist.version, "distribution": dist.name}


def listed(settings: Settings) -> list[dict[str, Any]]:
    """What is installed: each adapter's name, distribution and version, and what it says of itself.

    One that cannot be made says why.
    """
    found = []
    for name, create in sorted(adapters().items()):
        about = dict(origin(name))
        try:
            adapter = create(settings, {})
            offers = sorted(getattr(adapter, "offers", ()))
            about |= {"performs": adapter.performs, "capabilities": offers, "words": ""}
        except Misconfigured as error:
            about |= {"performs": None, "capabilities": [], "words": str(error)}
        found.append(about)
    return found
