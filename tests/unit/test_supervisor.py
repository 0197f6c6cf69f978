"""Children start in order, come back when they die, stop in the opposite order, and none is left behind."""

import asyncio
import fcntl
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from convergedon.core import embedded
from convergedon.core.errors import Misconfigured
from convergedon.core.supervisor import (
    LOG_LIMIT,
    Child,
    Component,
    Patience,
    Supervisor,
    end_leftovers,
    locked,
    write_json,
)

READY = """
import json, os, signal, sys, time
def ready(address=""): print(json.dumps({"ready": True, "address": address}), flush=True)
"""
SERVE = READY + "ready('127.0.0.1:' + os.environ.get('PORT', '4711'))\nsignal.pause()"
QUICK = Patience(first=0.05, most=0.2, stop=5)


class Heard:
    """What the supervisor told of changes, and a way to wait for one."""

    def __init__(self) -> None:
        self.changes: list[tuple[str, str]] = []
        self.times: list[float] = []
        self._news = asyncio.Event()

    def __call__(self, name: str, component: Component) -> None:
        self.changes.append((name, component.state))
        self.times.append(time.monotonic())
        self._news.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                self._news.clear()
                await self._news.wait()


def script(name: str, text: str, **more: object) -> Child:
    return Child(name, (sys.executable, "-I", "-S", "-c", text), **more)  # type: ignore[arg-type]


def components(folder: Path) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = json.loads((folder / "run" / "components.json").read_text())["components"]
    return found


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_children_wait_for_what_they_need(tmp_path: Path) -> None:
    """A child starts when those it needs have been ready, and is given their addresses."""
    heard = Heard()
    late = script(
        "late", READY + "ready(os.environ['WHERE'])\nsignal.pause()", needs=("early",), given={"WHERE": "early"}
    )

    async with Supervisor(tmp_path, [late, script("early", SERVE)], heard) as running:
        await running.ready()
        found = components(tmp_path)

    assert heard.changes[:2] == [("early", "ready"), ("late", "ready")]
    assert found["late"]["state"] == "ready"
    assert found["late"]["address"] == found["early"]["address"] == "127.0.0.1:4711"


async def test_a_dead_child_comes_back_on_its_port(tmp_path: Path) -> None:
    """A child that is killed is started again, with the port it had, and its record says what happened."""
    heard = Heard()
    child = script("gateway", SERVE, env={"PORT": "5000"}, port="PORT")

    async with Supervisor(tmp_path, [child], heard, QUICK) as running:
        await running.ready()
        first = running.components["gateway"].pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await heard.until(lambda: heard.changes.count(("gateway", "ready")) == 2)
        found = components(tmp_path)["gateway"]

    assert found["pid"] != first
    assert found["address"] == "127.0.0.1:5000"
    assert found["restarts"] == 1
    assert found["reason"] == "ended by SIGKILL"
    assert heard.changes == [("gateway", state) for state in ("ready", "restarting", "ready", "stopped")]


async def test_pauses_between_restarts_grow(tmp_path: Path) -> None:
    """A child that keeps failing is tried less and less often; its last words are kept."""
    heard = Heard()
    child = script("worker", "import sys; sys.exit('no luck today')")

    async with Supervisor(tmp_path, [child], heard, Patience(tries=100, first=0.1, most=0.4)) as running:
        await heard.until(lambda: len(heard.changes) == 5)
        reason = running.components["worker"].reason

    gaps = [after - before for before, after in zip(heard.times, heard.times[1:5], strict=False)]
    assert reason == "exit code 1: no luck today"
    assert [gap >= least for gap, least in zip(gaps, (0.1, 0.2, 0.4, 0.4), strict=True)] == [True] * 4


async def test_a_long_life_forgives_failures(tmp_path: Path) -> None:
    """After a healthy life the first pause is the short one again."""
    heard = Heard()
    patience = Patience(tries=100, first=0.1, most=60, healthy=0.0)  # every life counts as healthy

    async with Supervisor(tmp_path, [script("worker", "")], heard, patience):
        await heard.until(lambda: len(heard.changes) == 8)  # doubling would take 12 s

    assert heard.times[7] - heard.times[0] < 10


