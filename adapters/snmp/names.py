"""How a mapping names things."""

from __future__ import annotations

from typing import Annotated

from pydantic import StringConstraints

Oid = Annotated[
    str,
    StringConstraints(pattern=r"^([0-2](\.(0|[1-9]\d*))+|[A-Z][A-Za-z0-9-]*::[a-z][A-Za-z0-9-]*(\.(0|[1-9]\d*))*)$"),
]
"""In numbers, or by name: IF-MIB::linkDown."""
Text = Annotated[str, StringConstraints(min_length=1)]
