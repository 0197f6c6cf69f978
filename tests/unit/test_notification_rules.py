"""The file of rules and the templates: what is wrong in them is one sentence with the place, before anything runs."""

from __future__ import annotations

import re
from datetime import time
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from click.testing import CliRunner

from convergedon.core import settings
from convergedon.core.cli import main
from convergedon.core.errors import Misconfigured, Refused
from convergedon.mediation.telling import rules, wording
from convergedon.mediation.telling.rules import Notifications

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "notifications.md").read_text()
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def read(folder: Path, text: str, **files: str) -> Notifications:
    (folder / "rules.yaml").write_text(text)
    for name, content in files.items():
        (folder / name).write_text(content)
    found = rules.load(settings.load(data=folder, notifications=folder / "rules.yaml"))
    assert found
    return found


def test_without_a_file_there_are_no_rules(tmp_path: Path) -> None:
    assert rules.load(settings.load(data=tmp_path)) is None


async def test_the_file_of_the_docs_is_one(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "templates").mkdir()
    for name, text in (
        ("smtp", "s3cret"),
        ("desk", SECRET),
        ("northwind.address", "it@northwind.example"),
        ("duty.address", "duty@example.net"),
        ("duty-acme.address", "acme@example.net"),
    ):
        (tmp_path / "secrets" / name).write_text(text + "\n")
    example = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert example
    found = read(tmp_path, example[1])

    northwind, other = found.of("acme", "northwind"), found.of("acme", "contoso")
    assert northwind.rules.hold_down == {"critical": 0, "major": 0}
    assert (
        other.rules.hold_down == found.of("globex", "x").rules.hold_down == {"critical": 30, "major": 60, "minor": 300}
    )
    assert (northwind.zone.key, other.zone.key) == ("Europe/London", "Europe/Berlin")
    assert northwind.quiet
    assert other.quiet
    assert (northwind.quiet.zone.key, other.quiet.begin) == ("Europe/London", time(22))
    assert [one.channel for one in other.recipients] == ["mail", "desk"]
    assert [one.hears("orderCompleted") for one in other.recipients] == [True, False]
    assert [(one.channel, one.to) for one in northwind.recipients] == [("mail", "it@northwind.example")]
    assert [(one.channel, one.to) for one in found.operators_of("globex")] == [("duty", "duty@example.net")]
    assert [one.channel for one in found.operators_of("acme")] == ["duty", "desk"]
    assert [one.hears("refused") for one in found.operators_of("acme")] == [False, True]
    assert "northwind.example" not in repr(found)
    assert "@example.net" not in repr(found).replace("noc@example.net", "")
    await found.close()


