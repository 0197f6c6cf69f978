"""The real Open Policy Agent agrees with the embedded engine, and the gateway works with it, without it, and again."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import subprocess
import time
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from peers import opa

from convergedon.core import bundles, policy, settings, tokens, up
from convergedon.core.errors import Unavailable
from convergedon.core.policy import Embedded, OpaServer, Policy, Subject
from tests.questions import BUSY, question

pytestmark = pytest.mark.live

POLICIES = Path(policy.__file__).parents[1] / "policies"
ORDERS = "/tmf-api/productOrderingManagement/v4/productOrder"
CSR = Subject("vendor", "acme", ("csr",))
QUESTIONS = 2_000
AT_ONCE = 250
COVERED = 95.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@dataclass
class Server:
    """An OPA server on a port that stays the same when it is killed and started again."""

    program: str
    port: int
    log: Path
    policies: Path = POLICIES
    flags: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [self.program, "run", "--server", "--addr", f"127.0.0.1:{self.port}"]
        quiet = ["--skip-version-check", "--log-level", "error"]  # it would ask the world for a newer one
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([*command, *quiet, *self.flags, str(self.policies)], stdout=log, stderr=log)
        until = time.monotonic() + 20
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > until:
                raise AssertionError(f"OPA did not start:\n{self.log.read_text()[-2000:]}")
            time.sleep(0.02)

    def answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", trust_env=False).is_success
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
            self.process = None


@contextmanager
def serving(folder: Path, policies: Path = POLICIES, *flags: str) -> Iterator[Server]:
    server = Server(opa(), free_port(), folder / "opa.log", policies, flags=flags)
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that stays up."""
    with serving(tmp_path_factory.mktemp("opa")) as server:
        yield server


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[Server]:
    """A server that a test may kill."""
    with serving(tmp_path) as server:
        yield server


@asynccontextmanager
async def asking(server: Server) -> AsyncIterator[OpaServer]:
    engine = OpaServer(server.url)
    try:
        yield engine
    finally:
        await engine.close()


@pytest.mark.parametrize("words", [("fmt", "--list", "--fail"), ("check", "--strict"), ("test",)])
def test_the_policies_are_as_opa_wants_them(words: tuple[str, ...]) -> None:
    """Formatted, without anything that strict mode refuses, and with every test passing in OPA itself."""
    said = subprocess.run([opa(), *words, str(POLICIES)], capture_output=True, text=True, timeout=60)

    assert said.returncode == 0, said.stdout + said.stderr
    if words[0] == "test":
        assert f"PASS: {len(policy.run_tests(policy.read()))}/" in said.stdout


def test_the_tests_beside_the_policies_reach_nearly_all_of_them() -> None:
    """As OPA counts it, of what is no test itself; what is not reached is named."""
    said = subprocess.run([opa(), "test", "--coverage", str(POLICIES)], capture_output=True, text=True, timeout=60)
    files = {path: one for path, one in json.loads(said.stdout)["files"].items() if not path.endswith("_test.rego")}
    covered, missed = (
        sum(row["end"]["row"] - row["start"]["row"] + 1 for one in files.values() for row in one.get(what) or ())
        for what in ("covered", "not_covered")
    )
    share = 100 * covered / (covered + missed)

    assert files
    assert share >= COVERED, {path: one["not_covered"] for path, one in files.items() if one.get("not_covered")}


# --- the same decisions

UNABLE = {"allow": False, "reasons": ["no answer"]}
MANY = """package many

answers := [answer(question) | some question in input.questions]

answer(question) := decision if decision := data.main.decision with input as question
"""


def of_opa(server: Server, questions: list[dict[str, Any]]) -> list[Any]:
    """Many questions at once: the server puts each of them to the policies by itself.

    One that it cannot answer spoils the answers to all; then they are asked one by one.
    """
    with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as client:
        client.put("/v1/policies/many", content=MANY, headers={"Content-Type": "text/plain"}).raise_for_status()

        def ask(asked: list[dict[str, Any]]) -> list[Any]:
            answer = client.post("/v1/data/many/answers", json={"input": {"questions": asked}})
            if answer.is_success and len(answer.json()["result"]) == len(asked):
                return list(answer.json()["result"])
            return [UNABLE] if len(asked) == 1 else [one for question in asked for one in ask([question])]

        return [one for start in range(0, len(questions), AT_ONCE) for one in ask(questions[start : start + AT_ONCE])]


