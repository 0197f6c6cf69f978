"""The lab's NETCONF element keeps the promises of RFC 6241 that the gateway relies on, to any client."""

import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from convergedon.adapters.netconf.lab import CAPABILITIES, Element, running
from convergedon.adapters.netconf.session import Access, Connection, Denied, dial
from convergedon.core.errors import Misconfigured, Unavailable

NC = "urn:ietf:params:xml:ns:netconf:base:1.0"
ACC = "urn:convergedon:yang:access"
INTERFACES = {"ge-0/0/1": 1000}

Call = Callable[..., Any]


@pytest.fixture
async def element(tmp_path: Path) -> AsyncIterator[Element]:
    element = Element("pe1", tmp_path / "pe1", INTERFACES)
    await element.start()
    yield element
    await element.stop()


class Client:
    """One session; each call is made in a thread."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    async def __call__(self, rpc: str, *arguments: Any, **named: Any) -> Any:
        return await asyncio.to_thread(self.connection.call, rpc, *arguments, **named)

    async def refused(self, rpc: str, *arguments: Any, **named: Any) -> str:
        with pytest.raises(Denied) as raised:
            await self(rpc, *arguments, **named)
        return raised.value.words

    async def names(self, source: str = "running") -> list[str]:
        reply = await self("get_config", source)
        return [node.text for node in reply.data_ele.iter(f"{{{ACC}}}name")]

    async def close(self) -> None:
        await asyncio.to_thread(self.connection.close)


@pytest.fixture
async def client(element: Element) -> AsyncIterator[Callable[[], Any]]:
    made: list[Client] = []

    async def make() -> Client:
        access = Access.of("pe1", "127.0.0.1", element.device_entry()["netconf"])
        made.append(Client(await asyncio.to_thread(dial, access, lambda _: None, 10.0)))
        return made[-1]

    yield make
    for each in made:
        await each.close()


def config(*entries: str) -> str:
    return f'<config xmlns="{NC}" xmlns:nc="{NC}"><accesses xmlns="{ACC}">{"".join(entries)}</accesses></config>'


def entry(name: str, vlan: int = 1, bandwidth: int = 10, operation: str = "") -> str:
    chosen = f' nc:operation="{operation}"' if operation else ""
    return (
        f"<access{chosen}><name>{name}</name><interface>ge-0/0/1</interface>"
        f"<vlan-id>{vlan}</vlan-id><bandwidth>{bandwidth}</bandwidth></access>"
    )


# --- editing


@pytest.mark.parametrize(
    ("operation", "name", "left"),
    [
        ("merge", "a", ["a"]),
        ("merge", "b", ["a", "b"]),
        ("create", "b", ["a", "b"]),
        ("create", "a", "data-exists|exists already"),
        ("replace", "a", ["a"]),
        ("delete", "a", []),
        ("delete", "b", "nothing to delete"),
        ("remove", "a", []),
        ("remove", "b", ["a"]),
        ("destroy", "b", "no operation 'destroy'"),
    ],
)
async def test_edit_operations_do_what_rfc_6241_says(
    operation: str, name: str, left: Any, element: Element, client: Call
) -> None:
    one = await client()
    await one("edit_config", config(entry("a")), target="candidate")
    await one("commit")
    edit = config(entry(name, vlan=1 if name == "a" else 2, operation=operation))

    if isinstance(left, str):
        words = await one.refused("edit_config", edit, target="candidate")
        assert re.search(left, words)
        assert await one.names("candidate") == ["a"]
    else:
        await one("edit_config", edit, target="candidate")
        assert await one.names("candidate") == left


async def test_replace_forgets_what_is_not_said(element: Element, client: Call) -> None:
    one = await client()
    described = entry("a").replace("</access>", "<description>old</description></access>")
    await one("edit_config", config(described), target="candidate")
    await one("edit_config", config(entry("a", operation="replace")), target="candidate")

    await one("commit")

    assert "description" not in running(element)["a"]


async def test_default_operation_replace_leaves_only_what_is_said(element: Element, client: Call) -> None:
    one = await client()
    await one("edit_config", config(entry("a")), target="candidate")
    await one("edit_config", config(entry("b")), target="candidate", default_operation="replace")

    assert await one.names("candidate") == ["b"]


async def test_edit_that_is_only_tested_changes_nothing(element: Element, client: Call) -> None:
    one = await client()

    await one("edit_config", config(entry("a")), target="candidate", test_option="test-only")

    assert await one.names("candidate") == []


async def test_edit_without_a_test_is_refused_at_validate_and_at_commit(element: Element, client: Call) -> None:
    """Two accesses on one VLAN can stand in the candidate and nowhere else."""
    one = await client()
    await one("edit_config", config(entry("a"), entry("b")), target="candidate", test_option="set")

    assert "Unique data" in await one.refused("validate", "candidate")
    assert "Unique data" in await one.refused("commit")
    assert running(element) == {}


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        (["<access><interface>ge-0/0/1</interface></access>"], "missing its key"),
        (["<access><name>a</name><colour>blue</colour></access>"], 'Node "colour" not found'),
        ([entry("a").replace("</access>", "<oper-bandwidth>1</oper-bandwidth></access>")], "state node"),
        ([entry("a").replace("ge-0/0/1", "xe-9")], "pe1 has no interface 'xe-9'"),
    ],
)
async def test_what_the_module_does_not_have_is_refused(
    entries: list[str], words: str, element: Element, client: Call
) -> None:
    one = await client()

    assert words in await one.refused("edit_config", config(*entries), target="candidate")
    assert await one.names("candidate") == []


async def test_running_cannot_be_edited(element: Element, client: Call) -> None:
    one = await client()

    assert "only the candidate" in await one.refused("edit_config", config(entry("a")), target="running")


# --- reading


@pytest.mark.parametrize(
    ("chosen", "found"),
    [
        ("<accesses{x}/>", {"name": ["a", "b"], "vlan-id": ["1", "2"]}),
        ("<accesses{x}><access><name>b</name></access></accesses>", {"name": ["b"], "vlan-id": ["2"]}),
        ("<accesses{x}><access><vlan-id/></access></accesses>", {"name": ["a", "b"], "vlan-id": ["1", "2"]}),
        ("<accesses{x}><access><vlan-id/></access></accesses>", {"bandwidth": []}),
        ("<accesses{x}><access><name>a</name><vlan-id/></access></accesses>", {"name": ["a"], "bandwidth": []}),
        (
            "<accesses{x}><access><name>a</name></access><access><name>b</name></access></accesses>",
            {"name": ["a", "b"]},
        ),
        ("<accesses{x}><access><name>c</name></access></accesses>", {"name": []}),
        ("<accesses xmlns='urn:other'/>", {"name": []}),
        ("", {"name": []}),
    ],
)
async def test_subtree_filter_selects(chosen: str, found: dict[str, list[str]], element: Element, client: Call) -> None:
    one = await client()
    await one("edit_config", config(entry("a"), entry("b", vlan=2)), target="candidate")
    await one("commit")
    named = f" xmlns='{ACC}'"
    spec = f"<filter xmlns='{NC}' type='subtree'>{chosen.format(x=named)}</filter>"

    reply = await one("get_config", "running", filter=spec)

    for leaf, texts in found.items():
        assert [node.text for node in reply.data_ele.iter(f"{{{ACC}}}{leaf}")] == texts


async def test_state_shows_what_the_port_can_give(element: Element, client: Call) -> None:
    one = await client()
    await one("edit_config", config(entry("a", bandwidth=5000), entry("b", vlan=2)), target="candidate")
    await one("commit")

    reply = await one("get")

    assert [node.text for node in reply.data_ele.iter(f"{{{ACC}}}oper-bandwidth")] == ["1000", "10"]
    assert running(element)["a"]["bandwidth"] == "5000"


# --- locks and sessions


async def test_lock_keeps_others_out_and_ends_with_its_session(element: Element, client: Call) -> None:
    one, other = await client(), await client()
    await one("lock", "candidate")
    await one("edit_config", config(entry("a")), target="candidate")

    for rpc, *given in (
        ["lock", "candidate"],
        ["edit_config", config(entry("b")), "candidate"],
        ["commit"],
        ["discard_changes"],
    ):
        assert "is locked" in await other.refused(rpc, *given)
    assert "does not hold the lock" in await other.refused("unlock", "candidate")
    await one.close()
    await element.until(lambda: not element.locked)
    await other("lock", "candidate")
    assert await other.names("candidate") == []


async def test_killed_session_is_gone(element: Element, client: Call) -> None:
    one, other = await client(), await client()
    await one("lock", "candidate")

    await other("kill_session", "1")

    assert not element.locked
    with pytest.raises(Unavailable):
        await one("get_config", "running")
    assert "no other session '2'" in await other.refused("kill_session", "2")


async def test_session_is_closed_when_it_asks(element: Element, client: Call) -> None:
    one = await client()

    await asyncio.to_thread(one.connection.leave)
    await element.until(lambda: not element.sessions)

    assert element.requests["close-session"] == 1


async def test_unknown_operation_is_refused(element: Element, client: Call) -> None:
    one = await client()

    assert "no operation 'reboot'" in await one.refused("reboot")
    assert "no datastore 'startup'" in await one.refused("get_config", "startup")


# --- confirmed commit


async def test_commit_without_persist_ends_with_its_session(element: Element, client: Call) -> None:
    one = await client()
    await one("edit_config", config(entry("a")), target="candidate")
    await one("commit", confirmed=True, timeout="60")
    during = list(running(element))

    await one.close()
    await element.until(lambda: not element.pending)

    assert during == ["a"]
    assert running(element) == {}


async def test_commit_with_persist_is_confirmed_by_whoever_knows_its_id(element: Element, client: Call) -> None:
    one = await client()
    await one("edit_config", config(entry("a")), target="candidate")
    await one("commit", confirmed=True, timeout="60", persist="mine")
    await one.close()
    other = await client()

    assert "another confirmed commit is pending" in await other.refused("commit")
    assert "persist-id" in await other.refused("commit", persist_id="theirs")
    assert "another persist-id" in await other.refused("cancel_commit", persist_id="theirs")
    await other("commit", persist_id="mine")
    assert not element.pending
    assert list(running(element)) == ["a"]
    assert "persist-id" in await other.refused("commit", persist_id="mine")


async def test_cancelled_commit_brings_back_what_was_before_the_first(element: Element, client: Call) -> None:
    """A second confirmed commit extends the first: what comes back is from before both."""
    one = await client()
    await one("edit_config", config(entry("a")), target="candidate")
    await one("commit", confirmed=True, timeout="60")
    await one("edit_config", config(entry("b", vlan=2)), target="candidate")
    await one("commit", confirmed=True, timeout="60")

    await one("cancel_commit")

    assert running(element) == {}
    assert "no confirmed commit is pending" in await one.refused("cancel_commit")


@pytest.mark.parametrize("timeout", ["0", "soon"])
async def test_confirm_timeout_that_is_none_is_refused(timeout: str, element: Element, client: Call) -> None:
    one = await client()

    assert "confirm-timeout must be" in await one.refused("commit", confirmed=True, timeout=timeout)


# --- memory


async def test_element_that_restarts_is_the_same(element: Element, client: Call) -> None:
    """Configuration, host key and port outlive it; another object for the same folder is the same element."""
    one = await client()
    await one("edit_config", config(entry("a")), target="candidate")
    await one("commit")
    before = (element.port, element.host_key, running(element))
    await element.stop()

    again = Element("pe1", element.folder, INTERFACES)
    await again.start()
    after = (again.port, again.host_key, running(again))
    await again.stop()

    assert after == before


async def test_taken_port_is_said_when_it_was_asked_for(element: Element, tmp_path: Path) -> None:
    second = Element("pe2", tmp_path / "pe2", INTERFACES, port=element.port)

    with pytest.raises(Misconfigured, match=f"element pe2: port {element.port} on 127.0.0.1 is taken"):
        await second.start()


async def test_element_speaks_the_old_framing_to_an_old_client(tmp_path: Path) -> None:
    old = Element(
        "old", tmp_path / "old", INTERFACES, capabilities=[uri for uri in CAPABILITIES if "base:1.1" not in uri]
    )
    await old.start()
    access = Access.of("old", "127.0.0.1", old.device_entry()["netconf"])
    connection = await asyncio.to_thread(dial, access, lambda _: None, 10.0)

    reply = await asyncio.to_thread(connection.call, "get_config", "running")

    assert reply.data_ele is not None
    await asyncio.to_thread(connection.close)
    await old.stop()


def test_missing_extra_is_one_sentence() -> None:
    """Where asyncssh is not installed the lab says what to install."""
    code = (
        "import sys; sys.modules['asyncssh'] = None\n"
        "from pathlib import Path\n"
        "from convergedon.adapters.netconf.lab import Element\n"
        "Element('pe1', Path('x'), {})\n"
    )

    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)

    assert "Misconfigured: the lab needs asyncssh: pip install 'convergedon[lab]'" in ended.stderr
