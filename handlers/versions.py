"""Several versions of one API over the same records: how what is kept looks in another version.

Records are kept in the form of the version that is declared first. Another version is a table of rules, for each schema
of its document those by which its objects differ; ``Form`` walks a body along the document and applies them. What the
version can say beyond that is kept beside the body, in the fact ``beyond``, as the difference between what was said and
what the kept body alone would show: nothing a client said is lost, nothing stands twice, and where another version
changes what the difference was made from, the change is what shows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Protocol

from convergedon.core.errors import Invalid, Unsupported
from convergedon.core.matching import written_alike
from convergedon.handlers import documents
from convergedon.openapi import document

Body = Mapping[str, Any]
Kept = tuple[Body, Body]
"""A record's body, and what is kept beside it."""
BEYOND = "beyond"
TYPE = "@type"


class Translation(Protocol):
    """How one resource looks in another version. ``outward`` after ``inward`` is the identity."""

    def outward(self, body: Body, beyond: Body) -> dict[str, Any]:
        """A kept body, and what is kept beside it, in this version's form."""
        ...

    def inward(self, body: Body, before: Kept | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """A body of this version as it is kept, and what only this version can say. Raises Invalid.

        What shows as it did ``before`` is kept as it was before.
        """
        ...

    def path(self, path: str) -> str:
        """Where a record keeps an attribute that this version calls so: ``body.orderDate`` for ``creationDate``."""
        ...

    def others(self, path: str) -> str:
        """Where a record keeps what an attribute has beyond the one value at its ``path``, if it may have several."""
        ...

    def values(self, path: str, value: Any) -> list[Any]:
        """The kept values that this version shows as this one."""
        ...


class _Same:
    """The version in which records are kept."""

    def outward(self, body: Body, beyond: Body) -> dict[str, Any]:
        return dict(body)

    def inward(self, body: Body, before: Kept | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        return dict(body), dict(before[1]) if before else {}

    def path(self, path: str) -> str:
        return f"body.{path}"

    def others(self, path: str) -> str:
        return ""

    def values(self, path: str, value: Any) -> list[Any]:
        return [value]


SAME: Translation = _Same()


# Rules: how an object of a schema differs. They change a copy of the object in its place.


class Rule:
    """No difference at all."""

    def outward(self, body: dict[str, Any]) -> None:
        """From the kept form to the version's."""

    def inward(self, body: dict[str, Any]) -> None:
        """From the version's form to the kept one; what has no place there goes."""

    def path(self, path: list[str]) -> list[str]:
        """An attribute of the version, by the names that lead to it, as the kept form calls it."""
        return path

    def beyond(self, path: Sequence[str]) -> bool:
        """Whether the kept form has no place for an attribute."""
        return False

    def lists(self, path: Sequence[str]) -> bool:
        """Whether an attribute is one of the elements of which only the first is kept."""
        return False

    def values(self, member: str, value: Any) -> list[Any]:
        return [value]


@dataclass(frozen=True)
class Renamed(Rule):
    name: str
    kept: str

    def outward(self, body: dict[str, Any]) -> None:
        if self.kept in body:
            body[self.name] = body.pop(self.kept)

    def inward(self, body: dict[str, Any]) -> None:
        if self.name in body:
            body[self.kept] = body.pop(self.name)

    def path(self, path: list[str]) -> list[str]:
        return [self.kept, *path[1:]] if path[0] == self.name else path


@dataclass(frozen=True)
class Only(Rule):
    """Members that only this version has."""

    names: tuple[str, ...]

    def inward(self, body: dict[str, Any]) -> None:
        for name in self.names:
            body.pop(name, None)

    def beyond(self, path: Sequence[str]) -> bool:
        return path[0] in self.names


@dataclass(frozen=True)
class Follows(Rule):
    """A member that only this version has and that follows from the kept form, where that has any of it."""

    name: str
    of: Callable[[Body], Any]

    def outward(self, body: dict[str, Any]) -> None:
        if found := self.of(body):
            body[self.name] = found


@dataclass(frozen=True)
class Hidden(Rule):
    """A member of the kept form that this version has not."""

    name: str

    def outward(self, body: dict[str, Any]) -> None:
        body.pop(self.name, None)


@dataclass(frozen=True)
class Listed(Rule):
    """One text is kept; here it is the ``member`` of the first of several objects."""

    name: str
    member: str

    def outward(self, body: dict[str, Any]) -> None:
        if self.name in body:
            body[self.name] = [{self.member: body[self.name]}]

    def inward(self, body: dict[str, Any]) -> None:
        first: Body = next(iter(body.pop(self.name, ())), {})
        if self.member in first:
            body[self.name] = first[self.member]

    def path(self, path: list[str]) -> list[str]:
        return path[:1] if path == [self.name, self.member] else path

    def lists(self, path: Sequence[str]) -> bool:
        return path[0] == self.name and len(path) > 1

    def beyond(self, path: Sequence[str]) -> bool:
        return self.lists(path) and list(path[1:]) != [self.member]


@dataclass(frozen=True)
class Enclosed(Rule):
    """What is kept flat stands in a member here, except what is ``outside``."""

    member: str
    outside: tuple[str, ...]

    def outward(self, body: dict[str, Any]) -> None:
        if inside := {name: body.pop(name) for name in [*body] if name not in self.outside}:
            body[self.member] = inside

    def inward(self, body: dict[str, Any]) -> None:
        inside = body.get(self.member, {})
        for name in [*body]:
            if name not in self.outside:
                del body[name]
        body.update({name: value for name, value in inside.items() if name not in self.outside})

    def path(self, path: list[str]) -> list[str]:
        return path[1:] if path[0] == self.member and len(path) > 1 else path


@dataclass(frozen=True)
class Opened(Rule):
    """What is kept in a member is flat here, beside what is ``outside``."""

    member: str
    outside: tuple[str, ...]

    def outward(self, body: dict[str, Any]) -> None:
        inside = body.pop(self.member, {})
        for name in [*body]:
            if name not in self.outside:
                del body[name]
        body.update({name: value for name, value in inside.items() if name not in self.outside})

    def inward(self, body: dict[str, Any]) -> None:
        body[self.member] = {name: body.pop(name) for name in [*body] if name not in self.outside}

    def path(self, path: list[str]) -> list[str]:
        return path if path[0] in self.outside else [self.member, *path]


@dataclass(frozen=True)
class Supplied(Rule):
    """A member that the kept form must have; here its usual value goes without saying, where ``where`` is."""

    name: str
    value: Any
    where: str

    def outward(self, body: dict[str, Any]) -> None:
        if body.get(self.name) == self.value and self.where in body:
            del body[self.name]

    def inward(self, body: dict[str, Any]) -> None:
        if self.where in body:
            body.setdefault(self.name, self.value)


@dataclass(frozen=True)
class Valued(Rule):
    """A kept value that this version has no word for shows as another."""

    name: str
    shown: Mapping[str, str]

    def outward(self, body: dict[str, Any]) -> None:
        if self.name in body:
            body[self.name] = self.shown.get(body[self.name], body[self.name])

    def values(self, member: str, value: Any) -> list[Any]:
        return [value, *(kept for kept, shown in self.shown.items() if member == self.name and shown == value)]


@dataclass(frozen=True)
class Begins(Rule):
    """A wish for a first ``state``, kept as that state."""

    name: str
    wish: str
    state: str

    def inward(self, body: dict[str, Any]) -> None:
        if body.pop(self.name, None) == self.wish:
            body.setdefault(self.state, self.wish)

    def beyond(self, path: Sequence[str]) -> bool:
        return path[0] == self.name


Rules = Mapping[str, Sequence[Rule]]
Usual = Callable[[Body], str]
"""The @type that an object has when it does not say."""


# Along a document


@dataclass(frozen=True)
class Member:
    """What stands in a member: objects of a ``schema``, ``many`` in an array."""

    schema: str
    many: bool


class Form:
    """Bodies of one version: ``rules`` by schema of its document, and where ``typed`` the @type of every object.

    ``usual`` says for a schema with several alternatives, by its name, which of them an object is.
    """

    def __init__(self, name: str, rules: Rules, usual: Mapping[str, Usual] | None = None) -> None:
        self._name, self._rules, self._usual = name, rules, usual or {}
        self._typed = usual is not None
        self._schemas: Mapping[str, Any] = document(name)["components"]["schemas"]
        self._members: dict[str, dict[str, Member]] = {}
        self._kinds: dict[tuple[str, str], bool] = {}
        self._with_type = {name for name, schema in self._schemas.items() if self._typed and self._has_type(schema)}

    def _has_type(self, schema: Body) -> bool:
        parts = [*schema.get("allOf", ()), *schema.get("anyOf", ())]
        return TYPE in schema.get("properties", {}) or any(
            self._has_type(self._schemas[_target(part)] if "$ref" in part else part) for part in parts
        )

    def members(self, schema: str) -> Mapping[str, Member]:
        """The members that hold objects; without types those alone below which a rule waits."""
        if schema not in self._members:
            found = self._members[schema] = dict(self._declared(self._schemas[schema]))
            if not self._typed:
                for name in [name for name, member in found.items() if not self._leads(member.schema, set())]:
                    del found[name]
        return self._members[schema]

    def _leads(self, schema: str, seen: set[str]) -> bool:
        if schema in self._rules:
            return True
        seen.add(schema)
        below = (member.schema for _, member in self._declared(self._schemas[schema]))
        return any(self._leads(one, seen) for one in below if one not in seen)

    def _declared(self, schema: Body) -> Iterator[tuple[str, Member]]:
        for part in [*schema.get("allOf", ()), *schema.get("anyOf", ())]:
            yield from self._declared(self._schemas[_target(part)] if "$ref" in part else part)
        for name, part in schema.get("properties", {}).items():
            many = part.get("type") == "array"
            target = _target(part["items"] if many else part)
            if target and self._is_object(self._schemas[target]):
                yield name, Member(target, many)

    def _is_object(self, schema: Body) -> bool:
        return schema.get("type") == "object" or "allOf" in schema or "anyOf" in schema

    def _is_concrete(self, name: str) -> bool:
        return name in self._schemas and "anyOf" not in self._schemas[name]

    def _is_kind(self, name: str, of: str) -> bool:
        """Whether a schema is another one, one of its alternatives or made from one of these."""
        if (name, of) not in self._kinds:
            schema, whole = self._schemas.get(name, {}), self._schemas[of]
            parts = [_target(part) for part in schema.get("allOf", ())]
            alternatives = [_target(part) for part in whole.get("anyOf", ())]
            self._kinds[name, of] = (
                name == of
                or any(self._is_kind(part, of) for part in parts if part)
                or any(self._is_kind(name, one) for one in alternatives)
            )
        return self._kinds[name, of]

    def usual(self, body: Body, schema: str) -> str:
        return self._usual[schema](body) if schema in self._usual else schema

    def _kind(self, body: Body, schema: str) -> str:
        """The schema that an object follows: what it says it is, if the document knows it."""
        if not self._typed:
            return schema
        said = body.get(TYPE)
        if isinstance(said, str) and self._is_concrete(said) and self._is_kind(said, schema):
            return said
        usual = self.usual(body, schema)
        return usual if usual in self._schemas else schema

    def _within(self, body: dict[str, Any], kind: str, turn: Callable[[Any, str], Any]) -> None:
        for name, member in self.members(kind).items():
            if name not in body:
                continue
            value, schema = body[name], member.schema
            if isinstance(value, dict):
                body[name] = turn(value, schema)
            elif isinstance(value, list):
                body[name] = [turn(one, schema) if isinstance(one, dict) else one for one in value]

    def outward(self, kept: Body, schema: str) -> dict[str, Any]:
        """A kept object in this form."""
        body, kind = dict(kept), self._kind(kept, schema)
        for rule in self._rules.get(kind, ()):
            rule.outward(body)
        self._within(body, kind, self.outward)
        if schema in self._with_type:
            body.setdefault(TYPE, self.usual(body, schema))
        return body

    def inward(self, said: Body, schema: str) -> dict[str, Any]:
        """An object of this form as it is kept; a @type that is the usual one goes without saying."""
        body, kind = dict(said), self._kind(said, schema)
        if schema in self._with_type and TYPE in body:
            type_ = body.pop(TYPE)
            if type_ != self.usual(body, schema):
                body[TYPE] = type_
        self._within(body, kind, self.inward)
        for rule in reversed(self._rules.get(kind, ())):
            rule.inward(body)
        return body

    def typed(self, said: Body, schema: str) -> dict[str, Any]:
        """An object of this form with every @type. Raises Invalid for what is not what it says it is."""
        body, kind = dict(said), self._kind(said, schema)
        if kind != schema and TYPE in body:
            documents.schema(self._name, kind).check(body, kind)
        if schema in self._with_type:
            body.setdefault(TYPE, self.usual(said, schema))
        self._within(body, kind, self.typed)
        return body

    def path(self, path: Sequence[str], schema: str) -> list[str]:
        """An attribute of this form as the kept form calls it."""
        if not path:
            return []
        member = self._member(schema, path[0])
        found = [path[0], *(self.path(path[1:], member.schema) if member else path[1:])]
        for rule in reversed(self._all_rules(schema)):
            found = rule.path(found)
        return found

    def beyond(self, path: Sequence[str], schema: str) -> list[str]:
        """Where the difference keeps an attribute that the kept form has no place for; empty if it has one."""
        way: list[str] = []
        for depth, name in enumerate(path):
            for rule in self._all_rules(schema):
                if rule.beyond(path[depth:]):
                    below = path[depth + 1 :]
                    return [*way, name, *(["each", "in", *below, "is"] if rule.lists(path[depth:]) else ["is", *below])]
            member = self._member(schema, name)
            if member is None:
                return []
            way += [name, "each", "in"] if member.many else [name, "in"]
            schema = member.schema
        return []

    def others(self, path: Sequence[str], schema: str) -> list[str]:
        """Where the difference keeps the same attribute of the elements after the first."""
        lists = any(rule.lists(path) for rule in self._all_rules(schema))
        return [path[0], "each", "is", *path[1:]] if lists else []

    def values(self, path: Sequence[str], schema: str, value: Any) -> list[Any]:
        for name in path[:-1]:
            member = self._member(schema, name)
            if member is None:
                return [value]
            schema = member.schema
        found = (rule.values(path[-1], value) for rule in self._all_rules(schema))
        return next((values for values in found if len(values) > 1), [value])

    def _member(self, schema: str, name: str) -> Member | None:
        return next((member for found, member in self._declared(self._schemas[schema]) if found == name), None)

    def _all_rules(self, schema: str) -> list[Rule]:
        """The rules of a schema and of its alternatives."""
        parts = [_target(part) for part in self._schemas[schema].get("anyOf", ())]
        return [rule for name in (schema, *parts) for rule in self._rules.get(name, ())]


def _target(schema: Body) -> str:
    return str(schema.get("$ref", "")).rpartition("/")[2]


# Versions


class Worded:
    """The version in which records are kept, where the record knows more words than it."""

    def __init__(self, name: str, schema: str, rules: Rules) -> None:
        self._form, self._schema = Form(name, rules), schema

    def outward(self, body: Body, beyond: Body) -> dict[str, Any]:
        return self._form.outward(body, self._schema)

    def inward(self, body: Body, before: Kept | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        if before is None:
            return dict(body), {}
        return _unchanged(dict(body), self.outward(*before), before[0]), dict(before[1])

    def path(self, path: str) -> str:
        return f"body.{path}"

    def others(self, path: str) -> str:
        return ""

    def values(self, path: str, value: Any) -> list[Any]:
        return self._form.values(path.split("."), self._schema, value)


class Version:
    """Another version of a resource: its ``form``, and the document and schema in whose form records are kept.

    ``kept`` is the schema's name there, if it has another. ``exact`` members are refused rather than kept in part, as
    what is kept of them decides what is done.
    """

    def __init__(self, form: Form, schema: str, home: str, kept: str = "", exact: Sequence[str] = ()) -> None:
        self._form, self._schema, self._home = form, schema, home
        self._kept, self._exact = kept or schema, frozenset(exact)

    def outward(self, body: Body, beyond: Body) -> dict[str, Any]:
        return _put(self._form.outward(body, self._schema), beyond)

    def inward(self, body: Body, before: Kept | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        said = self._form.typed(body, self._schema)
        kept = self._keepable(said)
        if before:
            kept = _unchanged(kept, self._keepable(self.outward(*before)), before[0])
        return kept, _difference(said, self._form.outward(kept, self._schema))

    def _keepable(self, said: Body) -> dict[str, Any]:
        return _fitting(self._form.inward(said, self._schema), self._home, self._kept, self._exact)

    def path(self, path: str) -> str:
        names = path.split(".")
        if beyond := self._form.beyond(names, self._schema):
            return ".".join(("facts", BEYOND, *beyond))
        return ".".join(("body", *self._form.path(names, self._schema)))

    def others(self, path: str) -> str:
        return (
            ".".join(("facts", BEYOND, *found)) if (found := self._form.others(path.split("."), self._schema)) else ""
        )

    def values(self, path: str, value: Any) -> list[Any]:
        return self._form.values(path.split("."), self._schema, value)


def _fitting(kept: dict[str, Any], home: str, schema: str, exact: Collection[str]) -> dict[str, Any]:
    """A body without what its schema refuses: what the kept form cannot say is kept beside it.

    States are not looked at: they are the lifecycle's. Raises Invalid when a new resource must have it, or has it
    ``exact``.
    """
    whole, required = kept, documents.shape(home, schema).required
    while faults := [path for path in documents.schema(home, schema).faults(whole) if path[-1:] != ["state"]]:
        whole = deepcopy(kept) if whole is kept else whole
        *way, last = max(faults, key=len)
        if way and way[0] in exact:
            raise Invalid(f"{'.'.join(map(str, (*way, last)))} cannot be kept")
        if not way and last in required:
            raise Invalid(f"{last} cannot be kept")
        holder: Any = whole
        for step in way:
            holder = holder[step]
        del holder[last]
    return whole


def _unchanged(fresh: Any, shown: Any, kept: Any) -> Any:
    """What was kept before, where what is fresh is what it showed; also for what it has and did not show."""
    if written_alike(fresh, shown):
        return kept
    if isinstance(fresh, dict) and isinstance(shown, dict) and isinstance(kept, dict):
        unseen = {name: value for name, value in kept.items() if name not in shown and name not in fresh}
        return unseen | {
            name: _unchanged(value, shown[name], kept[name]) if name in shown and name in kept else value
            for name, value in fresh.items()
        }
    if isinstance(fresh, list) and isinstance(shown, list) and isinstance(kept, list) and len(shown) == len(kept):
        former = {_key(label): pair for label, pair in zip(_labels(shown), zip(shown, kept, strict=True), strict=True)}
        return [
            _unchanged(one, *former[_key(label)]) if _key(label) in former else one
            for label, one in zip(_labels(fresh), fresh, strict=True)
        ]
    return fresh


# Differences: {member: {"is": value, "for": what it stands for} | {"in": difference} | {"each": elements}}


def _difference(said: Body, shown: Body) -> dict[str, Any]:
    """What was said beyond what is shown."""
    found = {name: _entry(value, shown[name]) if name in shown else {"is": value} for name, value in said.items()}
    return {name: entry for name, entry in found.items() if entry}


def _entry(said: Any, shown: Any) -> dict[str, Any]:
    if written_alike(said, shown):
        return {}
    if isinstance(said, dict) and isinstance(shown, dict) and not shown.keys() - said.keys():
        return {"in": _difference(said, shown)}
    if isinstance(said, list) and isinstance(shown, list):
        there = {_key(label): (label, one) for label, one in zip(_labels(shown), shown, strict=True)}
        each = [
            _element(number, one, there.pop(_key(label), None))
            for number, (label, one) in enumerate(zip(_labels(said), said, strict=True))
        ]
        if not there:
            return {"each": [entry for entry in each if entry]}
    return {"is": said, "for": shown}


def _element(number: int, said: Any, there: tuple[Any, Any] | None) -> dict[str, Any]:
    if there is None:
        return {"is": said, "at": number}
    (label, nth), shown = there
    inside = _difference(said, shown) if isinstance(said, dict) else {}
    return {"of": label, "nth": nth, "in": inside} if inside else {}


def _put(shown: dict[str, Any], difference: Body) -> dict[str, Any]:
    """What is shown, with a difference put back where it was made."""
    for name, entry in difference.items():
        if "in" in entry and isinstance(shown.get(name), dict):
            shown[name] = _put(shown[name], entry["in"])
        elif "each" in entry and isinstance(shown.get(name, []), list):
            shown[name] = _put_each(shown.get(name, []), entry["each"])
        elif "is" in entry and written_alike(shown.get(name, ...), entry.get("for", ...)):
            shown[name] = entry["is"]
    return shown


def _put_each(shown: list[Any], each: Sequence[Body]) -> list[Any]:
    inside = {_key((entry["of"], entry["nth"])): entry["in"] for entry in each if "of" in entry}
    found = [
        _put(one, inside[_key(label)]) if isinstance(one, dict) and _key(label) in inside else one
        for label, one in zip(_labels(shown), shown, strict=True)
    ]
    for entry in each:
        if "at" in entry:
            found.insert(entry["at"], entry["is"])
    return found


def _labels(elements: Sequence[Any]) -> Iterator[tuple[Any, int]]:
    """What an element of an array is known by: its id or else all of it; and how many such stand before it."""
    seen: dict[str, int] = {}
    for one in elements:
        label = one["id"] if isinstance(one, dict) and isinstance(one.get("id"), str) else one
        key = _key(label)
        seen[key] = seen.get(key, -1) + 1
        yield label, seen[key]


def _key(label: Any) -> str:
    return repr(sorted(label.items())) if isinstance(label, dict) else repr(label)


# Questions


def kept_where(where: Mapping[str, Any], translation: Translation, inside: str = "") -> dict[str, Any]:
    """A store's condition on a version's attributes, on what is kept. Raises Unsupported for what is not comparable."""
    found: dict[str, Any] = {}
    for field, condition in where.items():
        if field.startswith("$"):
            found[field] = [kept_where(part, translation, inside) for part in condition]
            continue
        name = inside + field.removeprefix("body.")
        field_kept = kept_field(f"body.{name}" if inside else field, translation)
        if inside:
            begin = kept_field(f"body.{inside.removesuffix('.')}", translation)
            if not field_kept.startswith(f"{begin}."):
                raise Unsupported(f"{name} is kept beside the rest of its element: compare it without a nested filter")
            field_kept = field_kept.removeprefix(f"{begin}.")
        if isinstance(condition, Mapping) and "$elemMatch" in condition:
            if translation.others(f"{name}.any"):
                raise Unsupported(f"{name} is not kept as an array: compare its members without a nested filter")
            found[field_kept] = {"$elemMatch": kept_where(condition["$elemMatch"], translation, f"{name}.")}
        else:
            found[field_kept] = _kept_values(condition, name, translation)
            if field.startswith("body.") and (others := translation.others(name)):
                negative = isinstance(condition, Mapping) and condition.keys() & {"$ne", "$nin"}
                either = [{field_kept: found.pop(field_kept)}, {others: condition}]
                found["$and"] = [*found.pop("$and", ()), *(either if negative else [{"$or": either}])]
    return found


def kept_field(field: str, translation: Translation) -> str:
    """A field of a store's condition or sort."""
    if field.startswith("body."):
        return translation.path(field.removeprefix("body."))
    if not field.startswith("facts.at."):
        return field
    name = field.removeprefix("facts.at.")
    begin, _, path = translation.path(name).partition(".")
    if begin != "body":
        raise Unsupported(f"{name} is not kept in a way that date-times can be compared")
    return f"facts.at.{path}"


def _kept_values(condition: Any, name: str, translation: Translation) -> Any:
    def kept(values: Sequence[Any]) -> list[Any]:
        return [one for value in values for one in translation.values(name, value)]

    if not isinstance(condition, Mapping):
        values = kept([condition])
        return {"$in": values} if len(values) > 1 else condition
    if "$ne" in condition and len(values := kept([condition["$ne"]])) > 1:
        return {"$nin": values}
    return {way: kept(given) if way in ("$in", "$nin") else given for way, given in condition.items()}
