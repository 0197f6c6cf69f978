"""Which kinds of channels there are: ours, and those that other distributions bring."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points

from convergedon.core.errors import Misconfigured
from convergedon.mediation.telling.channels.contract import Channel, Section

GROUP = "convergedon.channels"
OURS = ("email", "webhook")
Factory = Callable[[Section], Channel]


def kinds() -> dict[str, Factory]:
    """Every kind's factory by its name. A channel is imported when its factory is called, not before.

    Raises Misconfigured when another distribution takes a name that is taken.
    """
    found = {name: _ours(name) for name in OURS}
    for entry in entry_points(group=GROUP):
        if entry.name in found:
            raise Misconfigured(
                f"channel {entry.name} of {entry.value} has a name that is taken: uninstall one of the two"
            )
        found[entry.name] = _theirs(entry)
    return found


def _ours(name: str) -> Factory:
    def create(section: Section) -> Channel:
        made: Channel = importlib.import_module(f"convergedon.mediation.telling.channels.{name}").create(section)
        return made

    return create


def _theirs(entry: EntryPoint) -> Factory:
    def create(section: Section) -> Channel:
        try:
            factory = entry.load()
        except (ImportError, AttributeError) as error:
            raise Misconfigured(f"channel {entry.name} ({entry.value}) cannot be imported: {error}") from error
        made: Channel = factory(section)
        return made

    return create
