"""An event in the words of the version at which its listener is registered: all of them from one stored change.

Events are stored in the form of version 4, with the resource as it is kept and what is kept beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from convergedon.handlers import documents
from convergedon.handlers.apis import APIS
from convergedon.handlers.resource import Api
from convergedon.handlers.versions import BEYOND
from convergedon.openapi import document

Event = Mapping[str, Any]
SYSTEM = {"id": "convergedon", "name": "ConvergedON", "@type": "EntityRef"}


def bases(about: Mapping[str, Any]) -> Sequence[str]:
    """The APIs whose listeners an event is for: all versions that have its resource."""
    return tuple(dict.fromkeys((about["base"], *_bases(about["kind"]))))


@lru_cache(1024)
def _bases(kind: str) -> Sequence[str]:
    return tuple(api.base for api in APIS if any(resource.name == kind for resource in api.resources))


def told(about: Mapping[str, Any], base: str) -> Event | None:
    """The event as an API tells it; nothing where this version has no such event, or all that changed is beyond it."""
    event: Event = about["event"]
    api = next((api for api in APIS if api.base == base), None)
    if api is None:
        return event
    type_ = _type(event, about["kind"], api)
    if type_ not in document(api.document)["components"]["schemas"]:
        return None
    fourth = not documents.shape(api.document, "Event").always
    if fourth:
        event = _declared(event, documents.shape(api.document, type_))
    if about["kind"] not in api.translations:
        return event
    if fourth and about.get("news") and not event.get("fieldPath", "all"):
        return None
    kept, word = event["event"][about["kind"]], api.word(about["kind"])
    href = str(kept["href"]).replace(f"{about['base']}/{about['kind']}/", f"{base}/{word}/")
    body = {name: value for name, value in kept.items() if name not in ("id", "href")}
    said = api.translation(about["kind"]).outward(body, about.get(BEYOND) or {})
    worded = {**event, "event": {word: {"id": kept["id"], "href": href, **said}}}
    return worded if fourth else _fifth({**worded, "eventType": type_, "title": type_}, href, about, word)


def _declared(event: Event, shape: documents.Shape) -> Event:
    """The envelope as the document has it: the events of usage and services do not say id and href beside it."""
    return {name: value for name, value in event.items() if shape.has(name)}


def _type(event: Event, kind: str, api: Api) -> str:
    """The event's type as an API calls it."""
    said = str(event["eventType"])
    resource = next((resource for resource in api.resources if resource.name == kind), None)
    return api.schema(resource) + said.removeprefix(resource.schema) if resource else said


def _fifth(event: Event, href: str, about: Mapping[str, Any], word: str) -> Event:
    """The envelope of version 5."""
    others = {name: value for name, value in event.items() if name not in ("timeOcurred", "fieldPath")}
    changed = [*filter(None, event.get("fieldPath", "").split(",")), *about.get("news", ())]
    return {
        "@type": event["eventType"],
        "@baseType": "Event",
        **others,
        "id": about["id"],
        "href": href,
        "timeOccurred": event["timeOcurred"],
        **({"fieldPath": ",".join(changed)} if "fieldPath" in event else {}),
        "source": {"id": about["id"], "href": href, "@type": "EntityRef", "@referredType": word[:1].upper() + word[1:]},
        "reportingSystem": SYSTEM,
    }
