"""Real programs that the live tests talk to, and what is said where one is missing."""

import os
import shutil
from typing import NoReturn

import pytest

PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))
OPA = "go install github.com/open-policy-agent/opa@v1.22.2"
PACKAGES = {
    "chromedriver": "chromium-driver",
    "chromium": "chromium",
    "ip": "iproute2",
    "netconf-subsystem": "netconfd",
    "netconfd": "netconfd netconfd-module-ietf-interfaces",
    "netstat": "net-tools",
    "nfcapd": "nfdump",
    "nfdump": "nfdump",
    "snmpinform": "snmp",
    "snmpd": "snmpd",
    "snmptrap": "snmp",
    "softflowd": "softflowd",
    "ssh-keygen": "openssh-client",
    "sshd": "openssh-server",
}
"""Program -> the Debian packages that bring it."""


def lacking(words: str) -> NoReturn:
    """Skip the test with a sentence, or fail it where CONVERGEDON_REQUIRE_PEERS is 1."""
    if os.environ.get("CONVERGEDON_REQUIRE_PEERS") == "1":
        pytest.fail(words)
    pytest.skip(words)


def peers(*names: str) -> dict[str, str]:
    """The paths of programs; without them there is nothing to test against."""
    found = {name: path for name in names if (path := shutil.which(name, path=PATH))}
    if missing := [name for name in names if name not in found]:
        packages = dict.fromkeys(package for name in missing for package in PACKAGES[name].split())
        lacking(f"not installed: {', '.join(missing)}: apt-get install {' '.join(packages)}")
    return found


def peer(name: str) -> str:
    """The path of one program."""
    return peers(name)[name]


def opa() -> str:
    """The path of Open Policy Agent, which Debian does not have; CONVERGEDON_OPA may name it."""
    named = os.environ.get("CONVERGEDON_OPA", "")
    found = shutil.which(named or "opa")
    if found is None:
        lacking(
            f"{named or 'opa'} is not installed: {OPA} (Debian has no package of it), or name it in CONVERGEDON_OPA"
        )
    return found
