"""The whole system on this machine: which children there are, what each is told, and how commands find them.

``system`` is the block in which everything runs; `convergedon up` waits in it, the demonstration works in it.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from convergedon.core import embedded, encryption, peers
from convergedon.core.engines import OpaServer
from convergedon.core.errors import Misconfigured, Unavailable
from convergedon.core.settings import Settings
from convergedon.core.supervisor import Child, Component, Patience, Supervisor, end_leftovers, locked, write_json

LOOPBACK = ("127.0.0.0/8", "::1/128")


@dataclass(frozen=True)
class Connection:
    """Where a running system is reached; kept in DIR/run/connection.json for commands given --data."""

    gateway: str
    nats: str
    mongodb: str
    trap: str
    flow: str
    pid: int


@dataclass(frozen=True)
class System:
    connection: Connection
    supervisor: Supervisor


@asynccontextmanager
async def system(
    settings: Settings,
    *,
    lab: bool = False,
    workers: int = 1,
    adapters: Sequence[str] = (),
    changed: Callable[[str, Component], None] = lambda name, component: None,
    patience: Patience = Patience(),  # noqa: B008 - frozen
) -> AsyncIterator[System]:
    """Run everything; inside the block all of it has been ready, after it nothing is left.

    Raises Misconfigured or Unavailable with one sentence when it cannot start.
    """
    data = settings.data.absolute()
    with locked(data):
        await asyncio.to_thread(end_leftovers, data)  # first: they hold the ports that are about to be chosen
        await probe(settings)
        metrics = _emptied(data / "run" / "metrics")
        children = plan(settings, lab=lab, workers=workers, adapters=adapters)
        file = data / "run" / "connection.json"

        def note(name: str, component: Component) -> None:
            if component.state == "restarting":  # a gauge of the living must not count the dead
                for gauge in metrics.glob(f"gauge_live*_{component.pid}.db"):
                    gauge.unlink(missing_ok=True)
            if component.state == "ready" and file.exists():
                write_json(file, asdict(_connection(settings, running)))
            changed(name, component)

        file.unlink(missing_ok=True)
        async with Supervisor(data, children, note, patience) as running:
            await running.ready()
            connection = _connection(settings, running)
            write_json(file, asdict(connection))
            try:
                yield System(connection, running)
            finally:
                file.unlink(missing_ok=True)


def find(data: Path) -> Connection | None:
    """The system that runs on this folder, if one does."""
    try:
        connection = Connection(**json.loads((data / "run" / "connection.json").read_text()))
        os.kill(connection.pid, 0)
    except (OSError, ValueError, TypeError):
        return None
    return connection


def plan(settings: Settings, *, lab: bool, workers: int, adapters: Iterable[str]) -> list[Child]:
    """Every child in the order of start; they are stopped in the opposite one.

    Raises Misconfigured when an embedded server is needed and missing.
    """
    data = settings.data.absolute()
    servers = []
    if not settings.nats_url.get_secret_value():
        servers.append(embedded.nats_command(data / "nats"))
    if not settings.mongodb_url.get_secret_value():
        servers.append(embedded.mongodb_command(data / "mongodb"))
    needs = tuple(server.name for server in servers)
    urls = {f"CONVERGEDON_{server.name.upper()}_URL": server.url for server in servers}
    env = {**environment(settings), **urls, "PROMETHEUS_MULTIPROC_DIR": str(data / "run" / "metrics")}
    callbacks = [*map(str, settings.callback_networks), *LOOPBACK]
    facing = {**env, "CONVERGEDON_CALLBACK_NETWORKS": json.dumps(callbacks)}
    given = {"CONVERGEDON_DEVICES": "lab"} if lab else {}
    if lab and settings.metering is None:
        facing["CONVERGEDON_METERING"] = str(data / "lab" / "metering.yaml")
    network = (*needs, "lab") if lab else needs
    # what a worker tells of is told with the URL of the gateway
    telling = given if settings.public_url else {**given, "CONVERGEDON_PUBLIC_URL": "gateway"}
    told = (*network, "gateway")
    numbers = range(1, workers + 1)
    return [
        *(
            Child(server.name, server.argv, ready=server.answers, address=server.address, group="servers")
            for server in servers
        ),
        *([Child("lab", _role("lab"), env, needs)] if lab else []),
        Child("gateway", _role("gateway"), facing, needs, port="CONVERGEDON_PORT"),
        *(Child(f"worker-{n}", _role("worker"), facing, told, given=telling, group="workers") for n in numbers),
        *(
            Child(name, _role("adapter", name), env, network, given=given, port=_port_setting(name), group="adapters")
            for name in adapters
        ),
    ]


def environment(settings: Settings) -> dict[str, str]:
    """The settings that somebody made, as the environment variables that say the same to another process."""
    said = {name: getattr(settings, name) for name in settings.model_fields_set}
    said["data"] = settings.data.absolute()
    return {f"CONVERGEDON_{name.upper()}": _text(value) for name, value in said.items() if value is not None}


async def probe(settings: Settings, patience: float = 5.0) -> None:
    """Ask the servers that the settings name.

    Raises Unavailable when one does not answer.
    """
    asked = []
    if url := settings.nats_url.get_secret_value():
        asked.append(_probe_nats(url, peers.nats_options(settings), patience))
    if url := settings.mongodb_url.get_secret_value():
        asked.append(asyncio.to_thread(_probe_mongodb, url, peers.mongodb_options(settings), patience))
    if settings.opa_url:
        asked.append(_probe_opa(settings.opa_url, peers.opa_options(settings), patience))
    for answer in await asyncio.gather(*asked, return_exceptions=True):
        if isinstance(answer, BaseException):
            raise answer


async def _probe_nats(url: str, options: Mapping[str, Any], patience: float) -> None:
    from nats.errors import Error, NoServersError

    seen: list[Exception] = []

    async def noted(error: Exception) -> None:
        seen.append(error)

    where = f"NATS at {_hosts(url)} (CONVERGEDON_NATS_URL)"
    client = peers.NatsClient()
    try:
        async with asyncio.timeout(patience):
            await client.connect(
                servers=url.split(","),
                connect_timeout=math.ceil(2 * patience),  # for each server; ours, for all, comes first
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                error_cb=noted,
                **options,
            )
            await client.jetstream().account_info()
    except (OSError, Error, ValueError) as error:  # TimeoutError is an OSError
        cause = next(reversed(seen), error) if isinstance(error, TimeoutError | NoServersError) else error
        words = encryption.why(cause) or " ".join(str(cause).split()) or type(cause).__name__
        if isinstance(cause, TimeoutError):
            raise Unavailable(f"{where} does not answer within {patience:g} s") from error
        raise Unavailable(f"{where} cannot be used: {words}") from error
    finally:
        await client.close()


def _probe_mongodb(url: str, options: Mapping[str, Any], patience: float) -> None:
    from pymongo import MongoClient
    from pymongo.errors import ConfigurationError, ConnectionFailure, PyMongoError

    where = f"MongoDB at {_hosts(url)} (CONVERGEDON_MONGODB_URL)"
    milliseconds = int(patience * 1000)
    try:
        with MongoClient[dict[str, object]](
            url,
            serverSelectionTimeoutMS=milliseconds,
            connectTimeoutMS=milliseconds,
            socketTimeoutMS=milliseconds,
            **options,
        ) as client:
            client.admin.command("ping")
    except ConnectionFailure as error:
        if why := encryption.why(error):
            raise Unavailable(f"{where} cannot be used: {why}") from error
        raise Unavailable(f"{where} does not answer within {patience:g} s") from error
    except ConfigurationError as error:
        raise Misconfigured(f"{where} is not a MongoDB URL that can be used") from error
    except PyMongoError as error:
        raise Unavailable(f"{where} cannot be used: {type(error).__name__}") from error


async def _probe_opa(url: str, options: Mapping[str, Any], patience: float) -> None:
    where = f"Open Policy Agent at {_hosts(url)} (CONVERGEDON_OPA_URL)"
    server = OpaServer(url, patience, **options)
    try:
        answer = await server.evaluate({})
    except Unavailable as error:
        if why := encryption.why(error):
            raise Unavailable(f"{where} cannot be used: {why}") from error
        raise Unavailable(f"{where} does not answer within {patience:g} s") from error
    finally:
        await server.close()
    if answer is None:
        raise Unavailable(f"{where} has none of the gateway's policies: start it with their folder")


def _hosts(url: str) -> str:
    """The hosts of a URL, or of several with commas, without the secrets before the @."""
    return ",".join((urlsplit(part).netloc or part).rpartition("@")[2].split("/")[0] for part in url.split(","))


def _connection(settings: Settings, running: Supervisor) -> Connection:
    addresses = {name: component.address for name, component in running.components.items()}
    nats, mongodb = addresses.get("nats"), addresses.get("mongodb")
    at = addresses["gateway"].replace("0.0.0.0", embedded.HOST)  # every address is no address
    own = settings.data.absolute()
    return Connection(
        gateway=f"{settings.scheme}://{at}",
        nats=embedded.nats_url(own / "nats", nats) if nats else settings.nats_url.get_secret_value(),
        mongodb=embedded.mongodb_url(own / "mongodb", mongodb) if mongodb else settings.mongodb_url.get_secret_value(),
        trap=addresses.get("snmp", ""),
        flow=addresses.get("flow", ""),
        pid=os.getpid(),
    )


def _role(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-P", "-m", "convergedon.core.cli", *arguments)


def _port_setting(adapter: str) -> str:
    return {"snmp": "CONVERGEDON_TRAP_PORT", "flow": "CONVERGEDON_FLOW_PORT"}.get(adapter, "")


def _text(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return json.dumps([str(item) for item in value]) if isinstance(value, list) else str(value)


def _emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    embedded.prepare_folder(folder)
    return folder
