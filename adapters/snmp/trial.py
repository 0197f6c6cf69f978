"""How the SNMP adapter is tried: by datagrams, and by its mapping."""

from __future__ import annotations

from importlib.resources import files

from convergedon.adapters.snmp import mapping
from convergedon.adapters.testing import Trial

TRIAL = Trial(golden=files("convergedon.adapters.snmp") / "golden", mapping=("snmp.yaml", mapping.SHIPPED))
