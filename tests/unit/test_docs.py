"""The documentation says what the code does: settings, APIs, adapters, commands and links."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from convergedon.adapters import discovery
from convergedon.core.cli import main
from convergedon.core.settings import Settings
from convergedon.handlers.apis import APIS
from convergedon.openapi import document

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_every_setting_is_in_the_readme_with_its_description() -> None:
    listed = re.findall(r"^\| `CONVERGEDON_(\w+)` \|.*?\| (.*) \|$", README, re.MULTILINE)

    assert listed == [(name.upper(), field.description) for name, field in Settings.model_fields.items()]


def test_every_default_in_the_readme_is_the_default() -> None:
    listed = re.findall(r"^\| `CONVERGEDON_(\w+)` \| (.*?) \|", README, re.MULTILINE)
    for name, said in listed:
        default = Settings.model_fields[name.lower()].get_default(call_default_factory=True)
        value = default.get_secret_value() if hasattr(default, "get_secret_value") else default
        assert said == ("" if value in (None, "", []) else f"`{value}`"), name


def test_every_api_is_in_the_readme_with_its_resources() -> None:
    for api in APIS:
        line = next(line for line in README.splitlines() if f"`{api.base}`" in line)
        served = {path.split("/")[1] for path in document(api.document)["paths"]}
        named = {api.word(resource.name) for resource in api.resources} | ({"hub"} & served)
        assert named == set(line.split("|")[3].strip().split(", "))


def test_every_adapter_is_written_about() -> None:
    text = "".join(page.read_text() for page in PAGES).lower()

    assert [name for name in discovery.adapters() if name not in text and name != "loopback"] == []


def test_every_command_is_written_about() -> None:
    text = "".join(page.read_text() for page in PAGES)

    assert [n for n, c in main.commands.items() if not c.hidden and f"convergedon {n}" not in text] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    targets = re.findall(r"\]\((?!https?://)([^)#]+)", prose)

    assert [target for target in targets if not (page.parent / target).exists()] == []
