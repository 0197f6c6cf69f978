"""What edit-config does to a configuration (RFC 6241, 7.2)."""

from __future__ import annotations

from lxml import etree  # type: ignore[import-untyped]

from convergedon.adapters.netconf.lab.messages import ACCESS, INTERFACES, KEYS, MODULE, MODULES, NC, RpcError

EDIT_OPERATIONS = frozenset({"merge", "replace", "create", "delete", "remove", "none"})
CONTAINERS = frozenset({f"{{{ACCESS}}}accesses", f"{{{INTERFACES}}}interfaces"})


def empty() -> etree._Element:
    return etree.Element(f"{{{NC}}}config", nsmap={None: NC})


def apply(target: etree._Element, edits: etree._Element, inherited: str, path: str = "") -> None:
    """Edit a configuration by the operations that the edits name, or else by the one that they inherit."""
    for edit in edits.iterchildren(tag=etree.Element):
        operation = edit.get(f"{{{NC}}}operation", inherited)
        if operation not in EDIT_OPERATIONS:
            raise RpcError(
                "bad-attribute",
                f"there is no operation {operation!r}",
                path,
                info={"bad-attribute": "operation", "bad-element": etree.QName(edit).localname},
            )
        here = f"{path}/{_step(edit, top=not path)}"
        present = _counterpart(target, edit)
        if operation == "create" and present is not None:
            raise RpcError("data-exists", "it exists already", here)
        if operation == "delete" and present is None:
            raise RpcError("data-missing", "there is nothing to delete", here)
        if operation in ("delete", "remove"):
            if present is not None:
                target.remove(present)
            continue
        if operation == "replace" and present is not None:
            target.remove(present)
            present = None
        if present is None:
            if operation == "none" and not len(edit):
                raise RpcError("data-missing", "there is nothing here", here)
            present = etree.SubElement(target, edit.tag, nsmap={None: etree.QName(edit).namespace})
        if len(edit):
            apply(present, edit, operation if operation != "create" else "merge", here)
        else:
            present.text = edit.text
            if (edit.text or "").partition(":")[0] in edit.nsmap:  # an identity: its prefix goes with it
                fresh = etree.Element(edit.tag, nsmap=edit.nsmap)
                fresh.text = edit.text
                target.replace(present, fresh)


def _counterpart(target: etree._Element, edit: etree._Element) -> etree._Element | None:
    key = KEYS.get(edit.tag)
    for candidate in target.iterchildren(edit.tag):
        if key is None or (candidate.findtext(key) or "").strip() == (edit.findtext(key) or "").strip():
            return candidate
    return None


def _step(edit: etree._Element, top: bool) -> str:
    name = str(etree.QName(edit).localname)
    key = KEYS.get(edit.tag)
    chosen = f"[name='{(edit.findtext(key) or '').strip()}']" if key else ""
    module = MODULES.get(etree.QName(edit).namespace, MODULE)
    return f"{module}:{name}{chosen}" if top else f"{name}{chosen}"


def prune(config: etree._Element) -> None:
    """Take away containers that hold nothing: they mean nothing in YANG."""
    for top in list(config):
        if not len(top) and top.tag in CONTAINERS:
            config.remove(top)
