"""Adapters are found, not listed: ours by their folders, others by the entry-point group."""

import subprocess
import sys

import pytest

from convergedon.adapters import discovery
from convergedon.core import settings
from convergedon.core.errors import Misconfigured

FOREIGN = """
from convergedon.adapters.loopback import LoopbackAdapter


def create(settings, devices):
    return LoopbackAdapter()
"""


def distribution(folder, entry):
    """Another distribution on the path, as pip would install it."""
    info = folder / "foreign-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[convergedon.adapters]\n{entry}\n")
    (folder / "foreign.py").write_text(FOREIGN)


def test_our_folders_are_adapters_and_make_one_of_their_name():
    made = {name: discovery.adapters()[name](settings.load(), {}) for name in ("snmp", "flow", "loopback")}

    assert {name: adapter.name for name, adapter in made.items()} == {name: name for name in made}


def test_looking_for_adapters_imports_none():
    code = "import sys; from convergedon.adapters import discovery; discovery.adapters(); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    assert "convergedon.adapters.discovery" in modules
    assert "convergedon.adapters.snmp" not in modules


def test_an_adapter_of_another_distribution_is_found(tmp_path, monkeypatch):
    distribution(tmp_path, "foreign = foreign:create")
    monkeypatch.syspath_prepend(tmp_path)

    assert discovery.adapters()["foreign"](settings.load(), {}).performs


def test_a_name_that_is_taken_is_refused(tmp_path, monkeypatch):
    distribution(tmp_path, "snmp = foreign:create")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(Misconfigured, match="snmp"):
        discovery.adapters()


def test_an_adapter_that_cannot_be_imported_is_told_by_name(tmp_path, monkeypatch):
    distribution(tmp_path, "foreign = foreign:missing")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(Misconfigured, match="foreign:missing"):
        discovery.adapters()["foreign"](settings.load(), {})
