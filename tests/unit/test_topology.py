"""The topology file: the whole of it or nothing, kept in TMF639, and read back as it was said."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as effort
from hypothesis import strategies as st

from convergedon.core.errors import Misconfigured
from convergedon.core.memory import MemoryStore
from convergedon.handlers.apis import APIS, KINDS
from convergedon.handlers.resource import Resources
from convergedon.mediation import parts, topology
from convergedon.mediation.correlation import Relation
from convergedon.mediation.planning import Wanted

FILE = """
tenant: acme
devices:
  pe1: {interfaces: [ge-1]}
  pe2: {}
  cpe7: {dependsOn: [pe2]}
links:
  berlin-hamburg: {ends: [pe1/ge-9, pe2/ge-9]}
  berlin-munich: {ends: [pe1/ge-8, pe2/ge-8]}
groups:
  duct 17: {members: [link berlin-hamburg, link berlin-munich]}
  site: {members: [group duct 17, pe1]}
"""
SAID = {
    Relation("dependsOn", "cpe7", "pe2"),
    *(Relation("connects", "link berlin-hamburg", end) for end in ("pe1/ge-9", "pe2/ge-9")),
    *(Relation("connects", "link berlin-munich", end) for end in ("pe1/ge-8", "pe2/ge-8")),
    *(Relation("contains", "group duct 17", f"link {name}") for name in ("berlin-hamburg", "berlin-munich")),
    Relation("contains", "group site", "group duct 17"),
    Relation("contains", "group site", "pe1"),
}


def written(folder: Path, text: str) -> topology.Plan:
    file = folder / "topology.yaml"
    file.write_text(text)
    return topology.read(file)


@pytest.fixture
def resources() -> Resources:
    return Resources(MemoryStore(KINDS), APIS, "http://gateway.example")


async def said(resources: Resources, tenant: str = "acme") -> set[Relation]:
    return set(await topology.relations(resources.store, tenant))


async def test_what_was_said_is_what_is_read(resources: Resources, tmp_path: Path) -> None:
    """Another tenant has none of it."""
    done = await topology.keep(resources, written(tmp_path, FILE))

    assert done["added"] == 3 + 5 + 2 + 2
    assert await said(resources) == SAID
    assert await said(resources, "globex") == set()


async def test_twice_is_once(resources: Resources, tmp_path: Path) -> None:
    await topology.keep(resources, written(tmp_path, FILE))

    assert await topology.keep(resources, written(tmp_path, FILE)) == {
        "added": 0,
        "changed": 0,
        "removed": 0,
        "same": 12,
    }


async def test_what_the_file_has_no_more_is_removed(resources: Resources, tmp_path: Path) -> None:
    await topology.keep(resources, written(tmp_path, FILE))
    shorter = "\n".join(line for line in FILE.splitlines() if not line.startswith("  site"))
    done = await topology.keep(resources, written(tmp_path, shorter.replace(", link berlin-munich", ", pe1/ge-8")))

    assert (done["changed"], done["removed"]) == (1, 1)
    kept = {relation for relation in SAID if relation.of not in ("group site", "group duct 17")}
    more = {Relation("contains", "group duct 17", part) for part in ("link berlin-hamburg", "pe1/ge-8")}
    assert await said(resources) == kept | more


async def test_what_services_stand_on_stays(resources: Resources, tmp_path: Path) -> None:
    """Orders and files may speak of the same parts; neither takes away what the other says."""
    at = Wanted("loopback", "pe1", "access", {"vlan": 1}, "ge-9")
    await parts.stand(resources, "acme", "s1", [at], [])
    await topology.keep(resources, written(tmp_path, FILE))
    await topology.keep(resources, written(tmp_path, "tenant: acme"))

    (device,) = await resources.store.find("physicalResource", {"tenant": "acme"})
    found = await resources.store.find("logicalResource", {"tenant": "acme"})
    assert device.body["name"] == "pe1"
    assert [one.body["name"] for one in found if one.body["category"] == "interface"] == ["pe1/ge-9"]
    (port,) = [one for one in found if one.body["category"] == "interface"]
    assert [one["relationshipType"] for one in port.body["resourceRelationship"]] == ["partOf"]


async def test_a_process_notices_another_file(resources: Resources, tmp_path: Path) -> None:
    """At once, not after a while."""
    known = topology.Topologies()
    assert (await known.of(resources.store, "acme")).ends == {}
    await topology.keep(resources, written(tmp_path, FILE))

    assert set((await known.of(resources.store, "acme")).ends) == {"link berlin-hamburg", "link berlin-munich"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("devices: {}", "tenant: this key is missing"),
        ("tenant: acme\nlinks: {a: {end: [pe1/1]}}", "links.a.ends: this key is missing; end is not known"),
        ("tenant: acme\nlinks: {a: {ends: [pe1/1]}}", "links.a.ends: List should have at least 2 items"),
        (
            "tenant: acme\ndevices: {pe1: {}}\nlinks: {a: {ends: [pe1/1, pe2/1]}}",
            "links.a.ends.1: pe2/1 is no interface",
        ),
        ("tenant: acme\ndevices: {pe1: {}}\nlinks: {a: {ends: [pe1/1, pe1]}}", "links.a.ends.1: pe1 is no interface"),
        (
            "tenant: acme\ndevices: {pe1: {}}\ngroups: {a: {members: [pe1, link x]}}",
            "groups.a.members.1: there is no link x in this file",
        ),
        (
            "tenant: acme\ndevices: {pe1: {}}\ngroups: {a: {members: [pe1, group b]}, b: {members: [pe1, group a]}}",
            "groups.a.members.1: shared-risk group b depends on shared-risk group a itself",
        ),
        ("tenant: acme\ndevices: {pe1: {dependsOn: [pe1]}}", "devices.pe1.dependsOn.0: pe1 depends on pe1 itself"),
        ("tenant: acme\ndevices: {pe1: {}, pe1: {}}", "key 'pe1' is given twice"),
        ("tenant: " + "{" * 200, "it is nested too deep"),
        ("tenant: !!set d", "expected a mapping node"),
        ("tenant: acme\ndevices: {'link 1': {}}", "devices.link 1"),
        ("tenant: [", "line 1"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_key(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(Misconfigured) as refused:
        written(tmp_path, text)

    assert str(tmp_path / "topology.yaml") in str(refused.value)
    assert words in str(refused.value)


@effort(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: f"tenant: acme\ndevices: {text}".encode()))
def test_any_file_is_taken_or_refused_in_words(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "any.yaml"
    file.write_bytes(content)
    words = ""
    try:
        topology.read(file)
    except Misconfigured as refused:
        words = str(refused)

    assert words.startswith(str(file)) or not words
