"""What pip installs is what the repository holds: every module, document, mapping, policy, template and model."""

from __future__ import annotations

import configparser
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("core", "handlers", "mediation", "adapters", "openapi", "policies", "demo")
DATA = {".yaml", ".yang", ".json", ".rego", ".html", ".txt", ".css", ".js", ".svg", ".py", ".typed"}


def tracked() -> set[str]:
    """The files of the packages, as the repository holds them."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *FOLDERS],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return {name for name in listed.stdout.split() if (ROOT / name).exists()}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built from a copy of what is tracked, so that a stale build folder hides nothing. No network is needed."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in [*tracked(), "setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"]:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    extra = source / "adapters" / "newcomer"
    extra.mkdir()
    (extra / "__init__.py").write_text("def create(settings, devices): ...\n")
    (extra / "mapping.yaml").write_text("services: {}\n")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(target), str(source)],
        capture_output=True,
        check=True,
    )
    return zipfile.ZipFile(next(target.glob("*.whl")))


def test_the_wheel_holds_every_file(wheel: zipfile.ZipFile) -> None:
    inside = set(wheel.namelist())
    missing = {name for name in tracked() if f"convergedon/{name}" not in inside}

    assert missing == set()


def test_every_kind_of_data_file_is_known(wheel: zipfile.ZipFile) -> None:
    """A file of a new kind needs a word in setup.cfg; this list is the reminder."""
    assert {Path(name).suffix for name in tracked()} <= DATA


def test_an_adapter_folder_is_found_without_a_list(wheel: zipfile.ZipFile) -> None:
    assert {"convergedon/adapters/newcomer/__init__.py", "convergedon/adapters/newcomer/mapping.yaml"} <= set(
        wheel.namelist()
    )


def test_nothing_lies_beside_our_package(wheel: zipfile.ZipFile) -> None:
    """A plain package called adapters or handlers would overwrite somebody else's without a word."""
    tops = {name.split("/")[0] for name in wheel.namelist()}

    assert {top for top in tops if not top.endswith(".dist-info")} == {"convergedon"}


def test_the_wheel_works_where_the_repository_is_not(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    """Documents, policies, models and mappings are read from the package, not from the working folder."""
    wheel.extractall(tmp_path / "site")
    code = """
import convergedon.core.app
assert convergedon.core.app.__file__.startswith(SITE), convergedon.core.app.__file__
from convergedon import openapi
from convergedon.adapters import discovery
from convergedon.adapters.netconf import mapping as netconf
from convergedon.adapters.snmp import mapping as snmp
from convergedon.core import policy
from convergedon.mediation import planning, rating
for name in openapi.NAMES: openapi.document(name)
planning.load(); rating.load(); netconf.load(); snmp.load()
print(len(openapi.NAMES), len(policy.read().policies), sorted(discovery.adapters()))
"""
    site = str(tmp_path / "site")
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; SITE = {site!r}; sys.path.insert(0, SITE)\n{code}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "newcomer" in done.stdout


def test_the_editable_install_is_this_repository() -> None:
    import convergedon.core.app

    assert Path(convergedon.core.app.__file__) == ROOT / "core" / "app.py"


def test_every_dependency_has_a_lower_and_an_upper_bound() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = config["options"]["install_requires"].splitlines()
    lines += [line for extra in config["options.extras_require"].values() for line in extra.splitlines()]
    needs = [line.split(";")[0].strip() for line in lines if line.strip()]

    assert [need for need in needs if "==" not in need and not (">=" in need and "<" in need)] == []


def test_what_ci_tested_is_pinned() -> None:
    """Every requirement of ours has a pin in the constraints file, within its bounds."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    pins = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"
    )
    pinned = {canonicalize_name(name): version for name, version in pins.items()}
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    extras = [value for name, value in config["options.extras_require"].items() if name != "trace"]
    lines = [line for part in [config["options"]["install_requires"], *extras] for line in part.splitlines() if line]

    for need in map(Requirement, lines):
        name = canonicalize_name(need.name)
        assert need.specifier.contains(pinned[name], prereleases=True), name
