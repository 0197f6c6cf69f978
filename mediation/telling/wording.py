"""The words in which customers are told things: Jinja templates, ours and the operator's, all tried at the start.

Each message has a subject, a text and, if wanted, HTML: problem.subject.txt, problem.txt, problem.html. The nearest
folder that has any of the three has the message: the tenant's, the operator's, the one that ships. Templates run in a
sandbox, are given the variables below and no more, and one that names anything else is refused when it is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache
from importlib.resources import files
from pathlib import Path
from traceback import walk_tb
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from jinja2 import (
    ChoiceLoader,
    Environment,
    FileSystemLoader,
    StrictUndefined,
    TemplateError,
    TemplateNotFound,
    TemplateSyntaxError,
    nodes,
    pass_context,
)
from jinja2.meta import find_undeclared_variables
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from convergedon.core.errors import Misconfigured, Refused

MESSAGES: Mapping[str, str] = {
    "serviceAffected": "problem",
    "serviceUpdated": "update",
    "serviceRestored": "all-clear",
    "serviceEnded": "ended",
    "serviceSummary": "summary",
    "orderCompleted": "order",
    "orderFailed": "order",
    "orderCancelled": "order",
    "workflowEscalated": "escalation",
}
"""notificationType -> the message that tells it."""
PARTS = (".subject.txt", ".txt", ".html")
VARIABLES: Mapping[str, str] = {
    "id": "the notification's id",
    "type": "the notificationType",
    "time": "when the customer was told",
    "text": "the sentences that the notification says",
    "customer": "the customer's name where it is known, else its id",
    "services": "what it is about: of each service `id` and `name`",
    "restored": "services that work again while others are still disturbed, likewise",
    "ended": "services that have ended while they were disturbed, likewise",
    "orders": "ids of the orders it is about",
    "cause": "by what services are disturbed",
    "since": "since when they have been",
    "estimate": "when they are expected to work again",
    "until": "when they worked again, or ended",
    "reason": "of a summary: what has kept it back",
    "disturbances": "of a summary: of each problem `services`, `since`, `until` and `cause`",
    "timezone": "the customer's timezone, which the filter `local` goes by",
    "survey": "a link to a survey, where there is one",
    "run": "of an escalation: `workflow`, `device`, `state`, `reason`, `id` and `href` of the run",
}
"""What templates are given. What is not known is an empty text or an empty list."""


RUN = ("workflow", "device", "state", "reason", "id", "href")


class Written(NamedTuple):
    subject: str
    text: str
    html: str


def variables(told: Mapping[str, Any], zone: ZoneInfo) -> dict[str, Any]:
    """What a template is given of a notification as it may be told."""
    parties = told.get("relatedParty") or [{}]
    return {
        "id": told.get("id", ""),
        "type": told["notificationType"],
        "time": told.get("notificationTime", ""),
        "text": told.get("text", ""),
        "customer": parties[0].get("name") or parties[0].get("id", ""),
        "services": _named(told.get("service")),
        "restored": _named(told.get("restoredService")),
        "ended": _named(told.get("endedService")),
        "orders": [order["id"] for order in told.get("productOrder") or []],
        "cause": told.get("cause", ""),
        "since": told.get("affectedSince", ""),
        "estimate": told.get("expectedRestoration", ""),
        "until": told.get("restoredAt") or told.get("endedAt", ""),
        "reason": told.get("keptBackBy", ""),
        "disturbances": [
            {
                "services": _named(one.get("service")),
                "since": one.get("affectedSince", ""),
                "until": one.get("restoredAt", ""),
                "cause": one.get("cause", ""),
            }
            for one in told.get("disturbance") or []
        ],
        "timezone": zone.key,
        "survey": told.get("surveyLink", ""),
        "run": {**dict.fromkeys(RUN, ""), **told.get("workflowRun", {})},
    }


def _named(services: Sequence[Mapping[str, Any]] | None) -> list[dict[str, str]]:
    return [{"id": one["id"], "name": one.get("name") or one["id"]} for one in services or []]


@pass_context
def local(context: Context, given: str) -> str:
    """A time in the customer's timezone, to the minute; nothing of nothing."""
    if not given:
        return ""
    return datetime.fromisoformat(given).astimezone(ZoneInfo(context["timezone"])).strftime("%Y-%m-%d %H:%M %Z")