def of_ours(engine: Embedded, asked: dict[str, Any]) -> Any:
    try:
        return engine.ask(policy.RULE, asked)
    except Unavailable:
        return UNABLE


@pytest.mark.parametrize("changed", [{}, BUSY], ids=["as they ship", "with much to say"])
def test_both_engines_decide_the_same(changed: dict[str, Any], tmp_path: Path) -> None:
    """Allowed or not, the reasons in their order, the filter and the obligations: whichever the operator chose."""
    dice = random.Random(20261123)
    shipped = policy.read()
    mixed = bundles.bundle(shipped.policies, {**shipped.data, **changed})
    bundles.write(mixed, tmp_path / "policies")
    questions = [{}, *(question(dice) for _ in range(QUESTIONS))]
    with serving(tmp_path, tmp_path / "policies") as server:
        theirs = of_opa(server, questions)
    embedded = Embedded(mixed)
    ours = [of_ours(embedded, asked) for asked in questions]

    different = [(q, our, their) for q, our, their in zip(questions, ours, theirs, strict=True) if our != their]
    assert different == []
    assert UNABLE not in ours
    allowed = sum(answer["allow"] for answer in ours)
    assert QUESTIONS / 20 < allowed < QUESTIONS * 19 / 20  # questions that are all answered alike would prove little
    said = {_pattern(reason) for answer in ours for reason in answer["reasons"]}
    assert len(said) > (25 if changed else 12), sorted(said)


def _pattern(reason: str) -> str:
    """A reason without what was asked: about one for each rule."""
    return " ".join(word for word in reason.split() if word.isalpha() and word.islower())


# --- a server that goes and comes


async def test_a_server_that_is_killed_says_no_and_is_used_again_when_it_is_back(mortal: Server) -> None:
    """Unavailable within three seconds, and no new client is needed afterwards."""
    async with asking(mortal) as server:
        asked = Policy(server)
        before = await asked.decide(CSR, "list", {"kind": "productOrder", "tenant": "acme"})
        mortal.kill()
        began = time.monotonic()
        with pytest.raises(Unavailable, match="policy server does not answer"):
            await asked.decide(CSR, "list", {"kind": "productOrder", "tenant": "acme"})
        took = time.monotonic() - began
        await asyncio.to_thread(mortal.start)
        after = await asked.decide(CSR, "list", {"kind": "productOrder", "tenant": "acme"})

    assert (before.allow, after.allow) == (True, True)
    assert took < 3


async def test_a_server_that_hangs_says_no_in_time() -> None:
    """One that takes the question and does not answer holds nothing up."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        server = OpaServer(f"http://127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        with pytest.raises(Unavailable, match="does not answer within 2 s"):
            await server.evaluate({})
        took = time.monotonic() - began
        await server.close()

    assert took < 3


async def test_a_server_without_our_policies_gives_no_decision(tmp_path: Path) -> None:
    """An OPA that holds nothing of ours allows nothing, and `up` says what is to be done."""
    empty = Server(opa(), free_port(), tmp_path / "opa.log")
    empty.process = subprocess.Popen(
        [empty.program, "run", "--server", "--addr", f"127.0.0.1:{empty.port}", "--skip-version-check"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not await asyncio.to_thread(empty.answers):
            await asyncio.sleep(0.02)
        async with asking(empty) as server:
            with pytest.raises(Unavailable, match="no decision"):
                await Policy(server).ping()
        with pytest.raises(Unavailable, match=r"\(CONVERGEDON_OPA_URL\) has none of the gateway's policies"):
            await up.probe(settings.load(data=tmp_path, opa_url=empty.url))
    finally:
        empty.kill()


async def test_a_decision_names_the_bundle_that_its_server_answered_from(tmp_path: Path) -> None:
    """Where the server has bundles with revisions; otherwise the server itself."""
    bundles.write(policy.read(), tmp_path / "bundle")
    (tmp_path / "bundle" / ".manifest").write_text('{"revision": "r7"}')
    with serving(tmp_path, tmp_path / "bundle", "--bundle") as server:
        async with asking(server) as engine:
            asked = Policy(engine)
            before = asked.revision
            decision = await asked.decide(CSR, "list", {"kind": "productOrder", "tenant": "acme"})

    assert before == f"server 127.0.0.1:{server.port}"
    assert decision.revision == asked.revision == f"{tmp_path / 'bundle'} r7"


async def test_nothing_is_left_open(served: Server) -> None:
    """A client that is closed leaves neither a connection nor a warning, and asks nothing any more."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        async with asking(served) as server:
            await asyncio.gather(*(Policy(server).ping() for _ in range(20)))
        unused = OpaServer(served.url)
        await unused.close()
        with pytest.raises(Unavailable):
            await server.evaluate({})


