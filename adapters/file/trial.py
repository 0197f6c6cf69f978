"""How the file adapter is tried: by files that are dropped into its folder."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from uuid import uuid4

from convergedon.adapters.testing import Trial

GOLDEN = files("convergedon.adapters.file") / "golden"
LONG_AGO = 60.0


def drop(folder: str, contents: Sequence[bytes]) -> None:
    """Each as a file that is whole: nobody has written to it for a while."""
    for content in contents:
        name = uuid4().hex
        part = Path(folder) / f".{name}"
        part.write_bytes(content)
        os.utime(part, (time.time() - LONG_AGO,) * 2)
        part.rename(Path(folder) / f"{name}.csv")


TRIAL = Trial(
    golden=GOLDEN,
    deliver=drop,
    mapping=("file.yaml", GOLDEN / "mappings" / "file.yaml"),
    given={"mappings": Path(str(GOLDEN / "mappings"))},
)