async def test_a_child_that_is_never_ready_is_started_again(tmp_path: Path) -> None:
    """A child that hangs before it is ready does not hang for ever."""
    heard = Heard()

    async with Supervisor(tmp_path, [script("worker", "import signal; signal.pause()")], heard, Patience(start=0.2)):
        await heard.until(lambda: ("worker", "restarting") in heard.changes)
        reason = components(tmp_path)["worker"]["reason"]

    assert reason == "not ready after 0.2 s"


async def test_misconfiguration_ends_everything_with_its_sentence(tmp_path: Path) -> None:
    """Exit code 78 before a child was ever ready is for the operator; the others are stopped."""
    bad = script("bad", "import sys; print('port 1 is taken', file=sys.stderr); sys.exit(78)", needs=("good",))
    running = Supervisor(tmp_path, [script("good", SERVE), bad])
    good: list[int] = []

    async def run() -> None:
        async with running:
            good.append(await pid_when_ready(running, "good"))
            await running.ready()

    with pytest.raises(Misconfigured, match=r"^port 1 is taken$"):
        await run()
    assert not is_alive(good[0])
    assert components(tmp_path)["bad"]["state"] == "failed"
    assert components(tmp_path)["good"]["state"] == "stopped"


async def test_a_child_that_never_starts_ends_the_start(tmp_path: Path) -> None:
    """A role that crashes at each of its first starts does not keep the operator waiting for ever."""
    bad = script("worker", "import sys; sys.exit('no luck today')")

    with pytest.raises(Misconfigured, match=r"^worker did not start: exit code 1: no luck today \(see .*worker.log\)$"):
        async with Supervisor(tmp_path, [bad], patience=Patience(tries=3, first=0.05)) as running:
            await running.ready()
    assert components(tmp_path)["worker"]["restarts"] == 2


async def pid_when_ready(running: Supervisor, name: str) -> int:
    while running.components[name].state != "ready":
        await asyncio.sleep(0)
    return running.components[name].pid or 0


async def test_a_server_that_cannot_start_is_one_sentence(tmp_path: Path) -> None:
    """A server ends with its own words and code: before it was ever ready they are for the operator."""
    child = script("nats", "import sys; sys.exit('disk on fire')", ready=lambda _: False)

    with pytest.raises(Misconfigured, match=r"^nats did not start: exit code 1: disk on fire \(see .*nats\.log\)$"):
        async with Supervisor(tmp_path, [child]) as running:
            await running.ready()


async def test_children_stop_in_the_opposite_order(tmp_path: Path) -> None:
    """Adapters, worker, gateway, then servers: each stops when those that use it have ended."""
    stops = tmp_path / "stops"
    polite = READY + (
        "def stop(*_):\n"
        f"    with open({str(stops)!r}, 'a') as file: file.write(sys.argv[1] + ' ')\n"
        "    time.sleep(0.1)\n"
        f"    with open({str(stops)!r}, 'a') as file: file.write('~' + sys.argv[1] + ' ')\n"
        "    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "ready()\n"
        "while True: signal.pause()\n"
    )
    children = [
        Child(name, (sys.executable, "-I", "-S", "-c", polite, name), group=group)
        for name, group in {"nats": "servers", "gateway": "", "worker-1": "", "snmp": "adapters"}.items()
    ]

    async with Supervisor(tmp_path, children) as running:
        await running.ready()

    assert stops.read_text().split() == [
        "snmp",
        "~snmp",
        "worker-1",
        "~worker-1",
        "gateway",
        "~gateway",
        "nats",
        "~nats",
    ]
    assert {component["state"] for component in components(tmp_path).values()} == {"stopped"}


