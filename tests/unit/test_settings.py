"""A wrong setting is one sentence that names it, and secrets stay secret."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from convergedon.core import settings
from convergedon.core.errors import Misconfigured
from convergedon.core.settings import Settings

SECRET = "hunter2-s3cret"


def test_the_environment_sets_and_the_caller_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable is CONVERGEDON_ and the name; what a command is told goes before it."""
    monkeypatch.setenv("CONVERGEDON_PORT", "8081")
    monkeypatch.setenv("CONVERGEDON_CALLBACK_NETWORKS", '["127.0.0.0/8"]')

    assert settings.load().port == 8081
    assert settings.load(port=8082).port == 8082
    assert settings.load(port=None).port == 8081
    assert [str(network) for network in settings.load().callback_networks] == ["127.0.0.0/8"]


@pytest.mark.parametrize("said", ["127.0.0.0/8,::1/128", " 127.0.0.0/8, ::1/128 ", '["127.0.0.0/8", "::1/128"]'])
def test_networks_are_separated_by_commas_or_json(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    """As a person writes them, and as `up` hands them on."""
    monkeypatch.setenv("CONVERGEDON_CALLBACK_NETWORKS", said)

    assert [str(network) for network in settings.load().callback_networks] == ["127.0.0.0/8", "::1/128"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", SECRET),
        ("PORT", "65536"),
        ("PORT", "-1"),
        ("TRAP_PORT", "1.5"),
        ("LOG_LEVEL", SECRET),
        ("BODY_LIMIT", "7"),
        ("DELIVERY_HORIZON", "0"),
        ("RETRY_HORIZON", "soon-s3cret"),
        ("CONFIRM_TIMEOUT", "1"),
        ("CALLBACK_NETWORKS", SECRET),
        ("CALLBACK_NETWORKS", f'["{SECRET}"]'),
        ("CALLBACK_NETWORKS", '["10.0.0.1/8"]'),
        ("CALLBACK_NETWORKS", "10.11.12.13/8"),
    ],
)
def test_a_bad_value_is_one_sentence(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """It names the setting and what is wrong with it, and does not repeat the value."""
    monkeypatch.setenv(f"CONVERGEDON_{name}", value)

    with pytest.raises(Misconfigured) as refused:
        settings.load()

    said = str(refused.value)
    assert said.startswith(f"setting CONVERGEDON_{name}: ")
    assert "\n" not in said
    assert len(value) < 4 or value not in said
    assert SECRET not in said


def test_secrets_are_in_no_representation() -> None:
    """Neither printed nor put into a log, while those who connect get them."""
    loaded = settings.load(
        mongodb_url=f"mongodb://root:{SECRET}@db", nats_url=f"nats://root:{SECRET}@bus", trap_communities=SECRET
    )

    for text in (repr(loaded), str(loaded), f"{loaded.model_dump()}", loaded.model_dump_json()):
        assert SECRET not in text
    assert SECRET in loaded.mongodb_url.get_secret_value()
    assert loaded.communities == {SECRET.encode()}


def test_settings_do_not_change_under_way() -> None:
    """What was read at the start holds for the process."""
    with pytest.raises(ValueError, match="frozen"):
        settings.load().port = 1  # type: ignore[misc]


def test_every_setting_says_what_it_is() -> None:
    """The descriptions are the documentation."""
    assert [name for name, field in Settings.model_fields.items() if not (field.description or "").endswith(".")] == []


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ({"host": "::1"}, "http://[::1]:8080"),
        ({}, "http://127.0.0.1:8080"),
        ({"port": 9000}, "http://127.0.0.1:9000"),
        ({"public_url": "https://gw.example/"}, "https://gw.example"),
        ({"public_url": "gw.example"}, "http://gw.example"),
    ],
)
def test_the_gateways_url_has_a_scheme_and_no_slash_at_its_end(given: dict[str, object], url: str) -> None:
    """It begins every href."""
    assert settings.load(data=Path("x"), **given).url == url


def test_communities_are_separated_by_commas() -> None:
    """Blanks around them are no part of them."""
    assert settings.load(trap_communities="public, private").communities == {b"public", b"private"}


SECRETS = [name for name, field in Settings.model_fields.items() if field.annotation is SecretStr]


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_may_stand_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The environment names the file; what it says itself goes before, and blanks at the end are none of the secret."""
    long, file = SECRET * 3, tmp_path / "secret"
    file.write_text(f"{long}\n")
    monkeypatch.setenv(f"CONVERGEDON_{name.upper()}_FILE", str(file))

    assert getattr(settings.load(), name).get_secret_value() == long
    monkeypatch.setenv(f"CONVERGEDON_{name.upper()}", long[::-1])
    assert getattr(settings.load(), name).get_secret_value() == long[::-1]


@pytest.mark.parametrize("name", SECRETS)
def test_every_secret_says_in_the_readme_that_it_may_stand_in_a_file(name: str) -> None:
    assert f"`CONVERGEDON_{name.upper()}_FILE`" in (Path(__file__).parents[2] / "README.md").read_text()


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for file in ("missing", "binary"):
        monkeypatch.setenv("CONVERGEDON_NATS_URL_FILE", str(tmp_path / file))
        with pytest.raises(Misconfigured, match="setting CONVERGEDON_NATS_URL_FILE: "):
            settings.load()


@pytest.mark.parametrize("name", ["password", "secret", "token", "community", "communities", "key", "creds", "seed"])
def test_a_setting_that_sounds_secret_is_one(name: str) -> None:
    """It is a SecretStr, or a file that holds the secret."""
    sounding = {n: f.annotation for n, f in Settings.model_fields.items() if name in n.split("_")}

    assert [n for n, annotation in sounding.items() if annotation not in (SecretStr, Path | None)] == []