MAIL = "channels: {mail: {kind: email, host: localhost, from: noc@example.net}}\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("default: {holddown: {}}", "line 1: default.holddown: this key is not known"),
        ("default:\n  holdDown: {grave: 5}", "line 2: default.holdDown.grave: "),
        ("default:\n  holdDown: {major: -1}", "line 2: default.holdDown.major: "),
        ("default:\n  timezone: Europe/Atlantis", "line 2: default.timezone: there is no such timezone"),
        ("default:\n  timezone: ../../etc", "line 2: default.timezone: there is no such timezone"),
        ("default:\n  quietHours: {from: 22:00, to: noon}", "line 2: default.quietHours.to: a time of day is"),
        ("default:\n  quietHours: {from: 07:00, to: '07:00'}", "line 2: default.quietHours: quiet hours that"),
        ("default:\n  quietHours: {from: 22:00}", "line 2: default.quietHours.to: this key is missing"),
        ("tenants:\n  acme:\n    customers: {x: {tenants: {}}}", "line 3: tenants.acme.customers.x.tenants: "),
        (
            "maintenance:\n- {name: a, tenant: acme, from: 2026-12-01T22:00:00, to: 2026-12-02T22:00:00Z}",
            "line 2: maintenance.0.from: a time needs its offset",
        ),
        (
            "maintenance:\n- {name: a, tenant: acme, from: 2026-12-03T22:00:00Z, to: 2026-12-02T22:00:00Z}",
            "line 2: maintenance.0: a window ends after it begins",
        ),
        ("templates: nowhere", "line 1: templates: there is no such folder"),
        ("channels:\n  mail: {kind: pigeon}", "line 2: channels.mail.kind: there is no such kind; installed are email"),
        ("channels:\n  mail: {kind: email, host: x}", "line 2: channels.mail.from: this key is missing"),
        ("channels:\n  mail: {kind: email, host: x, from: nobody}", "line 2: channels.mail.from: this is no e-mail"),
        (
            "channels:\n  mail: {kind: email, host: smtp.example.net, from: a@b.example, security: none}",
            "line 2: channels.mail.security: a server that is not on this machine",
        ),
        (
            "channels:\n  mail: {kind: email, host: x, from: a@b.example, username: me}",
            "line 2: channels.mail.username: a username goes with passwordFile",
        ),
        (
            "channels:\n  mail: {kind: email, host: x, from: a@b.example, username: me, passwordFile: gone}",
            "line 2: channels.mail.passwordFile: cannot be read",
        ),
        (
            "channels:\n  mail: {kind: email, host: x, from: a@b.example, ca: gone}",
            "line 2: channels.mail.ca: these authorities cannot be read",
        ),
        ("channels:\n  desk: {kind: webhook, url: 'https://x.example'}", "line 2: channels.desk.kind: a webhook is"),
        (
            "channels:\n  desk: {kind: webhook, url: 'ftp://x.example', secretFile: s}",
            "line 2: channels.desk.url: ",
        ),
        (
            "channels:\n  desk: {kind: webhook, url: 'https://x.example', secretFile: short}",
            "line 2: channels.desk.secretFile: a secret is whsec_",
        ),
        (f"{MAIL}default:\n  channels: [{{channel: post}}]", "line 3: default.channels.0.channel: there is no"),
        (f"{MAIL}default:\n  channels: [{{channel: mail}}]", "line 3: default.channels.0.channel: it needs one of to"),
        (
            f"{MAIL}default:\n  channels: [{{channel: mail, to: contact, toEnv: X}}]",
            "line 3: default.channels.0.toEnv: there is no to there",
        ),
        (
            f"{MAIL}default:\n  channels: [{{channel: mail, to: contact}}, {{channel: mail, toEnv: X}}]",
            "line 3: default.channels: mail is named twice",
        ),
        (f"{MAIL}default:\n  channels: [{{channel: mail, to: a@b.example}}]", "line 3: default.channels.0.to: "),
        (
            f"{MAIL}default:\n  channels: [{{channel: mail, to: contact, types: [all]}}]",
            "line 3: default.channels.0.types.0: ",
        ),
        (f"{MAIL}default:\n  escalations: [{{channel: post}}]", "line 3: default.escalations.0.channel: there is no"),
        (
            f"{MAIL}default:\n  escalations: [{{channel: mail}}]",
            "line 3: default.escalations.0.channel: it needs one of toFile and toEnv",
        ),
        (f"{MAIL}default:\n  escalations: [{{channel: mail, to: contact}}]", "line 3: default.escalations.0.to: "),
        (
            f"{MAIL}default:\n  escalations: [{{channel: mail, toEnv: X, states: [completed]}}]",
            "line 3: default.escalations.0.states.0: ",
        ),
        (
            f"{MAIL}tenants:\n  acme:\n    customers: {{x: {{escalations: []}}}}",
            "line 4: tenants.acme.customers.x.escalations: ",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_place(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "short").write_text("whsec_c2hvcnQ=")
    (tmp_path / "s").write_text(SECRET)
    with pytest.raises(Misconfigured) as wrong:
        read(tmp_path, text)

    assert str(wrong.value).startswith(f"{tmp_path}/rules.yaml, {words}")
    assert "s3cret" not in str(wrong.value)


def test_a_time_without_quotation_marks_is_a_time(tmp_path: Path) -> None:
    """YAML makes a number of 22:00, and none of 07:00."""
    found = read(tmp_path, "default: {quietHours: {from: 22:00, to: 07:30, days: [friday]}}")

    hours = found.of("acme", "x").quiet
    assert hours
    assert (hours.begin, hours.end, hours.days) == (time(22), time(7, 30), {4})


def test_what_holds_nearer_replaces_what_holds_for_all(tmp_path: Path) -> None:
    text = (
        f"{MAIL}default: {{updateInterval: 60, channels: [{{channel: mail, to: contact}}]}}\n"
        "tenants: {acme: {updateInterval: 0, customers: {x: {channels: []}}}}"
    )
    found = read(tmp_path, text)

    assert [found.of(*who).rules.interval for who in (("globex", "x"), ("acme", "y"), ("acme", "x"))] == [60, 0, 0]
    assert [len(found.of(*who).recipients) for who in (("globex", "x"), ("acme", "y"), ("acme", "x"))] == [1, 1, 0]
    assert read(tmp_path, "{}").of("acme", "x").rules.interval == 900


# templates

TOLD: dict[str, Any] = {
    "id": "7b1e",
    "notificationType": "serviceAffected",
    "relatedParty": [{"id": "northwind"}],
    "service": [{"id": "s1", "name": "A <b>bold</b> access"}],
    "affectedSince": "2026-07-02T17:00:00Z",
    "cause": "link a & b fails",
}
ZONE = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"problem.txt": "a\n{{ servces }}"}, "problem.txt, line 2: there is no variable servces"),
        ({"problem.txt": "a\n\n{% if %}"}, "problem.txt, line 3: "),
        ({"problem.txt": "a\n{{ services[0].price }}"}, "problem.txt, line 2: 'dict object' has no"),
        ({"problem.txt": "a\n{{ services[0].name }}"}, "problem.txt, line 2: list object has no"),
        ({"problem.txt": "{{ ''.__class__.__mro__ }}"}, "problem.txt, line 1: access to attribute"),
        ({"problem.txt": "{{ range(3) }}"}, "problem.txt, line 1: there is no variable range"),
        ({"problem.txt": "{% include '/etc/passwd' %}"}, "problem.txt, line 1: there is no template /etc/passwd"),
        ({"problem.html": "x", "problem.subject.txt": None}, "problem.subject.txt is missing: problem.txt replaces"),
        ({"probelm.txt": "x"}, "probelm.txt: no message has this name"),
        ({"_part.txt": "{{ nothing }}"}, "_part.txt, line 1: there is no variable nothing"),
    ],
)  # fmt: skip
def test_a_template_that_cannot_be_used_is_refused_with_its_place(
    tmp_path: Path, files: dict[str, str | None], words: str
) -> None:
    """Also one that works only as long as everything is known, and one in a tenant's folder."""
    wanted = {name: text for name, text in {"problem.subject.txt": "x", "problem.txt": "x", **files}.items() if text}
    for folder in (tmp_path, tmp_path / "acme"):
        folder.mkdir(exist_ok=True)
        for name, text in wanted.items():
            (folder / name).write_text(text)

        with pytest.raises(Misconfigured) as wrong:
            wording.load(tmp_path)

        assert words in str(wrong.value)
        for name in wanted:
            (folder / name).unlink()


