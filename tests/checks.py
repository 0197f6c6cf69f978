"""What `make check` asks beside style and types, without a network: bandit's findings, what is installed, and keys.

A finding is mended or waived here with its reason; a waiver that nothing needs any more fails. What advisory databases
know needs a network and is not asked: that is `pip-audit` against the same constraints.txt, where there is one.
"""

from __future__ import annotations

import configparser
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
OURS = ("core", "handlers", "adapters", "mediation", "openapi", "policies", "demo")

WAIVED: Mapping[tuple[str, str], str] = {
    ("adapters/file/adapter.py", "B311"): "spreads retries in time; nobody gains by guessing it",
    ("adapters/intake.py", "B101"): "tells the type checker what start() has set; no check of anything outside",
    ("adapters/intake.py", "B311"): "spreads retries in time; nobody gains by guessing it",
    ("adapters/netconf/lab/element.py", "B107"): "the password of a simulated device on loopback",
    ("adapters/snmp/ber.py", "B104"): "the address that SNMP v1 writes for none, not one to listen on",
    ("adapters/testing/suite.py", "B101"): "the suite that adapters are tested by",
    ("core/bus.py", "B311"): "spreads retries in time; nobody gains by guessing it",
    ("core/embedded.py", "B311"): "chooses a port that is free; the token is from `secrets`",
    ("core/embedded.py", "B404"): "starts the servers that pip installed",
    ("core/embedded.py", "B603"): "a list of arguments of our own, no shell",
    ("core/engines.py", "B107"): "an empty token is none",
    ("core/issuers.py", "B113"): "the whole fetch has a time-out of its own, which a time-out a read would not give",
    ("core/memory.py", "B105"): "a wildcard of subjects, not a password",
    ("core/strict.py", "B506"): "its loader is a SafeLoader",
    ("core/supervisor.py", "B404"): "starts the roles and servers of the system",
    ("core/supervisor.py", "B603"): "a list of arguments of our own, no shell",
    ("core/supervisor.py", "B607"): "ps, on systems without /proc",
    ("core/tether.py", "B606"): "becomes the server it watches over, with arguments of our own",
    ("core/up.py", "B104"): "recognises every address, and gives one that can be called",
    ("demo/campaign.py", "B311"): "chooses what to try next; a seed repeats it",
    ("demo/stage.py", "B104"): "recognises every address, and gives one that can be called",
    ("handlers/api_page.py", "B704"): "made of our own documents, escaped before",
    ("handlers/gateway.py", "B107"): "an empty token is none",
    ("mediation/inventory.py", "B101"): "tells the type checker what the line before has made sure of",
    ("mediation/telling/dispatch.py", "B311"): "spreads retries in time; nobody gains by guessing it",
}

LICENCES = frozenset(
    [
        "MIT",
        "MIT-0",
        "BSD",
        "BSD-2-CLAUSE",
        "BSD-3-CLAUSE",
        "0BSD",
        "APACHE-2.0",
        "APACHE",
        "ISC",
        "PSF-2.0",
        "PSF",
        "MPL-2.0",
        "ZLIB",
        "CC0-1.0",
    ]
)
COPYLEFT: Mapping[str, str] = {
    "secantusdb": "GPL-2.0: an extra, and a process of its own",
    "paramiko": "LGPL-2.1: a library, used unchanged (of ncclient)",
    "asyncssh": "EPL-2.0 or GPL-2.0-or-later: an extra, for the simulated devices",
}
SILENT: Mapping[str, str] = {
    "pysnmp": "BSD-2-Clause, by the licence file that it brings",
}
BAD: Mapping[str, str] = {
    "pyopa": "it aligns sequences and has nothing to do with Open Policy Agent",
    "pysnmplib": "an abandoned fork of pysnmp",
    "pysnmp-lextudio": "the old name of pysnmp",
    "clarion-snmp": "no release of the makers of pysnmp",
}
TOOLS = frozenset({"convergedon", "pip", "wheel"})
"""Installed, but by no requirement of ours."""


@dataclass(frozen=True)
class Finding:
    file: str
    line: int
    test: str
    words: str


