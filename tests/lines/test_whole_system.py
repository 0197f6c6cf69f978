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
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any

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


class Listener(BaseHTTPRequestHandler):
    """Takes every event, and lets the server that it serves keep it."""

    def do_POST(self) -> None:
        self.server.events.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))  # type: ignore[attr-defined]
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@contextmanager
def listener() -> Iterator[tuple[str, Queue[dict[str, Any]]]]:
    """A callback of our own, and what comes there."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Listener) as server:
        server.events = Queue()  # type: ignore[attr-defined]
        Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}/", server.events  # type: ignore[attr-defined]
        server.shutdown()


def test_an_event_says_where_its_resource_is(tmp_path: Path) -> None:
    """A listener reads the resource at the event's href, also if the gateway was given any free port."""
    order = {"productOrderItem": [{"id": "1", "action": "add", "productOffering": {"id": "internet-access"}}]}
    with up(tmp_path) as (_, printed), listener() as (callback, events):
        command = [sys.executable, "-P", "-m", "convergedon.core.cli", "token", "--tenant", "acme", "--role", "admin"]
        token = subprocess.run([*command, "--data", str(tmp_path)], capture_output=True, text=True, check=True).stdout
        base = f"{printed['gateway']}/tmf-api/productOrderingManagement/v4"
        with httpx.Client(headers={"Authorization": f"Bearer {token.strip()}"}) as client:
            assert client.post(f"{base}/hub", json={"callback": callback}).status_code == 201
            href = client.post(f"{base}/productOrder", json=order).headers["Location"]
            told = [events.get(timeout=20)["event"]["productOrder"]["href"] for _ in range(2)]

    assert told == [href, href], "by the gateway that took the order, and by the worker that took it up"


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
