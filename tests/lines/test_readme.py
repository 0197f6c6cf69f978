"""The README's first order works as it stands."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from convergedon.core import settings, up
from convergedon.core.commands.system import adapter_names

README = (Path(__file__).parents[2] / "README.md").read_text()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is missing (Debian package curl)")
async def test_the_first_order_is_completed(tmp_path: Path) -> None:
    """And the token that it was placed with is in no log."""
    (commands,) = re.findall(r"<!-- test: first order -->\n```sh\n(.*?)```", README, re.DOTALL)
    given = settings.load(data=tmp_path, port=0, trap_port=0, flow_port=0)
    async with up.system(given, lab=True, adapters=adapter_names()) as system:
        script = commands.replace("http://127.0.0.1:8080", system.connection.gateway)
        script = script.replace(".venv/bin/convergedon", f"{sys.executable} -P -m convergedon.core.cli")
        env = {**os.environ, "CONVERGEDON_DATA": str(tmp_path)}
        shell = await asyncio.create_subprocess_exec(
            "sh", "-e", "-c", script, env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        printed, errors = await shell.communicate()

    assert shell.returncode == 0, errors.decode()
    assert printed.decode().count('"state":"acknowledged"') == 2
    assert '"state":"completed"' in printed.decode()
    assert [log.name for log in (tmp_path / "log").iterdir() if "eyJ" in log.read_text()] == []


def test_the_commands_of_the_readme_exist() -> None:
    makefile = (Path(__file__).parents[2] / "Makefile").read_text()

    for target in re.findall(r"(?:`|^)make (\w+)", README, re.M):
        assert f"\n{target}:" in makefile
