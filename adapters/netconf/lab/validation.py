"""What the YANG modules of a lab element allow, as libyang judges."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Any

from lxml import etree  # type: ignore[import-untyped]

from convergedon.adapters.netconf.lab.messages import MODULE, RpcError

HERE = files("convergedon.adapters.netconf")
YANG = (
    HERE / "yang" / f"{MODULE}.yang",
    HERE / "element" / "ietf-interfaces.yang",
    HERE / "element" / "iana-if-type.yang",
)


@cache
def _yang() -> tuple[Any, Any]:
    import oopt_gnpy_libyang as libyang  # type: ignore[import-not-found, import-untyped, unused-ignore]

    libyang.set_log_options(libyang.LogOptions.Store)
    context = libyang.Context(None, libyang.ContextOptions.NoYangLibrary | libyang.ContextOptions.DisableSearchDirs)
    for module in YANG:
        context.parse_module(module.read_text(encoding="utf-8"), libyang.SchemaFormat.YANG)
    return libyang, context


def yang_errors(config: etree._Element, whole: bool) -> Iterator[RpcError]:
    libyang, context = _yang()
    text = "".join(etree.tostring(child, encoding="unicode") for child in config)
    if not text:
        return
    reading = libyang.ParseOptions.Strict | libyang.ParseOptions.NoState
    context.clean_all_errors()
    try:
        if whole:
            context.parse_data(
                text,
                libyang.DataFormat.XML,
                reading,
                libyang.ValidationOptions.NoState | libyang.ValidationOptions.MultiError,
            )
        else:
            context.parse_data(text, libyang.DataFormat.XML, reading | libyang.ParseOptions.ParseOnly)
    except libyang.Error as error:
        said = list({(found.message, found.data_path): found for found in context.errors()}.values())
        if not said:
            yield RpcError("operation-failed", str(error))
        wrong = {found.data_path for found in said}
        for found in said:
            leaf = _MANDATORY.match(found.message)
            if (
                leaf is None or f"{found.data_path}/{leaf[1]}" not in wrong
            ):  # a leaf with a wrong value is not missing too
                yield _yang_error(found)


_MANDATORY = re.compile(r'Mandatory node "([^"]+)"')
YANG_TAGS = (
    (re.compile(r"^Unique data"), "operation-failed", "data-not-unique"),
    (re.compile(r"^Mandatory node"), "data-missing", ""),
    (re.compile(r"not found as a child|No module with namespace|Unexpected data state node"), "unknown-element", ""),
    (re.compile(r"missing its key"), "missing-element", ""),
)


def _yang_error(found: Any) -> RpcError:
    """Name the error as RFC 7950, 15 does; libyang gives words and path."""
    for pattern, tag, app_tag in YANG_TAGS:
        if pattern.search(found.message):
            return RpcError(tag, found.message, found.data_path or "", app_tag)
    return RpcError("invalid-value", found.message, found.data_path or "", found.app_tag or "")
