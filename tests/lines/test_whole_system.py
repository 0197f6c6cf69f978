"""`convergedon up` as an operator meets it: one command starts everything, and when it ends everything has ended."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="watches processes by their pidfd")


@contextmanager
def up(data: Path) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """A system with the lab on free ports, and what it printed before it said ready."""
    command = [sys.executable, "-P", "-m", "convergedon.core.cli", "up", "--lab", "--data", str(data)]
    ports = ["--port", "0", "--trap-port", "0", "--flow-port", "0"]
    env = {name: value for name, value in os.environ.items() if not name.startswith("CONVERGEDON_")}
    with subprocess.Popen([*command, *ports], stdout=subprocess.PIPE, text=True, env=env) as process:
        assert process.stdout is not None
        try:
            printed = {}
            while (line := process.stdout.readline().strip()) != "ready":
                assert line, "it ended before it was ready"
                name, where = line.split(maxsplit=1)
                printed[name] = where
            yield process, printed
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=15)


def processes(data: Path) -> list[int]:
    """A pidfd of each component."""
    components = json.loads((data / "run" / "components.json").read_text())["components"]
    return [os.pidfd_open(component["pid"]) for component in components.values()]


def have_ended(watched: list[int]) -> bool:
    """Wait for processes that are no children of ours: their pidfds become readable."""
    ended = [select.select([process], [], [], 10)[0] for process in watched]
    for process in watched:
        os.close(process)
    return all(ended)


def test_all_is_ready_and_a_signal_ends_all(tmp_path: Path) -> None:
    """Ready means that /readyz says so of every component; SIGTERM ends all within 10 s and is a success."""
    with up(tmp_path) as (process, printed):
        answer = httpx.get(f"{printed['gateway']}/readyz")
        components = answer.json()["components"]
        watched = processes(tmp_path)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        code = process.wait(timeout=15)
        took = time.monotonic() - began

    assert answer.status_code == 200
    assert {"gateway", "console", "traps", "flows", "data"} == set(printed)
    assert set(components) >= {"nats", "mongodb", "lab", "gateway", "worker-1", "netconf", "snmp", "flow"}
    assert code == 0
    assert took < 10
    assert have_ended(watched)
    assert not (tmp_path / "run" / "connection.json").exists()


@pytest.mark.crash
def test_a_killed_system_leaves_nothing_and_comes_back(tmp_path: Path) -> None:
    """After signal 9 no process is left, and the same folder starts again with the same store and bus."""
    with up(tmp_path) as (process, _):
        first = json.loads((tmp_path / "run" / "connection.json").read_text())
        watched = processes(tmp_path)
        process.kill()
        process.wait()
        ended = have_ended(watched)

    with up(tmp_path):
        second = json.loads((tmp_path / "run" / "connection.json").read_text())

    assert ended
    assert (first["nats"], first["mongodb"]) == (second["nats"], second["mongodb"])


def test_a_taken_port_ends_the_start_with_one_sentence(tmp_path: Path) -> None:
    """A gateway that cannot listen ends the whole start; nothing is left."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-P", "-m", "convergedon.core.cli", "up", "--data", str(tmp_path), "--port", port]

        said = subprocess.run(
            [*command, "--trap-port", "0", "--flow-port", "0"], capture_output=True, text=True, timeout=60
        )

    assert (said.returncode, said.stdout) == (78, "")
    assert port in said.stderr
    assert said.stderr.count("\n") == 1
    components = json.loads((tmp_path / "run" / "components.json").read_text())["components"]
    assert {name: component["pid"] for name, component in components.items()} == dict.fromkeys(components)