class Wording:
    """``folder`` is the operator's; the folders in it are of tenants, by their names."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._levels = cache(self._of)
        self._parts = cache(self._parts_of)

    def write(self, tenant: str, told: Mapping[str, Any], zone: ZoneInfo) -> Written:
        """The words for a notification. Raises Refused when its template does not come to its end."""
        given = variables(told, zone)
        try:
            subject, text, html = (
                environment.get_template(name).render(given) if environment else ""
                for environment, name in self._parts(tenant, MESSAGES[told["notificationType"]])
            )
        except Exception as error:  # whatever a template does
            raise Refused(f"its template fails: {type(error).__name__}: {error}") from error
        return Written(" ".join(subject.split()), text, html)

    def _parts_of(self, tenant: str, message: str) -> Sequence[tuple[Environment | None, str]]:
        """Where the three parts of a message are: all in one folder. HTML may be none."""
        environment, folder = next(
            (environment, folder)
            for folder, environment in self._levels(tenant)
            if any((folder / f"{message}{part}").is_file() for part in PARTS)
        )
        names = [f"{message}{part}" for part in PARTS]
        return [(environment if name[-5:] != ".html" or (folder / name).is_file() else None, name) for name in names]

    def _of(self, tenant: str) -> list[tuple[Path, Environment]]:
        """The folders that a tenant's messages are looked for in, each with what may be included from there."""
        own = [self._folder / tenant, self._folder] if self._folder else []
        folders = [folder for folder in own if folder.is_dir()] + [SHIPPED]
        return [(folder, _environment(folders[place:])) for place, folder in enumerate(folders)]

    def check(self) -> None:
        """Try every template. Raises Misconfigured with file and line."""
        tenants = sorted(one.name for one in self._folder.iterdir() if one.is_dir()) if self._folder else []
        for tenant in ["", *tenants]:
            for folder, environment in self._levels(tenant):
                for file in sorted(file for file in folder.iterdir() if file.is_file()):
                    _check_name(file)
                    _check_names(file, environment)
                _check_parts(folder)
            for type_, message in MESSAGES.items():
                for where, name in self._parts(tenant, message):
                    if where:
                        _try(where, name, type_)


def load(folder: Path | None) -> Wording:
    """The templates of a folder and those that ship, tried. Raises Misconfigured."""
    found = Wording(folder)
    found.check()
    return found


SHIPPED = Path(str(files("convergedon.mediation.telling") / "templates"))


def _environment(folders: Sequence[Path]) -> Environment:
    environment = ImmutableSandboxedEnvironment(
        loader=ChoiceLoader([FileSystemLoader(folder) for folder in folders]),
        undefined=StrictUndefined,
        autoescape=lambda name: bool(name) and str(name).endswith(".html"),
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.globals.clear()
    environment.filters["local"] = local
    return environment


def _check_name(file: Path) -> None:
    """One that begins with _ is for others to include; any other tells a message."""
    known = {f"{message}{part}" for message in MESSAGES.values() for part in PARTS}
    if not file.name.startswith("_") and file.name not in known:
        raise Misconfigured(f"{file}: no message has this name: {', '.join(sorted(known))}, or _{file.name} to include")


def _check_parts(folder: Path) -> None:
    """That each message that is here has its subject and its text here, too."""
    for message in MESSAGES.values():
        there = [part for part in PARTS if (folder / f"{message}{part}").is_file()]
        if there and (missing := {".subject.txt", ".txt"}.difference(there)):
            raise Misconfigured(
                f"{folder / message}{min(missing)} is missing: {message}{there[0]} replaces the whole of its message"
            )


def _check_names(file: Path, environment: Environment) -> None:
    """That it can be read, and names nothing that it is not given."""
    try:
        tree = environment.parse(file.read_text(encoding="utf-8"), file.name, str(file))
    except TemplateSyntaxError as error:
        raise Misconfigured(f"{file}, line {error.lineno}: {error.message}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(f"{file}: cannot be read: {getattr(error, 'strerror', '') or 'it is not UTF-8'}") from None
    unknown = find_undeclared_variables(tree) - VARIABLES.keys()
    for name in tree.find_all(nodes.Name):
        if name.name in unknown:
            known = ", ".join(VARIABLES)
            raise Misconfigured(f"{file}, line {name.lineno}: there is no variable {name.name}; there are {known}")


def _try(environment: Environment, name: str, type_: str) -> None:
    """That it comes to its end, with all that can be known and with nothing."""
    for given in _samples(type_):
        try:
            environment.get_template(name).render(given)
        except TemplateNotFound as error:
            raise Misconfigured(f"{_where(error, name)}: there is no template {error.name}") from None
        except Exception as error:  # whatever a template does
            raise Misconfigured(f"{_where(error, name)}: {_words(error)}") from None


def _where(error: Exception, name: str) -> str:
    """The file and line at which rendering ended: Jinja has its frames say so."""
    lines = [(frame.f_code.co_filename, line) for frame, line in walk_tb(error.__traceback__)]
    file, line = next((one for one in reversed(lines) if one[0].endswith((".txt", ".html"))), (name, 1))
    return f"{file}, line {line}"


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, TemplateError) else f"{type(error).__name__}: {error}"


def _samples(type_: str) -> Iterator[dict[str, Any]]:
    then = "2026-03-02T17:00:00Z"
    service = [{"id": "service-1", "name": "Internet access"}]
    said: dict[str, Any] = {"notificationType": type_, "text": "Your service is disturbed.", "cause": "a link fails"}
    said |= {"id": "7b1e", "notificationTime": then, "relatedParty": [{"id": "northwind", "name": "Northwind"}]}
    said |= {
        "service": service,
        "restoredService": service,
        "endedService": service,
        "productOrder": [{"id": "51c0"}],
        "affectedSince": then,
    }
    said |= {"expectedRestoration": then, "restoredAt": then, "keptBackBy": "maintenance core upgrade"}
    said |= {"surveyLink": "https://gateway.example/survey"}
    said["workflowRun"] = {**dict.fromkeys(RUN, "x"), "workflow": "bounce-interface", "device": "pe1"}
    said["disturbance"] = [{"service": service, "affectedSince": then, "restoredAt": then, "cause": "a link fails"}]
    yield variables(said, ZoneInfo("UTC"))
    yield variables({"notificationType": type_}, ZoneInfo("UTC"))
