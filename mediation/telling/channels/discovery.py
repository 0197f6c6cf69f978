"""Which kinds of channels there are: ours, and those that other distributions bring."""

from __future__ import annotations

from collections.abc import Callable

from convergedon.core import plugins
from convergedon.mediation.telling.channels.contract import Channel, Section

GROUP = "convergedon.channels"
OURS = ("email", "webhook")
Factory = Callable[[Section], Channel]


def kinds() -> dict[str, Factory]:
    """Every kind's factory by its name. Raises Misconfigured when a name is taken twice."""
    return plugins.factories(
        "channel", GROUP, {name: f"convergedon.mediation.telling.channels.{name}" for name in OURS}
    )
