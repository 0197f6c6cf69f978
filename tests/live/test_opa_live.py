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

from convergedon.core import bundles, checking, policy, settings, tokens, up
from convergedon.core.errors import Unavailable
from convergedon.core.policy import Embedded, OpaServer, Policy, Subject

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

DATA = policy.read().data
ROLES = (*DATA["roles"], "nobody", "")
TENANTS = ("acme", "globex", "nobody", "*", "")
KINDS = tuple(sorted({kind for granted in DATA["roles"].values() for kind in granted} | {"intent", "readiness", "x"}))
ACTIONS = (*sorted(checking.ACTIONS), "*", "")
CHANNELS = ("rest", "console", "delivery", "task", "flow", "adapter", "readiness", "")
PARTIES = ("northwind", "contoso", "")
NOW = 1_800_000_000
# No 1e12: both refuse it, but OPA's reason has 1e+12 where the embedded engine's has 1000000000000
VALUES: tuple[Any, ...] = (
    0, 1, 999.5, 1000, 1001, 2000, 2000.5, 5000, 5001, 10**12, -1, "fast", "9999", "", None, True, False, [], {}, [7],
)  # fmt: skip
OWNERS = (
    {"id": "x", "tenant": "acme", "roles": ["csr"], "issued": NOW - 60},
    {"id": "y", "tenant": "acme", "roles": ["noc", "csr"]},
    {"id": "z", "tenant": "globex", "roles": []},
)
MEMBERS: dict[str, tuple[Any, ...]] = {
    "api": ("/tmf-api/alarmManagement/v4", ""),
    "id": ("7", "ordering.fulfil", "ordering.finish", ""),
    "device": ("pe1", "pe2", "pe9", ""),
    "deviceTenant": ("acme", "acme", "globex", ""),
    "site": ("berlin-1", "munich-1", "moon-1", ""),
    "sites": (["berlin-1"], ["berlin-1", "hamburg-1"], ["munich-1", "moon-1"], []),
    "order": ("o-1", ""),
    "of": ("productOrder", "usage", "alarm", ""),
    "owner": (*OWNERS, ""),
    "purpose": ("order", "remediation", "undo", "sabotage", ""),
    "workflow": ("reset-port", "other"),
    "approval": (
        *({"decision": "approved", "by": by, "time": NOW - age} for by in OWNERS for age in (10, 4_000)),
        {"decision": "denied", "by": OWNERS[1], "time": NOW},
        {"decision": "approved"},
    ),
}
"""What a resource may say of itself besides."""
BUSY = {
    "windows": {
        "acme": {"berlin-1": [{"days": ["saturday", "sunday"], "from": [22, 0], "to": [4, 30]}], "*": []},
        "globex": {"*": [{"days": ["monday"], "from": [0, 0], "to": [0, 0]}]},
    },
    "geography": {
        "countries": {"acme": {"berlin-1": "DE", "moon-1": "XX"}, "globex": {"munich-1": "DE"}},
        "devices": {"pe1": "DE", "pe2": "CH"},
        "served": {"acme": {"countries": ["DE"], "sites": ["hamburg-1"]}, "*": {"countries": ["CH"]}},
    },
    "shared": {"pe2": ["acme"]},
    "withdrawn": {"subjects": {"acme": {"y": NOW - 30}}, "roles": {"globex": {"csr": NOW}, "*": {"noc": 1}}},
    "longest": {"csr": 3_600, "*": 86_400},
    "remediation": {"approvers": ["noc"], "automatic": {"acme": ["reset-port"]}, "valid": 3_600},
}
"""Data in which every policy has something to say; what ships leaves much of it empty."""