@pytest.mark.skipif(sys.platform != "linux", reason="watches a process that is no child of ours by its pidfd")
async def test_a_child_that_will_not_stop_is_killed(tmp_path: Path) -> None:
    """The whole stop has a limit, whatever a child does; its own children end with it."""
    text = READY + (
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = os.fork()\n"
        "if child: ready(str(child))\n"
        "while True: signal.pause()\n"
    )
    children = [script("polite", SERVE), script("stubborn", text), script("mule", text)]

    async with Supervisor(tmp_path, children, patience=Patience(stop=1.0)) as running:
        await running.ready()
        pids = [component.pid for component in running.components.values()]
        watched = [os.pidfd_open(int(running.components[name].address)) for name in ("stubborn", "mule")]
        began = time.monotonic()

    assert time.monotonic() - began < 3
    assert [is_alive(pid) for pid in pids if pid] == [False] * 3
    assert all(has_ended(grandchild) for grandchild in watched)


def has_ended(process: int) -> bool:
    """Wait for a process that is no child of ours: its pidfd becomes readable."""
    readable, _, _ = select.select([process], [], [], 10)
    os.close(process)
    return bool(readable)


async def test_stopping_while_starting_leaves_nothing(tmp_path: Path) -> None:
    """A stop is possible at every moment, also before anything is ready."""
    async with Supervisor(tmp_path, [script("slow", "import signal; signal.pause()")], patience=QUICK) as running:
        while (pid := running.components["slow"].pid) is None:
            await asyncio.sleep(0)

    assert not is_alive(pid)


async def test_a_signal_is_passed_on_to_a_group_alone(tmp_path: Path) -> None:
    """To those of its children that are ready; the others could not know what it means to them yet."""
    told = (
        READY
        + """
import signal, time
signal.signal(signal.SIGHUP, lambda *_: ready("told"))
ready()
while True: time.sleep(60)
"""
    )
    children = [script("gateway", told), script("snmp", told, group="adapters")]
    async with Supervisor(tmp_path, children) as running:
        await running.ready()
        running.pass_on(signal.SIGHUP, "adapters")
        async with asyncio.timeout(10):
            while running.components["snmp"].address != "told":
                await asyncio.sleep(0.01)

        assert running.components["gateway"].address == ""
        assert {one.restarts for one in running.components.values()} == {0}


@pytest.mark.skipif(sys.platform != "linux", reason="closes a terminal of its own")
@pytest.mark.parametrize(("closed", "said"), [(False, b"HUP adapters\r\nHUP workers"), (True, b"")])
def test_the_end_of_its_terminal_is_the_end_of_up_and_any_other_hangup_is_passed_on(closed: bool, said: bytes) -> None:
    code = """
import asyncio, signal, sys
from convergedon.core.commands.system import _on_hangup
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests may ignore it, and that is handed down
class Supervisor:
    def pass_on(self, number, group):
        print("HUP", group, flush=True)
async def main():
    with _on_hangup(Supervisor()):
        print("ready", flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-P", "-c", code])
    heard = b""
    while b"ready\r\n" not in heard:  # the whole line: its end would be written to a terminal that is gone
        heard += os.read(terminal, 100)
    if closed:
        os.close(terminal)
    else:
        os.kill(pid, signal.SIGHUP)
        while said not in heard:
            heard += os.read(terminal, 100)
        os.kill(pid, signal.SIGTERM)
    _, status = os.waitpid(pid, 0)

    assert os.WTERMSIG(status) == signal.SIGTERM
    if not closed:
        os.close(terminal)


async def test_what_a_child_prints_is_kept(tmp_path: Path) -> None:
    """Lines other than the ready line, on either stream and of any length, end in the child's log."""
    text = (
        READY
        + "print('before'); print('x' * 200000); print('[1]'); print('oops', file=sys.stderr); ready(); print('after')"
    )

    async with Supervisor(tmp_path, [script("chatty", text + "; signal.pause()")]) as running:
        await running.ready()

    lines = (tmp_path / "log" / "chatty.log").read_text().splitlines()
    assert {"before", "[1]", "oops", "(a line too long to keep)"} <= set(lines)
    assert max(len(line) for line in lines) < 100


