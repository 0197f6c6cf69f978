"""Schemathesis against the whole system: every operation of every document, alone and in sequences.

The system is the one that `up` starts: gateway, worker, store and bus are processes, tokens are checked. Each document
has an equal share of FUZZ_SECONDS (90 unless it is set; `make fuzz` has more), the same cases in every run unless
FUZZ_SEED names others.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from convergedon.core import settings, tokens
from convergedon.handlers.apis import APIS
from convergedon.handlers.resource import Api

SECONDS = int(os.environ.get("FUZZ_SECONDS", "90"))
SEED = os.environ.get("FUZZ_SEED", "")
SHORT = 600
"""Below so many seconds only a share of the coverage phase is sent."""
HERE = Path(__file__).parent

# Checks of schemathesis that do not hold, and why.
EXCLUDED = {
    "positive_data_acceptance": "fuzzing.refusals_are_explained asks more: each refusal has a line with its reason",
    "negative_data_rejection": "fuzzing.what_is_wrong_is_refused is the same, but for what a merge patch may leave out",
    "not_a_server_error": "fuzzing.nothing_fails is the same, but for the 501 that TMF630 wants for parts of JSONPath",
}


@dataclass(frozen=True)
class System:
    url: str
    data: Path

    def token(self, tenant: str) -> str:
        return tokens.issue(settings.load(data=self.data), tenant, "admin")


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    data = tmp_path_factory.mktemp("system")
    env = {name: value for name, value in os.environ.items() if not name.startswith("CONVERGEDON_")}
    ports = ("--port", "0", "--trap-port", "0", "--flow-port", "0")
    command = [sys.executable, "-P", "-m", "convergedon.core.cli", "up", "--data", str(data), *ports]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as process:
        assert process.stdout is not None
        try:
            printed = {}
            while (line := process.stdout.readline().strip()) != "ready":
                assert line, "it ended before it was ready"
                name, where = line.split(maxsplit=1)
                printed[name] = where
            yield System(printed["gateway"], data)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=30)


def fuzz(system: System, api: Api, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    # one thread: Python 3.11 fails now and then where two of them compile a pattern at once
    words = [
        *("run", f"{system.url}{api.base}/openapi.json", "--url", f"{system.url}{api.base}"),
        *("--header", f"Authorization: Bearer {system.token(f'fuzz-{api.document}')}"),
        *("--exclude-checks", ",".join(EXCLUDED), "--continue-on-failure"),
        *(("--seed", SEED) if SEED else ("--generation-deterministic",)),
        *("--no-color", *options),
    ]
    env = {
        **os.environ,
        "SCHEMATHESIS_HOOKS": "fuzzing",
        "PYTHONPATH": str(HERE),
        "CONVERGEDON_FUZZ_SHARE": "1" if SECONDS >= SHORT else "20",
    }
    command = [sys.executable, "-P", "-m", "schemathesis.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=env, timeout=SECONDS + 120)


def told(done: subprocess.CompletedProcess[str]) -> str:
    """What it found: its last lines, of which one may be a request of any length."""
    return "\n".join(line[:1500] for line in f"{done.stdout}\n{done.stderr}".splitlines()[-300:])


@pytest.mark.timeout(SECONDS + 300)
@pytest.mark.parametrize("api", APIS, ids=lambda api: api.document)
def test_schemathesis_finds_nothing(system: System, api: Api, tmp_path: Path) -> None:
    """No failure of any check that is not excluded above; afterwards the system is as ready as before."""
    share = str(max(5, SECONDS // len(APIS)))
    done = fuzz(system, api, tmp_path, "--max-examples", "25", "--max-time", share)

    assert done.returncode == 0, told(done)
    assert httpx.get(f"{system.url}/readyz").status_code == 200
