"""An adapter of somebody else plugs in: by the guide, as it stands, and as a process of its own over the bus."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from time import time
from typing import Any

import pytest
import yaml

from convergedon.adapters.attending import ask
from convergedon.adapters.contract import Intent
from convergedon.core import embedded, seals, settings
from convergedon.core.bus import NatsBus

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "tests" / "samples" / "shelf"
GUIDE = (ROOT / "docs" / "adapters.md").read_text()
BLOCK = re.compile(r"```\w+ (file=\S+|run)\n(.*?)```", re.DOTALL)
KEY = "of an installation that has several machines"

sys.path.insert(0, str(SAMPLE))
from convergedon_shelf.simulator import Shelf  # noqa: E402


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The guide's folder after its steps, and what its commands printed."""
    folder, printed = tmp_path_factory.mktemp("shelf"), ""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    for what, content in BLOCK.findall(GUIDE.partition("<!-- guide -->")[2].partition("<!-- /guide -->")[0]):
        if what == "run":
            done = subprocess.run(
                ["sh", "-ec", content],
                cwd=folder,
                env={**os.environ, "PATH": path, "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stdout + done.stderr
            printed += done.stdout
        else:
            file = folder / what.removeprefix("file=")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
    return folder, printed


def test_the_guide_makes_the_sample(followed: tuple[Path, str]) -> None:
    """File by file; the adapter itself has fewer than 150 lines."""
    folder, _ = followed
    written = [file for file in SAMPLE.rglob("*") if file.suffix in (".py", ".cfg", ".toml", ".yaml")]

    assert len(written) == 7
    for file in written:
        assert (folder / file.relative_to(SAMPLE)).read_text() == file.read_text(), file
    assert len((SAMPLE / "convergedon_shelf" / "__init__.py").read_text().splitlines()) < 150


def test_an_adapter_by_the_guide_is_found_and_keeps_what_every_adapter_promises(followed: tuple[Path, str]) -> None:
    """In the process of the command, by its entry point."""
    folder, printed = followed
    found = json.loads((folder / "findings.json").read_text())

    assert re.search(r"^shelf +1\.2\.0 +convergedon-shelf +takes intents \(read, rollback\)$", printed, re.MULTILINE)
    assert printed.rstrip().endswith("it holds")
    assert (found["holds"], found["failed"], found["waived"]) == (True, 0, 0)
    passed = {one["group"] for one in found["cases"] if one["result"] == "passed"}
    assert passed == {"contract", "golden", "faults", "fuzz"}


@dataclass
class Process:
    """The adapter's own process, and what it and its commands are told."""

    bus: NatsBus
    folder: Path
    env: dict[str, str]
    running: asyncio.subprocess.Process
    shelf: Shelf

    def devices(self, **ports: Any) -> None:
        named = {
            name: {"tenant": "acme", "address": "127.0.0.1", "shelf": {"port": port}} for name, port in ports.items()
        }
        (self.folder / "devices.yaml").write_text(yaml.safe_dump({"devices": named}))

    async def wants(self, device: str, key: str, **values: int) -> None:
        subject = f"intent.shelf.{device}"
        intent = Intent(key, "acme", device, "port", key, values, time() + 60)
        body = {"intent": asdict(intent), "reply": "network.0.outcome", "about": {"tenant": "acme"}}
        await self.bus.publish(subject, self.seals.sealed(subject, body), key)

    @property
    def seals(self) -> seals.Seals:
        return seals.seals(settings.load(intent_key=KEY))

    @property
    def name(self) -> str:
        return f"shelf@{socket.gethostname()}:{self.running.pid}"

    async def outcome(self, key: str) -> str:
        async with asyncio.timeout(30):
            while not (answer := await self.bus.last(f"network.0.outcome.{key}")):
                await asyncio.sleep(0.02)
        return str(answer.body["outcome"]["status"])

    async def command(self, *words: str) -> tuple[int, Any]:
        """A command's exit code and what it printed as JSON."""
        asked = await asyncio.create_subprocess_exec(
            *COMMAND, *words, "--json", env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        out, err = await asyncio.wait_for(asked.communicate(), 60)
        return asked.returncode or 0, json.loads(out) if out else err.decode()


COMMAND = (sys.executable, "-P", "-m", "convergedon.core.cli", "adapter")


@asynccontextmanager
async def process(folder: Path, plugged: Path) -> AsyncIterator[Process]:
    """With a bus, a shelf and a key of their own."""
    (folder / "nats").mkdir()
    (folder / "key").write_text(f"{KEY}\n")
    shelf = Shelf()
    port = await shelf.start()
    with embedded.running(embedded.nats_command(folder / "nats")) as server:
        bus = await NatsBus(server.url, "test").open()
        env = {name: value for name, value in os.environ.items() if not name.startswith("CONVERGEDON_")} | {
            "PYTHONPATH": str(plugged),
            "CONVERGEDON_DATA": str(folder / "theirs"),
            "CONVERGEDON_NATS_URL": server.url,
            "CONVERGEDON_INTENT_KEY_FILE": str(folder / "key"),
            "CONVERGEDON_DEVICES": str(folder / "devices.yaml"),
        }
        made = Process(bus, folder, env, None, shelf)  # type: ignore[arg-type]
        made.devices(**{"shelf-1": port})
        made.running = await asyncio.create_subprocess_exec(*COMMAND, "shelf", env=env, stdout=subprocess.PIPE)
        try:
            assert made.running.stdout
            assert json.loads(await asyncio.wait_for(made.running.stdout.readline(), 60))["ready"]
            yield made
        finally:
            if made.running.returncode is None:
                made.running.terminate()
            await asyncio.wait_for(made.running.wait(), 20)
            await bus.close()
            await shelf.stop()


async def test_it_runs_as_a_process_of_its_own_over_the_bus(followed: tuple[Path, str], tmp_path: Path) -> None:
    """Intents with the key's seal are done and others are not; it says how its devices are, and takes others without
    an end; a mistake in its devices file leaves those that it has.
    """
    async with process(tmp_path, followed[0] / "plugged") as theirs:
        await theirs.wants("shelf-1", "port-1", speed=100)
        done = await theirs.outcome("port-1")
        body = {"intent": {"key": "port-2"}, "reply": "network.0.outcome", "about": {}}
        await theirs.bus.publish("intent.shelf.shelf-1", body, "forged")
        (well,) = await ask(theirs.bus, theirs.seals, "health", "shelf", [theirs.name])
        theirs.devices(**{"shelf-1": "x"})
        wrong = await theirs.command("reload", "shelf")
        second = Shelf()
        theirs.devices(**{"shelf-2": await second.start()})
        theirs.running.send_signal(signal.SIGHUP)
        await theirs.wants("shelf-2", "port-3", speed=5)
        taken = await theirs.outcome("port-3")
        await second.stop()
        code, (ill,) = await theirs.command("health", "shelf")
        parked = [one.reason for one in await theirs.bus.parked()]

        assert (done, theirs.shelf.ports) == ("applied", {"port-1": {"speed": "100"}})
        assert well.told["devices"] == {"shelf-1": {"state": "ready", "capabilities": ["read", "rollback"]}}
        assert (wrong[0], wrong[1][0]["state"]) == (1, "failed")
        assert "devices.yaml, line 5: devices.shelf-1.shelf.port: must be a number" in wrong[1][0]["words"]
        assert (taken, second.ports) == ("applied", {"port-3": {"speed": "5"}})
        assert (code, ill["state"]) == (1, "degraded")
        assert ill["told"]["devices"]["shelf-2"]["state"] == "unreachable"
        assert parked == ["an intent for shelf-1 that no worker asked for: it has no seal"]
        theirs.running.terminate()
        assert await asyncio.wait_for(theirs.running.wait(), 20) == 0