def bandit() -> list[Finding]:
    command = [sys.executable, "-m", "bandit", "-q", "-r", *OURS, "-f", "json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    told = json.loads(done.stdout)
    if told["errors"]:
        raise SystemExit(f"bandit cannot read {told['errors'][0]}")
    return [Finding(r["filename"], r["line_number"], r["test_id"], r["issue_text"]) for r in told["results"]]


def unwaived(findings: Iterable[Finding], waived: Mapping[tuple[str, str], str]) -> Iterator[str]:
    """What is wrong: findings that nobody waived, and waivers that nothing needs."""
    found = list(findings)
    for finding in found:
        if (finding.file, finding.test) not in waived:
            yield f"{finding.file}:{finding.line}: {finding.test} {finding.words}"
    for file, test in sorted(waived.keys() - {(finding.file, finding.test) for finding in found}):
        yield f"{file}: {test} is waived and not found any more: take the waiver out of tests/checks.py"


@dataclass(frozen=True)
class Installed:
    name: str
    version: str
    licence: str


def installed() -> list[Installed]:
    return [Installed(canonicalize_name(d.metadata["Name"]), d.version, licence(d)) for d in distributions()]


def licence(distribution: Distribution) -> str:
    """What its metadata says: an SPDX expression, else the classifiers, else the first words of a text."""
    said = distribution.metadata
    classes = [line.rpartition("::")[2].strip() for line in said.get_all("Classifier") or () if "License ::" in line]
    known = " AND ".join(name for name in classes if name not in ("OSI Approved", "DFSG approved"))
    return said.get("License-Expression") or known or " ".join((said.get("License") or "").split())[:60]


def is_free(text: str) -> bool:
    """Whether every part of what is said (of alternatives one) is on the list."""
    return bool(text) and all(
        any(_spdx(one) in LICENCES for one in re.split(r" OR ", part.strip("() "))) for part in text.split(" AND ")
    )


def _spdx(words: str) -> str:
    """Classifiers and old metadata in the words of SPDX."""
    name = words.strip("() ").upper()
    name = re.sub(r"^MOZILLA PUBLIC LICENSE 2\.0 \(MPL 2\.0|MOZILLA PUBLIC LICENSE 2\.0.*$", "MPL-2.0", name)
    name = re.sub(r"^PYTHON SOFTWARE FOUNDATION( LICENSE)?$", "PSF", name)
    return re.sub(r" (SOFTWARE )?LICENSE.*$", "", name)


def wrong_with(packages: Iterable[Installed], pins: Mapping[str, str], bounds: Iterable[Requirement]) -> Iterator[str]:
    """What is wrong with what is installed: not pinned, another version, out of bounds, a licence, a name."""
    found = {package.name: package for package in packages}
    for name, package in sorted(found.items()):
        if name in TOOLS:
            continue
        if name in BAD:
            yield f"{name} must not be installed: {BAD[name]}"
        elif name not in pins:
            yield f"{name} {package.version} is not pinned in constraints.txt"
        elif pins[name] != package.version:
            yield f"{name} is {package.version}, constraints.txt says {pins[name]}: make clean install"
        if not is_free(package.licence) and name not in COPYLEFT and name not in SILENT:
            yield f"{name}: its licence ({package.licence or 'none is said'}) is on no list of tests/checks.py"
    for name in sorted(pins.keys() & BAD.keys()):
        yield f"{name} must not stand in constraints.txt: {BAD[name]}"
    for bound in bounds:
        pin = pins.get(canonicalize_name(bound.name))
        if pin is None:
            if bound.marker is None:  # else it may be for another machine
                yield f"{bound.name} of setup.cfg is not pinned in constraints.txt"
        elif not bound.specifier.contains(pin, prereleases=True):
            yield f"{bound.name} is pinned to {pin}, which setup.cfg does not allow ({bound.specifier})"
        if not {part.operator for part in bound.specifier} & {"<", "==", "~="}:
            yield f"{bound.name} of setup.cfg has no upper bound"


def pinned(text: str) -> dict[str, str]:
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines if line)}


def bounded(text: str) -> list[Requirement]:
    """What setup.cfg requires, of all extras but `trace`, which nothing here is installed with."""
    parser = configparser.ConfigParser()
    parser.read_string(text)
    extras = (value for name, value in parser["options.extras_require"].items() if name != "trace")
    lines = "\n".join([parser["options"]["install_requires"], *extras]).splitlines()
    return [Requirement(line) for line in lines if line.strip()]


def secret(folder: Path) -> Iterator[str]:
    """What git keeps that it must not: data folders of a system that was tried here, and whatever looks like a key."""
    kept = subprocess.run(["git", "ls-files", "-z"], cwd=folder, capture_output=True, check=False).stdout
    for name in filter(None, kept.decode().split("\0")):
        file = folder / name
        if "keys" in file.parts or file.suffix in (".pem", ".key"):
            yield f"{name}: a key, or the folder of one, is no part of the project"
        elif file.is_file() and KEY.search(file.read_bytes()):
            yield f"{name}: holds a private key"


KEY = re.compile(rb"^-----BEGIN [A-Z ]*PRIVATE KEY-----\r?$", re.MULTILINE)


def main() -> int:
    pins = pinned((ROOT / "constraints.txt").read_text())
    bounds = bounded((ROOT / "setup.cfg").read_text())
    wrong = [*unwaived(bandit(), WAIVED), *wrong_with(installed(), pins, bounds), *secret(ROOT)]
    for sentence in wrong:
        print(sentence, file=sys.stderr)
    if not wrong:
        print(f"Nothing that bandit finds is unexplained; {len(pins)} packages are as they are pinned.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