# --- the whole gateway


def order(bandwidth: int) -> dict[str, Any]:
    given = {"bandwidth": bandwidth, "vlan": 100, "site": "berlin-1"}
    product = {"productCharacteristic": [{"name": name, "value": value} for name, value in given.items()]}
    item = {"id": "1", "action": "add", "productOffering": {"id": "internet-access"}, "product": product}
    party = {"id": "northwind", "role": "customer", "@referredType": "Organization"}
    return {"relatedParty": [party], "productOrderItem": [item]}


async def test_the_gateway_asks_the_server(mortal: Server, tmp_path: Path) -> None:
    """403 with the policy's reasons; 503 while the server is away, and ready again when it is back."""
    given = settings.load(data=tmp_path / "data", port=0, opa_url=mortal.url)
    async with (
        up.system(given) as system,
        httpx.AsyncClient(base_url=system.connection.gateway, timeout=10, trust_env=False) as client,
    ):
        client.headers["Authorization"] = f"Bearer {tokens.issue(given, 'acme', 'csr')}"
        refused = await client.post(ORDERS, json=order(5001))
        allowed = await client.get(ORDERS)
        mortal.kill()
        began = time.monotonic()
        away = await client.post(ORDERS, json=order(100))
        took = time.monotonic() - began
        unready = await client.get("/readyz")
        await asyncio.to_thread(mortal.start)
        back = await client.get(ORDERS)
        ready = await client.get("/readyz")

    assert (refused.status_code, allowed.status_code) == (403, 200)
    assert refused.json()["message"] == "bandwidth 5001 Mbit/s is above the 5000 Mbit/s of tenant acme's contract"
    assert refused.json()["referenceError"].startswith("urn:convergedon:decision:")
    assert away.status_code == 503
    assert took < 3
    body = away.json()
    assert (body["code"], body["reason"], body["status"], body["@type"]) == (
        "ERR503",
        "Service Unavailable",
        "503",
        "Error",
    )
    assert "policy server does not answer" in body["message"]
    assert away.headers["retry-after"]
    assert (unready.status_code, unready.json()["components"]["policy"]["state"]) == (503, "unavailable")
    assert (back.status_code, back.json(), ready.status_code) == (200, [], 200)
    logs = "".join(file.read_text() for file in (tmp_path / "data").rglob("*.log"))
    assert "Unclosed" not in logs


async def test_up_names_a_server_that_is_not_there(tmp_path: Path) -> None:
    """Before anything is started: one sentence with the address and the setting."""
    given = settings.load(data=tmp_path, port=0, opa_url=f"http://127.0.0.1:{free_port()}")

    with pytest.raises(Unavailable, match=r"^Open Policy Agent at 127\.0\.0\.1:\d+ \(CONVERGEDON_OPA_URL\) does not"):
        async with up.system(given):
            pass

    assert not (tmp_path / "run" / "components.json").exists()
