"""The page on policies works as it stands, on a system of processes; and what its commands refuse, they say."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from test_whole_system import up

from convergedon.core import audit, bundles, settings, tokens
from convergedon.core.commands.system import adapter_names
from convergedon.core.settings import Settings
from convergedon.core.store import MongoStore
from convergedon.core.up import find

PAGE = (Path(__file__).parents[2] / "docs" / "policies.md").read_text()
BLOCK = re.compile(r"```(\w+)(?: (file|edit)=(\S+))?\n(.*?)```", re.DOTALL)
ORDERS = "/tmf-api/productOrderingManagement/v4/productOrder"
ORDER = {
    "relatedParty": [{"id": "northwind", "role": "customer", "@referredType": "Organization"}],
    "productOrderItem": [
        {
            "id": "1",
            "action": "add",
            "productOffering": {"id": "internet-access"},
            "product": {
                "productCharacteristic": [
                    {"name": "bandwidth", "value": 100},
                    {"name": "vlan", "value": 101},
                    {"name": "site", "value": "hamburg-1"},
                ]
            },
        }
    ],
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Settings, str]]:
    """What is refused changes nothing, so the page finds the system as it was started."""
    data = tmp_path_factory.mktemp("system")
    with up(data) as (_, printed):
        yield settings.load(data=data), printed["gateway"]


async def run(script: str, folder: Path, data: Path, **env: str) -> tuple[int, str, str]:
    shell = await asyncio.create_subprocess_exec(
        "sh",
        "-e",
        "-c",
        script.replace("convergedon ", f"{sys.executable} -P -m convergedon.core.cli "),
        env={**os.environ, "CONVERGEDON_DATA": str(data), **env},
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    printed, errors = await shell.communicate()
    return shell.returncode or 0, printed.decode(), errors.decode()


async def ordered(given: Settings, gateway: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=gateway, timeout=20, trust_env=False) as client:
        head = {"Authorization": f"Bearer {tokens.issue(given, 'acme', 'csr')}"}
        return await client.post(ORDERS, json=ORDER, headers=head)


def edit(file: Path, content: str) -> None:
    before, after = content.split("---\n")
    text = file.read_text()
    assert before in text, f"{file} does not have the line of the page"
    file.write_text(text.replace(before, after, 1))


def promised(line: str) -> re.Pattern[str]:
    """What the page says, with … for anything."""
    return re.compile(".*".join(map(re.escape, line.split("…"))))


@pytest.mark.timeout(240)
async def test_a_refusal_says_what_to_do(tmp_path: Path, running: tuple[Settings, str]) -> None:
    """One sentence, and an exit code that a script sees."""
    data = running[0].data
    bundles.write(bundles.read(), tmp_path / "p")
    (tmp_path / "p" / "late_test.rego").write_text("package late_test\n\ntest_never if false\n")
    for command, wanted, words in (
        ("activate p", 78, "policy tests fail: late_test.test_never"),
        ("check p", 1, "1 tests fail: late_test.test_never"),
        ("test p", 1, "policy tests failed: late_test.test_never"),
        ("export p", 78, "p is not empty: name a new folder"),
        ("rollback", 1, "nothing to go back to"),
        (f"explain 01a216b4c6707{'0' * 3}8{'0' * 15}", 1, "the log has no decision"),
        ("replay p --since yesterday", 78, "--since is a number with s, m, h or d"),
    ):
        code, said, errors = await run(f"convergedon policy {command}", tmp_path, data)
        assert (code, said) == (wanted, ""), command
        assert words in errors
        assert errors.count("\n") == 1
    code, _, errors = await run(
        "convergedon policy activate p", tmp_path, data, CONVERGEDON_OPA_URL="http://127.0.0.1:9"
    )
    assert (code, errors.count("\n")) == (78, 1)
    assert "the Open Policy Agent server holds the policies" in errors
    code, said, _ = await run("convergedon policy status --json", tmp_path, data)
    status = json.loads(said)

    assert (code, status["revision"], status["since"]) == (0, "", None)
    assert {one["state"] for one in status["processes"]} == {"ready"}
    assert len(status["processes"]) == 2 + len(adapter_names())


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is missing (Debian package curl)")
@pytest.mark.timeout(240)
async def test_the_page_does_what_it_says(tmp_path: Path, running: tuple[Settings, str]) -> None:
    """Each command, in turn, prints what the page shows."""
    given, gateway = running
    assert (await ordered(given, gateway)).status_code == 201  # something that was decided already
    await asyncio.sleep(0.5)
    printed: list[str] = []
    for language, what, name, content in BLOCK.findall(PAGE):
        if what == "file":
            (tmp_path / name).write_text(content)
        elif what == "edit":
            edit(tmp_path / name, content)
        elif language == "sh":
            script = content.replace("http://127.0.0.1:8080", gateway)
            code, said, errors = await run(script, tmp_path, given.data)
            assert code == 0, f"{content}\n{said}{errors}"
            printed = said.splitlines()
        else:
            for line in content.splitlines():
                assert any(promised(line).fullmatch(one) for one in printed), f"{line!r} is not in {printed}"
    records = await audited(given)

    assert [(one["what"], one["outcome"]) for one in records] == [
        ("policy.activated", "done"),
        ("policy.rolled-back", "done"),
    ]


async def audited(given: Settings) -> list[Mapping[str, Any]]:
    """The records of what was done to the policies."""
    connection = find(given.data)
    assert connection is not None
    store = await MongoStore(connection.mongodb, given.database, audit.KINDS).open()
    records = await store.find(audit.KIND.name, {})
    await store.close()
    mine = [record.body for record in records if record.body["what"].startswith("policy.")]
    return sorted(mine, key=lambda body: str(body["time"]))
