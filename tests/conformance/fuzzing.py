"""What schemathesis is told about us: loaded into its process (SCHEMATHESIS_HOOKS) by test_schemathesis.py.

Its check that valid data is accepted is replaced by a stricter one: a request that fits its schema may be refused only
in the words of a line of EXPLAINED, each of which says what a schema cannot.
"""

from __future__ import annotations

import os
import re
from typing import Any
from zlib import crc32

import jsonschema
import schemathesis
from schemathesis.specs.openapi.checks import negative_data_rejection

# One in so many of the cases of the coverage phase is sent: they are thousands for each operation.
SHARE = int(os.environ.get("CONVERGEDON_FUZZ_SHARE", "1"))

MERGES = ("application/json", "application/merge-patch+json")

# Words in which a request that fits its schema is refused -> what the schema cannot say.
EXPLAINED = {
    r"\w+ has no attribute ": "fields, sort and filters name attributes by dotted paths, arrays and free values inside",
    r"there is no attribute ": "the query of a listener is a filter like those of lists",
    r"the filter is not a JSONPath expression|filter: |the filter nests|a filter has at most": "a language of its own",
    r"cannot be changed: ": "what the steps of a JSON Patch change is known when they are done",
    r"cannot be removed: ": "a merge patch may remove what need not be in it",
    r"operation \d+: ": "a JSON Patch's operations have members that depend on each other",
    r"\S+ \S+ is at \"\d+\", not ": "an invented If-Match is outdated",
    r"this Idempotency-Key was used for another request": "keys of a fuzzer meet again",
    r"cannot be stored: ": "names and texts that no store keeps: a zero character, half a surrogate pair",
    r"alarmPattern\.\d+ names no attribute": "it would match every alarm",
    r"\w+ must name its alarm by id or href": "one of two members is needed",
    r"ackState is ": "the official document has no enumeration of it",
    r".* is not a \"uri\"": "shortest texts are tried, also where a format has none that is empty",
    r"[A-Z]\w+(\.\S+)?: ": "what says its type is held to it: readers of documents do not follow a discriminator",
    r".*: -?\d(\.\d+)?e\+\d+ is not of type \"integer\"": "whole numbers of more than 64 bits are not taken",
    r".*callback": "where a listener may be is more than a form",
}


@schemathesis.hook
def filter_case(context: Any, case: Any) -> bool:
    """A fixed share of the coverage phase."""
    if SHARE == 1 or case.meta is None or case.meta.phase.name.value != "coverage":
        return True
    return crc32(repr((case.body, case.query, case.headers, case.path_parameters)).encode()) % SHARE == 0


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """No name is looked up and nobody is called: a listener is on this machine, where none is.

    An empty id, which sequences take from an answer that has one, would make the path of the list.
    """
    if case.path_parameters.get("id") == "":
        case.path_parameters["id"] = "-"
    body = case.body
    if not case.operation.path.endswith("/hub") or not isinstance(body, dict):
        return
    if "://" in str(body.get("callback")):
        body["callback"] = "http://127.0.0.1:9/events"


@schemathesis.check
def refusals_are_explained(ctx: Any, response: Any, case: Any) -> None:
    """What fits the schema is done, or refused in words that are listed."""
    if case.meta is None or not case.meta.generation.mode.is_positive or response.status_code not in (400, 412, 422):
        return
    message = response.json()["message"]
    if not any(re.match(words, message, re.DOTALL) for words in EXPLAINED):
        raise AssertionError(f"{response.status_code} for what the schema allows: {message}")


@schemathesis.check
def nothing_fails(ctx: Any, response: Any, case: Any) -> None:
    """No 5xx, but for a filter that is JSONPath beyond the part that is supported."""
    said = response.json().get("message", "") if response.status_code == 501 else ""
    if response.status_code >= 500 and not said.startswith("filter: "):
        raise AssertionError(f"{response.status_code} for what a client sent")


@schemathesis.check
def what_is_wrong_is_refused(ctx: Any, response: Any, case: Any) -> None:
    """Data that breaks the schema is refused; a merge patch may say null and leave out what is there already."""
    if response.status_code in (412, 413):  # refused, for another reason that comes first
        return
    if case.media_type in MERGES and case.method == "PATCH" and (_has_null(case.body) or _only_lacks(case)):
        return
    negative_data_rejection(ctx, response, case)


def _has_null(value: Any) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return value is None or any(map(_has_null, inner))


def _only_lacks(case: Any) -> bool:
    """Whether all that is wrong with a body is that something is not in it."""
    said = case.operation.get_body_for_media_type(case.media_type)
    validator = jsonschema.Draft4Validator(said.optimized_schema)
    faults = list(validator.iter_errors(case.body))
    return bool(faults) and all(map(_lacks, faults))


def _lacks(fault: jsonschema.ValidationError) -> bool:
    if fault.context:  # of alternatives one may be left
        branches = {inner.schema_path[0] for inner in fault.context}
        return any(all(_lacks(i) for i in fault.context if i.schema_path[0] == branch) for branch in branches)
    return fault.validator == "required"
