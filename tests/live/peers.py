"""Real programs that the live tests talk to; the system's package manager brings them."""

import os
import shutil

import pytest

PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))
PACKAGES = {"snmptrap": "snmp", "snmpinform": "snmp"}


def peer(name: str) -> str:
    """The path of a program; without it the test is skipped, or fails when CONVERGEDON_REQUIRE_PEERS is 1."""
    found = shutil.which(name, path=PATH)
    if found is None:
        words = f"{name} is not installed: apt-get install {PACKAGES.get(name, name)}"
        if os.environ.get("CONVERGEDON_REQUIRE_PEERS") == "1":
            pytest.fail(words)
        pytest.skip(words)
    return found
