"""Reading the files an operator writes: YAML that says nothing twice, held against a model that knows every key.

Whatever is wrong is one Misconfigured sentence with the file, the line and the key, and never with a value: it may be a
secret.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from convergedon.core.errors import Misconfigured

MERGE = "tag:yaml.org,2002:merge"
Model = TypeVar("Model", bound="Strict")


class Strict(BaseModel):
    """A section of a file: no unknown keys, no number where text is meant, nothing changed after reading."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


def parsed(file: Traversable) -> tuple[str, Any]:
    """The text of a YAML file and what it holds. Raises Misconfigured."""
    try:
        text = file.read_text(encoding="utf-8")
        return text, yaml.load(text, _Loader)  # noqa: S506 it is a SafeLoader
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(
            f"{file}: cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8'}"
        ) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise Misconfigured(f"{file}{where}: {getattr(error, 'problem', None) or 'this is no YAML'}") from None
    except RecursionError:
        raise Misconfigured(f"{file}: it is nested too deep") from None


def read(model: type[Model], file: Traversable) -> Model:
    """Read a file as the model says. Raises Misconfigured."""
    text, given = parsed(file)
    return _validated(model, {} if given is None else given, file, text, ())


def check(model: type[Model], given: object, file: Traversable, *place: str | int) -> Model:
    """Read as the model says what stands at a place of a file that was read before. Raises Misconfigured."""
    return _validated(model, given, file, parsed(file)[0], place)


def _validated(model: type[Model], given: object, file: Traversable, text: str, place: Sequence[str | int]) -> Model:
    try:
        return model.model_validate(given)
    except ValidationError as error:
        inside, words = _first(error)
        raise Misconfigured(f"{_told(file, text, [*place, *inside])}: {words}") from None


def where(file: Traversable, *place: str | int) -> str:
    """The file, the line and the key of what was read before, as the beginning of a sentence about it."""
    try:
        return _told(file, file.read_text(encoding="utf-8"), place)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):  # it was another file a moment ago
        return f"{file}: {'.'.join(map(str, place))}"


def _told(file: Traversable, text: str, place: Sequence[str | int]) -> str:
    """Of what is not there, the line of that in which it is missing."""
    node, line = yaml.compose(text, _Loader), 1
    for part in place:
        found = _inside(node, part)
        if found is None:
            break
        line, node = found
    return f"{file}, line {line}: {'.'.join(map(str, place)) or 'the file'}"


def _inside(node: yaml.Node | None, part: str | int) -> tuple[int, yaml.Node] | None:
    """The line and the value of a member or an element; None where there is none."""
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part].start_mark.line + 1, node.value[part]
    if isinstance(node, yaml.MappingNode):
        return next(
            ((key.start_mark.line + 1, value) for key, value in node.value if key.value == str(part)),
            None,
        )
    return None


def mapping_file(folder: Path | None, name: str, shipped: Traversable) -> Traversable:
    """The file of this name in the operator's folder of mappings; where there is none, the one that ships.

    Raises Misconfigured when there is no such folder.
    """
    if folder is None:
        return shipped
    if not folder.is_dir():
        raise Misconfigured(f"{folder}: there is no such folder of mapping files (CONVERGEDON_MAPPINGS)")
    own = folder / name
    return own if own.exists() else shipped


WORDS = {
    "extra_forbidden": "this key is not known",
    "missing": "this key is missing",
    "dict_type": "must be a section, with keys and their values",
    "model_type": "must be a section, with keys and their values",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "string_type": "must be text: put quotes around what looks like something else",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
}
"""pydantic's kinds of mistakes whose words speak of Python, in ours."""


def _first(error: ValidationError) -> tuple[list[str | int], str]:
    """Where the first mistake stands, and in what it consists; a key that is missing may be one that is misspelt."""
    found = error.errors(include_url=False, include_input=False)
    first, words = found[0], _words(found[0]["type"], found[0]["msg"])
    strange = [one for one in found if one["type"] == "extra_forbidden" and one["loc"][:-1] == first["loc"][:-1]]
    if first["type"] == "missing" and strange:
        words += f"; {strange[0]['loc'][-1]} is not known"
    return [part for part in first["loc"] if part != "[key]"], words


def _words(kind: str, words: str) -> str:
    return WORDS.get(kind, words.removeprefix("Value error, ").replace("Input should be ", "must be "))


DEEPEST = 100
"""Brackets within brackets that a file may have: of thousands the reader takes minutes, and all of its stack."""


class _Loader(yaml.SafeLoader):
    """YAML's safe subset in which a key that is given twice is an error instead of the last one winning."""

    def fetch_flow_collection_start(self, token: type[yaml.Token]) -> None:
        if self.flow_level >= DEEPEST:
            raise yaml.scanner.ScannerError(None, None, "it is nested too deep", self.get_mark())
        super().fetch_flow_collection_start(token)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """What stands there; a 31st of February, a number of thousands of digits and a wrong tag are no YAML."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, OverflowError, TypeError, AttributeError, LookupError):
            words = "this is not what it looks like, or what its tag says: put quotes around it"
            raise yaml.constructor.ConstructorError(None, None, words, node.start_mark) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():  # a tag may say so of what is none
            if key.tag == MERGE:
                continue
            name = self.construct_object(key, deep=True)
            if not isinstance(name, Hashable):
                continue  # the loader itself refuses it
            if name in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {name!r} is given twice", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)
