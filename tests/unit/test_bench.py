"""The benchmarks still run: each for a moment, with its report looked at. No figure is judged here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench import alertmanager

ROOT = Path(__file__).parents[2]
HAS_ALERTMANAGER = bool(alertmanager.program() or os.environ.get("CONVERGEDON_REQUIRE_PEERS"))
CONTESTANTS = {
    "post": {"embedded", "memory", "frame", "connexion", "starlette", "tmf-mock", "socket"},
    "read": {"memory, one", "memory, page", "frame, page", "connexion, one", "starlette, page", "tmf-mock, page"},
    "order": {"order", "ncclient", "our session", "order: accepted - completed (record)"},
    "fault": {"one by one", "10/s", "50/s", *(("Alertmanager, 50/s",) if HAS_ALERTMANAGER else ())},
    "governed": {"one by one, hub", "one by one, webhook", "10/s", "50/s"},
    "parts": {"policy decision, embedded", "create: embedded store, one by one"},
    "cost": {"memory: POST, all", "embedded: POST waited for, 8 at once, neither", "decisions: embedded"},
    "audit": {"record, which the call waits for", "flush, embedded store", "verify, embedded store"},
    "netconf": {"lab: intent", "lab: script", "lab: ncclient as shipped", "4 devices: intents"},
    "traps": {"adapter, 20,000/s", "snmptrapd, 20,000/s", "adapter, burst of 20,000", "adapter, 3 times as many"},
    "escapes": {"embedded", "activating", "server", "down", "slow", "nonsense"},
    "flows": {"NetFlow 9: decoder alone", "IPFIX: as observations", "ours, live"},
    "calls": {"0.2 MB", "4 MB"},
    "correlation": {"pure, 10 open", "pure, 1000 open", "store, 1000 open", "embedded: a cut of 100 traps"},
    "lists": {"embedded: order by id", "embedded: newest orders", "embedded: alarms by alarmedObject.id"},
}


@pytest.mark.parametrize("name", CONTESTANTS)
def test_a_benchmark_says_what_was_measured_on_what(name: str, tmp_path: Path) -> None:
    """Its report names the machine and versions, and has a positive figure of each contestant."""
    file = tmp_path / "bench.json"
    short = ["--seconds", "0.4", "--rounds", "1", "--most", "1100", "--attempts", "12"]
    command = [sys.executable, "-m", "tests.bench", name, *short, "--json", str(file)]

    for _ in range(2):
        said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=230)
        assert said.returncode == 0, said.stderr
        report = json.loads(file.read_text())
        result = report["benchmarks"][name]
        if all(value > 0 for figures in result["figures"].values() for value in figures.values()):
            break  # else the machine stood still for the moment that was measured
    assert report["machine"]["cores"] > 0
    assert {"python", "processor", "versions"} <= set(report["machine"])
    assert report["effort"] == {"seconds": 0.4, "rounds": 1, "most": 1100, "attempts": 12, "megabytes": 0}
    assert set(result["figures"]) >= CONTESTANTS[name]
    assert all(value > 0 for figures in result["figures"].values() for value in figures.values())
    assert all(ratio > 0 for ratio in result["ratios"].values())
    assert result["ratios"]