async def test_a_large_log_is_put_aside(tmp_path: Path) -> None:
    """At a start a log above the limit becomes the old one."""
    (tmp_path / "log").mkdir()
    log = tmp_path / "log" / "gateway.log"
    with log.open("wb") as file:
        file.truncate(LOG_LIMIT + 1)

    async with Supervisor(tmp_path, [script("gateway", SERVE)]) as running:
        await running.ready()

    assert log.stat().st_size == 0
    assert log.with_name("gateway.log.1").stat().st_size == LOG_LIMIT + 1


async def test_an_embedded_server_comes_back_with_its_address(tmp_path: Path) -> None:
    """A real server that is killed is ready again, where its clients look for it."""
    command = embedded.nats_command(tmp_path / "nats")
    heard = Heard()
    child = Child("nats", command.argv, ready=command.answers, address=command.address)

    async with Supervisor(tmp_path, [child], heard, QUICK) as running:
        await running.ready()
        first = running.components["nats"].pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await heard.until(lambda: heard.changes.count(("nats", "ready")) == 2)
        second = running.components["nats"].pid

        assert second is not None
        assert command.answers(second)
        assert components(tmp_path)["nats"]["address"] == command.address


SUPERVISE = """
import asyncio, sys
from pathlib import Path
from convergedon.core import embedded
from convergedon.core.supervisor import Child, Supervisor, locked

async def main():
    folder = Path(sys.argv[1])
    with locked(folder):
        servers = [embedded.nats_command(folder / "nats"), embedded.mongodb_command(folder / "mongodb")]
        children = [Child(s.name, s.argv, ready=s.answers, address=s.address, group="servers") for s in servers]
        children.append(Child("worker", (sys.executable, "-c", sys.argv[2]), needs=("nats", "mongodb")))
        async with Supervisor(folder, children) as running:
            await running.ready()
            print(*(component.pid for component in running.components.values()), flush=True)
            await running.watch()

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the next start ends what was left")
@pytest.mark.crash
def test_nothing_outlives_a_killed_supervisor(tmp_path: Path) -> None:
    """Killed with signal 9 the supervisor can stop nothing; the kernel does, and the folder is free again."""
    supervisor = subprocess.Popen(
        [sys.executable, "-c", SUPERVISE, str(tmp_path), SERVE], stdout=subprocess.PIPE, text=True
    )
    assert supervisor.stdout is not None
    with supervisor, supervisor.stdout:
        children = [os.pidfd_open(int(pid)) for pid in supervisor.stdout.readline().split()]

        supervisor.kill()

        assert len(children) == 3
        assert [has_ended(child) for child in children] == [True] * 3
    with locked(tmp_path):
        pass


def test_leftovers_of_a_killed_supervisor_are_ended(tmp_path: Path) -> None:
    """Where the kernel does not, the next start ends what the last one left; a pid that is another's now is spared."""
    argv = [sys.executable, "-I", "-S", "-c", SERVE, str(tmp_path)]
    left, other = (subprocess.Popen(argv, stdout=subprocess.PIPE) for _ in range(2))
    for process in (left, other):
        assert process.stdout is not None
        with process.stdout as stdout:
            stdout.readline()  # it runs
    (tmp_path / "run").mkdir()
    write_json(tmp_path / "run" / "pids.json", {left.pid: argv, other.pid: [*argv, "of another program"]})

    end_leftovers(tmp_path)

    assert left.wait() == -signal.SIGTERM
    assert other.poll() is None
    other.kill()
    other.wait()


def test_a_folder_is_held_once(tmp_path: Path) -> None:
    """A second system on the same folder is refused in one sentence that names the first."""
    (tmp_path / "run").mkdir()
    with (tmp_path / "run" / "lock").open("w") as other:
        other.write("4711")
        other.flush()
        fcntl.flock(other, fcntl.LOCK_EX)

        with (
            pytest.raises(Misconfigured, match=r"is in use by another `convergedon up` \(pid 4711\)"),
            locked(tmp_path),
        ):
            pass


def test_an_unwritable_folder_is_one_sentence(tmp_path: Path) -> None:
    """A folder that cannot be made is named."""
    (tmp_path / "file").touch()

    with (
        pytest.raises(Misconfigured, match=r"^cannot write to .*/file: it is a file$"),
        locked(tmp_path / "file"),
    ):
        pass
