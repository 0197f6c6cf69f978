"""The lines in play: on twins and on the embedded servers, all at once or one message at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from scene import Scene, in_memory, on_servers, pumped


@pytest.fixture(params=["memory", "servers"])
async def scene(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Scene]:
    """On twins in memory, and on the embedded servers."""
    if request.param == "memory":
        async with in_memory(tmp_path) as playing:
            yield playing
    else:
        async with on_servers(tmp_path, request.getfixturevalue("mongodb_url")) as playing:
            yield playing


@pytest.fixture
async def still(tmp_path: Path) -> AsyncIterator[Scene]:
    """On twins in memory, one message at a time."""
    async with pumped(tmp_path) as playing:
        yield playing
