"""`convergedon demo` as a visitor meets it: it checks everything it says, and it leaves nothing behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

COMMAND = [sys.executable, "-P", "-m", "convergedon.core.cli"]
BEFORE = "what northwind used before is billed first"
CUSTOMERS = ("northwind", "contoso", "initech")


def environment(**given: str) -> dict[str, str]:
    """The environment without a setting but those given."""
    return {name: value for name, value in os.environ.items() if not name.startswith("CONVERGEDON_")} | given


def demo(folder: Path, *arguments: str, **env: str) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """Run the demonstration to its end; what it printed, and what it wrote for a machine."""
    told = folder / "demo.json"
    command = [*COMMAND, "demo", "--json", str(told), *arguments]
    given = environment(TMPDIR=str(folder), **env)
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=given, timeout=110)
    return done, json.loads(told.read_text() or "{}") if told.exists() else {}


@contextmanager
def up(data: Path) -> Iterator[None]:
    """A system with a lab, on free ports."""
    command = [*COMMAND, "up", "--lab", "--data", str(data), "--port", "0", "--trap-port", "0", "--flow-port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as process:
        assert process.stdout is not None
        try:
            assert "ready\n" in iter(process.stdout.readline, "")
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=15)


def left_behind(folder: Path) -> list[str]:
    """Processes that were started with the folder as their place for temporary files."""
    mark = f"TMPDIR={folder}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_text())
        except OSError:
            continue  # it is another's, or it ended meanwhile
    return found


def words(told: dict[str, Any]) -> list[str]:
    """What was claimed, but for what is set right beforehand where the lab's own traffic came in between."""
    return [words for words in (claim["words"] for claim in told["claims"]) if words != BEFORE]


def wrong(told: dict[str, Any]) -> list[dict[str, Any]]:
    return [claim for claim in told["claims"] if not claim["holds"]]


def test_all_three_lines_hold(tmp_path: Path) -> None:
    """Three services of three customers, a fault, a bill: every claim holds, and nothing is left behind."""
    done, told = demo(tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr
    assert wrong(told) == []
    lines = {claim["line"] for claim in told["claims"]}
    assert lines == {"listeners", "order line", "fault line", "usage line", "afterwards"}
    assert [service["sale"]["customer"]["name"] for service in told["services"]] == list(CUSTOMERS)
    assert told["failedOrder"]["order"]["state"] == "failed"
    assert told["failedOrder"]["before"] == told["failedOrder"]["after"]
    assert told["refusedCall"]["status"] == "403"
    assert told["usage"]["usages"]
    kinds = [
        heard["event"]["event"]["customerNotification"]["notificationType"] for heard in told["received"]["northwind"]
    ]
    assert kinds == ["orderCompleted", "serviceAffected", "serviceRestored", "orderCompleted"]
    assert done.stdout.splitlines()[-1] == f"all {len(told['claims'])} claims hold"
    assert list(tmp_path.iterdir()) == [tmp_path / "demo.json"]
    assert left_behind(tmp_path) == []


def test_a_running_system_is_used_and_left_as_it_was(tmp_path: Path) -> None:
    """It may be run again and again on a system that is up: no service, alarm or listener of it is left in the way."""
    with up(tmp_path / "data"):
        first, told = demo(tmp_path, "--data", str(tmp_path / "data"))
        second, again = demo(tmp_path, "--data", str(tmp_path / "data"))

    assert first.returncode == 0, first.stdout + first.stderr
    assert second.returncode == 0, second.stdout + second.stderr
    assert "starting" not in first.stdout
    assert {s["order"] for s in told["services"]}.isdisjoint(s["order"] for s in again["services"])
    assert words(told) == words(again)


def test_a_claim_that_fails_is_named(tmp_path: Path) -> None:
    """With a contract that allows less than is ordered nothing can be shown: the exit code and the last line say so."""
    with as_file(files("convergedon.policies")) as shipped:
        shutil.copytree(
            shipped, tmp_path / "policies", ignore=shutil.ignore_patterns("*.py", "__pycache__", "*_test.rego")
        )
    rules = json.loads((tmp_path / "policies" / "data.json").read_text())
    rules["contracts"]["acme"]["bandwidth"] = 50
    (tmp_path / "policies" / "data.json").write_text(json.dumps(rules))

    done, told = demo(tmp_path, CONVERGEDON_POLICIES=str(tmp_path / "policies"))

    assert done.returncode == 1, done.stdout + done.stderr
    failed = [claim["words"] for claim in wrong(told)]
    assert "northwind's order of 100 Mbit/s at berlin-1 is completed" in failed
    assert "initech's order of 300 Mbit/s at munich-1 is completed" not in failed
    last = done.stdout.splitlines()[-1]
    assert last.startswith(f"{len(failed)} of {len(told['claims'])} claims failed: ")
    assert all(words in last for words in failed)
    assert left_behind(tmp_path) == []


def test_a_url_alone_is_not_enough(tmp_path: Path) -> None:
    """Tokens and the lab's devices are in the folder of the system: it is asked for in one sentence."""
    done, _ = demo(tmp_path, "--url", "http://127.0.0.1:1")

    assert (done.returncode, done.stdout) == (78, "")
    assert "--data" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_system_without_a_lab_is_refused(tmp_path: Path) -> None:
    """The sentence says how to start one with a lab."""
    run = tmp_path / "data" / "run"
    run.mkdir(parents=True)
    found = {"gateway": "http://127.0.0.1:1", "nats": "", "mongodb": "", "trap": "", "flow": "", "pid": os.getpid()}
    (run / "connection.json").write_text(json.dumps(found))
    (run / "components.json").write_text('{"components": {}}')

    done, _ = demo(tmp_path, "--data", str(tmp_path / "data"))

    assert (done.returncode, done.stdout) == (78, "")
    assert "up --lab" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_results_file_that_cannot_be_written_is_told_at_once(tmp_path: Path) -> None:
    """Nothing is started for results that would be lost."""
    done, _ = demo(tmp_path, "--json", str(tmp_path / "missing" / "demo.json"))

    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr.count("\n") == 1
