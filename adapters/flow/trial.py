"""How the flow adapter is tried: by datagrams."""

from __future__ import annotations

from importlib.resources import files

from convergedon.adapters.testing import Trial

TRIAL = Trial(golden=files("convergedon.adapters.flow") / "golden")