def test_a_tenants_words_go_before_the_operators_and_those_before_ours(tmp_path: Path) -> None:
    """Message by message: one that has a text of its own has no HTML of ours beside it."""
    (tmp_path / "acme").mkdir()
    for folder, words in ((tmp_path, "operator"), (tmp_path / "acme", "acme")):
        (folder / "problem.subject.txt").write_text(f"{words}: {{{{ services[0].name if services }}}}")
        (folder / "problem.txt").write_text("{% include '_greeting.txt' %}{{ since | local }}")
    found = wording.load(tmp_path)

    acme, globex = found.write("acme", TOLD, ZONE), found.write("globex", TOLD, ZONE)
    restored = found.write("acme", {**TOLD, "notificationType": "serviceRestored"}, ZONE)
    assert (acme.subject, acme.html) == ("acme: A <b>bold</b> access", "")
    assert globex.subject == "operator: A <b>bold</b> access"
    assert acme.text == "Dear customer northwind,\n2026-07-02 19:00 CEST"
    assert restored.subject == "Works again: A <b>bold</b> access"
    assert restored.html


def test_what_is_told_cannot_become_markup_or_another_header() -> None:
    """Devices and people wrote what is in it."""
    written = wording.load(None).write("acme", {**TOLD, "service": [{"id": "s", "name": "a\nBcc: x <i>"}]}, ZONE)

    assert written.subject == "Disturbed: a Bcc: x <i>"
    assert "<i>" not in written.html
    assert "a &amp; b" in written.html


def test_a_template_that_fails_later_is_refused(tmp_path: Path) -> None:
    (tmp_path / "problem.subject.txt").write_text("x")
    (tmp_path / "problem.txt").write_text("{{ 1 / (id | length) if id else '' }}{{ cause[9000] if cause == 'x' }}")
    with pytest.raises(Refused, match="its template fails: UndefinedError"):
        wording.load(tmp_path).write("acme", {**TOLD, "cause": "x"}, ZONE)


def test_the_docs_name_every_variable_and_template() -> None:
    listed = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", PAGE.partition("| variable |")[2], re.MULTILINE))
    files = {file.name for file in wording.SHIPPED.iterdir() if file.suffix in (".txt", ".html")}

    assert listed == wording.VARIABLES
    assert {name for name in files if f"`{name}`" not in PAGE} == {"_services.txt"}
    assert [type_ for type_ in wording.MESSAGES if f"`{type_}`" not in PAGE] == []


def test_the_file_can_be_tried_before_it_is_in_force(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text("default: {holdDown: {major: 60}}")
    (tmp_path / "bad.yaml").write_text("templates: nowhere")
    good, bad = (
        CliRunner().invoke(main, ["notifications", "check", str(tmp_path / name)]) for name in ("good.yaml", "bad.yaml")
    )

    assert (good.exit_code, good.output) == (0, f"{tmp_path}/good.yaml: nothing to be mended\n")
    assert (bad.exit_code, bad.output) == (78, f"{tmp_path}/bad.yaml, line 1: templates: there is no such folder\n")
