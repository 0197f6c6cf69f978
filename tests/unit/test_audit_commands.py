"""The commands on the audit record, on real servers: verify, key, export, erase."""

from __future__ import annotations

import asyncio
import os
import re
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner
from pymongo import MongoClient

from convergedon.core import app, audit, checkpoints, cli, embedded, settings
from convergedon.core.audit import KIND, Audit
from convergedon.core.checkpoints import Notary
from convergedon.core.decisions import DecisionLog
from convergedon.core.errors import ConvergedonError, Misconfigured, NotFound
from convergedon.core.policy import Decision
from convergedon.core.proof import Asked
from convergedon.core.settings import Settings

PAGE = (Path(__file__).parents[2] / "docs" / "audit.md").read_text()
MARIA = "maria.huber@acme.example"


@pytest.fixture
async def given(tmp_path: Path) -> AsyncIterator[Settings]:
    """Settings of a system whose servers run, with an anchor file; a worker's key is there."""
    for name in ("nats", "mongodb"):
        (tmp_path / name).mkdir()
    async with embedded.nats(tmp_path / "nats") as nats, embedded.mongodb(tmp_path / "mongodb") as mongodb:
        made = settings.load(
            data=tmp_path, nats_url=nats.url, mongodb_url=mongodb.url, audit_anchor_file=tmp_path / "anchors"
        )
        checkpoints.signing_key(made)
        yield made


async def recorded(given: Settings, *subjects: str, batches: int = 2) -> None:
    """Records of a gateway and, over the bus, of an adapter."""
    async with app.connected(given, "test") as (store, bus):
        taking = bus.consume(audit.taking(store, bus))
        for writer in (Audit(store, bus, "gateway"), Audit(None, bus, "netconf")):
            for _ in range(batches):
                for subject in subjects:
                    writer.record("call.create", "acme", subject, "productOrder/1", "done", reasons=[f"{subject} may"])
                await writer._flush()
        async with asyncio.timeout(20):
            while await store.count(KIND.name, {}) < 2 * batches * len(subjects):
                await asyncio.sleep(0.02)
        await Notary(bus, checkpoints.signing_key(given), given.audit_anchor_file).stop()
        taking.cancel()


def kept(given: Settings) -> Any:
    return MongoClient[dict[str, Any]](given.mongodb_url.get_secret_value())[given.database]


async def test_what_was_recorded_is_verified_exported_and_checked_elsewhere(given: Settings, tmp_path: Path) -> None:
    """By the public key that a command prints and the lines of the documentation; the file is its owner's alone."""
    await recorded(given, "convergedon", MARIA)
    (check,) = re.findall(r"<!-- check -->\n```python\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "check.py").write_text(check)
    (tmp_path / "key.pem").write_text(await app.audit_key(given))

    verified = await app.audit_verify(given)
    exported = await app.audit_export(given, Asked("acme"), tmp_path / "out.jsonl")
    command = [sys.executable, "check.py", "out.jsonl", "key.pem"]
    checked = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)

    assert verified == "8 audit records, every chain whole, 1 signed checkpoints"
    assert exported == f"8 records in {tmp_path / 'out.jsonl'}, and 0 by their hashes alone"
    assert checked.stdout.startswith("8 records, whole up to checkpoint 1 of "), checked.stderr
    assert stat.S_IMODE(os.stat(tmp_path / "out.jsonl").st_mode) == 0o600
    assert MARIA not in (tmp_path / "out.jsonl").read_text()
    with pytest.raises(Misconfigured, match="cannot be written"):
        await app.audit_export(given, Asked(), tmp_path / "nowhere" / "out.jsonl")
    assert not list(tmp_path.glob("*.part"))


async def test_tampering_with_the_store_is_named(given: Settings) -> None:
    await recorded(given, "convergedon")
    database = kept(given)
    with database.client:
        document = database[KIND.name].find_one({"_id": {"$regex": "^netconf"}}, sort=[("_id", 1)])
        database[KIND.name].update_one({"_id": document["_id"]}, {"$set": {"body.outcome": "refused"}})

    with pytest.raises(ConvergedonError, match=r"record 1 of netconf-\w+ was changed \(call.create on "):
        await app.audit_verify(given)


async def test_an_erased_person_is_in_no_collection(given: Settings) -> None:
    """Nor in the log of decisions; the record is whole, and says that somebody was erased."""
    await recorded(given, MARIA)
    question = {"subject": {"id": MARIA, "tenant": "acme"}}
    async with app.connected(given, "test") as (_, bus):
        log = DecisionLog(bus)
        log.take(Decision("01a216c6a61075de88435b42e714c742", True, (), {}, "1"), "acme", orjson.dumps(question))
        await log.stop()

    told = await app.audit_erase(given, "acme", MARIA)

    assert re.fullmatch(r"~[0-9a-f]{32} leads to nobody now, and 1 decisions are forgotten", told)
    database = kept(given)
    with database.client:
        everything = [one for name in database.list_collection_names() for one in database[name].find()]
        assert MARIA not in str(everything)
        (erased,) = database[KIND.name].find({"body.what": "person.erased"})
    assert erased["body"]["on"] == f"auditPerson/{told[:33]}"
    assert "every chain whole" in await app.audit_verify(given)
    with pytest.raises(NotFound, match="neither the audit record nor the log of decisions knows"):
        await app.audit_erase(given, "acme", MARIA)


async def test_without_the_workers_key_nothing_is_verified(given: Settings, tmp_path: Path) -> None:
    """What to set is said, and no key made that has signed nothing; the public part is enough."""
    await recorded(given, "convergedon")
    elsewhere = given.model_copy(update={"data": tmp_path / "elsewhere"})
    with pytest.raises(Misconfigured, match="CONVERGEDON_AUDIT_SIGNING_KEY_FILE"):
        await app.audit_verify(elsewhere)
    assert not (tmp_path / "elsewhere").exists()

    public = tmp_path / "public.pem"
    public.write_text(await app.audit_key(given))
    with_public = elsewhere.model_copy(update={"audit_signing_key_file": public})

    assert "every chain whole" in await app.audit_verify(with_public)
    with pytest.raises(Misconfigured, match="cannot be used"):
        checkpoints.signing_key(with_public)


@pytest.mark.parametrize("who", [[], ["--subject", "a", "--party", "b"]])
def test_who_is_erased_is_said_in_one_way(who: list[str]) -> None:
    said = CliRunner().invoke(cli.main, ["audit", "erase", "--tenant", "acme", *who])

    assert said.exit_code == os.EX_CONFIG
    assert "say who is erased: --subject or --party" in said.output
