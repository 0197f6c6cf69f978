"""What commands share: options, the settings of a system that runs, and how their work is begun, ended and shown."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Coroutine, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

import click

from convergedon.core.errors import Misconfigured

if TYPE_CHECKING:
    from convergedon.core.settings import Settings
    from convergedon.core.up import Connection

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
STOPS = (signal.SIGTERM, signal.SIGINT)
SERVERS = ("nats_url", "mongodb_url")
Answer = TypeVar("Answer")
data_option = click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Folder of the system (CONVERGEDON_DATA, else ./convergedon-data).",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def settings_of(data: Path | None, **given: object) -> Settings:
    from convergedon.core import settings

    return settings.load(data=data, **given)


def connected(data: Path | None, servers: Iterable[str] = SERVERS, **given: object) -> Settings:
    """The settings, with the servers of the system that runs on the folder where they name none.

    Raises Misconfigured when there are none.
    """
    settings = settings_of(data, **given)
    unnamed = [url for url in servers if not getattr(settings, url).get_secret_value()]
    if not unnamed:
        return settings
    found = running_system(settings)
    if found is None:
        raise Misconfigured(
            f"no system runs in {settings.data}: start it with `convergedon up --data {settings.data}`, "
            f"or set {' and '.join(f'CONVERGEDON_{url.upper()}' for url in servers)}"
        )
    return settings_of(data, **given, **{url: getattr(found, url.removesuffix("_url")) for url in unnamed})


def calling(settings: Settings) -> Settings:
    """The settings, with the callbacks that `up` allows where it runs: those on this machine."""
    if running_system(settings) is None:
        return settings
    from ipaddress import ip_network

    from convergedon.core.up import LOOPBACK

    allowed = [*settings.callback_networks, *map(ip_network, LOOPBACK)]
    return settings.model_copy(update={"callback_networks": allowed})


def moment(text: str, name: str = "--from") -> datetime:
    """Raises Misconfigured."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = datetime.min
    if time.tzinfo is None:
        raise Misconfigured(f"{name} is a time with its zone, for example 2026-05-01T12:00:00Z")
    return time


def duration(text: str) -> float:
    """Seconds. Raises Misconfigured."""
    number, unit = text[:-1], text[-1:]
    if not number.isdigit() or unit not in UNITS:
        raise Misconfigured(f"--since is a number with s, m, h or d, for example 24h, not {text}")
    return float(int(number) * UNITS[unit])


def running_system(settings: Settings) -> Connection | None:
    from convergedon.core.up import find

    return find(settings.data)


def run_role(work: Coroutine[Any, Any, None]) -> None:
    """Run one role until it is told to stop."""
    import uvloop

    uvloop.run(until_told(work))


def ask(question: Coroutine[Any, Any, Answer]) -> Answer | None:
    return asyncio.run(until_told(question))


async def until_told(work: Coroutine[Any, Any, Answer]) -> Answer | None:
    """Work until done, or until SIGTERM or Ctrl-C: the first cancels the work, which then has time to clean up.

    One more after a second ends the process there and then: work that does not listen cannot be cancelled.
    """
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)

    told = 0.0

    def stop(number: int, _: FrameType | None) -> None:
        nonlocal told
        if not told:
            told = monotonic()
            loop.call_soon_threadsafe(task.cancel)
        elif monotonic() - told > 1:
            os._exit(128 + number)

    # not loop.add_signal_handler: a web server that replaces a handler by signal.signal would leave that one alive too
    for number in STOPS:
        signal.signal(number, stop)
    try:
        return await task
    except asyncio.CancelledError:
        return None


def announce(address: str) -> None:
    """Tell the supervisor, or a script, that the role is ready. Standard output is for this line alone."""
    os.write(sys.stdout.fileno(), (json.dumps({"ready": True, "address": address}) + "\n").encode())


def show(answer: str | Iterable[Mapping[str, Any]] | None) -> None:
    """Print a sentence as it is and records as a JSON object a line."""
    if isinstance(answer, str):
        click.echo(answer)
        return
    for record in answer or ():
        click.echo(json.dumps(record, default=str))