def question(dice: random.Random) -> dict[str, Any]:
    """Shaped as the gateway's questions and the policies' own tests are; now and then something is missing or wrong.

    Half of them ask for what some role is granted, in the subject's own tenant: of chance alone hardly any would be
    allowed.
    """

    def seldom(chance: float = 0.06) -> bool:
        return dice.random() < chance

    likely = dice.random() < 0.6
    role = dice.choice(list(DATA["roles"]))
    granted = DATA["roles"][role]
    kind = dice.choice(list(granted))
    tenant = dice.choice(TENANTS[:2] if likely else TENANTS)
    subject: dict[str, Any] = {
        "id": "x",
        "tenant": tenant,
        "roles": [role] if likely else dice.sample(ROLES, dice.randint(0, 3)),
    }
    if dice.random() < 0.5:
        subject["party"] = dice.choice(PARTIES[:1] if likely else PARTIES)
    if dice.random() < 0.6:
        subject["issued"] = NOW - dice.choice((0, 60, 3_599, 3_601, 86_401, 10**7, -60))
    resource: dict[str, Any] = {"kind": dice.choice(KINDS) if kind == "*" or not likely else kind}
    if dice.random() < 0.8:
        resource["tenant"] = tenant if likely or dice.random() < 0.7 else dice.choice(TENANTS)
    if dice.random() < 0.3:
        resource["parties"] = dice.sample(PARTIES, dice.randint(0, 2))
    for name, values in MEMBERS.items():
        if seldom(0.25):
            resource[name] = dice.choice(values)
    asked: dict[str, Any] = {
        "subject": subject,
        "action": dice.choice(ACTIONS if not likely or "*" in granted[kind] else granted[kind]),
        "resource": resource,
        "body": body(dice),
        "before": body(dice) if seldom(0.3) else None,
        "channel": dice.choice(CHANNELS),
        "environment": {"time": NOW + dice.choice((0, 0, 3_600 * dice.randint(0, 168)))},
    }
    for part in (asked, subject, resource):
        if seldom():
            part.pop(dice.choice(list(part)))
    if seldom():
        asked[dice.choice(list(asked))] = dice.choice(VALUES)
    if seldom():
        subject[dice.choice(list(subject) or ["roles"])] = dice.choice(VALUES)
    if seldom():
        resource[dice.choice(list(resource) or ["kind"])] = dice.choice(VALUES)
    return asked


def body(dice: random.Random) -> Any:
    """Of an order, of an intent, of a listener, or none; parts of it may have another form."""

    def odd(value: Any) -> Any:
        return dice.choice(VALUES) if dice.random() < 0.04 else value

    def characteristic() -> Any:
        name = odd(dice.choice(("bandwidth", "bandwidth", "site", "vlan")))
        value = dice.choice(VALUES) if name != "site" else dice.choice(("berlin-1", "hamburg-1", "moon-1", 7))
        return odd({"name": name, "value": value})

    def price() -> Any:
        money = odd({"unit": dice.choice(("EUR", "EUR", "CHF")), "value": dice.choice((0.1, 10, 99.99, 60_000, -5))})
        charge: dict[str, Any] = {"price": {"taxIncludedAmount": money, "dutyFreeAmount": odd({"value": 20})}}
        if dice.random() < 0.7:
            charge["recurringChargePeriod"] = odd(dice.choice(("month", "Day", "fortnight")))
        return odd(charge)

    def item(depth: int = 0) -> Any:
        listed = odd([characteristic() for _ in range(dice.randint(0, 3))])
        action = odd(dice.choice(("add", "add", "modify", "delete", "noChange")))
        made: dict[str, Any] = {"id": "1", "action": action, "product": odd({"productCharacteristic": listed})}
        if dice.random() < 0.3:
            made["quantity"] = dice.choice((1, 2, 150, 501, "7", 0, -3, 1.5))
        if dice.random() < 0.3:
            made[dice.choice(("itemPrice", "itemTotalPrice"))] = odd([price() for _ in range(dice.randint(0, 2))])
        if depth < 2 and dice.random() < 0.15:
            made["productOrderItem"] = odd([item(depth + 1)])
        return odd(made)

    asked: dict[str, Any] = {"productOrderItem": odd([item() for _ in range(dice.randint(0, 3))])}
    if dice.random() < 0.2:
        asked["orderTotalPrice"] = odd([price()])
    return dice.choice(
        (
            None,
            {"bandwidth": dice.choice(VALUES), "vlan": 100},
            asked,
            asked,
            {"productOrderItem": [item()], "bandwidth": dice.choice(VALUES)},
            {"callback": "https://listener.example/events", "query": "state=held"},
            dice.choice(VALUES),
        )
    )


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
