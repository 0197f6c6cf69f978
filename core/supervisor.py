"""Start children in the order of their needs, keep them alive, and leave none behind.

A child of ours prints one JSON line on standard output when it is ready, {"ready": true, "address": "127.0.0.1:8080"};
a server is asked. What is known of each stands in DIR/run/components.json, which the gateway's /readyz reads.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal, Self, cast

from convergedon.core.embedded import last_line, prepare_folder, tethered
from convergedon.core.errors import Misconfigured
from convergedon.core.tasks import end

LOG_LIMIT = 10 * 1024 * 1024
State = Literal["starting", "ready", "restarting", "failed", "stopped"]


@dataclass(frozen=True)
class Child:
    """A process to keep alive."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    """Children that must have been ready once before this one starts."""
    ready: Callable[[int], bool] | None = None
    """Asks whether the process with this pid serves; None: the child says so itself."""
    address: str = ""
    """Where a child is reached that does not say so itself."""
    given: Mapping[str, str] = field(default_factory=dict)
    """Environment variable -> child whose address is its value."""
    port: str = ""
    """Environment variable that gives the child, when it is restarted, the port it had."""
    group: str = ""
    """Children that stand together and are of one group are stopped at the same time."""


@dataclass
class Component:
    """What is known of a child."""

    state: State = "starting"
    address: str = ""
    pid: int | None = None
    restarts: int = 0
    reason: str = ""


@dataclass(frozen=True)
class Patience:
    """Seconds: between restarts at first and at most, of life that count as health, for a start, for the whole stop.

    ``tries`` is how often a child that was never ready is started before the whole start has failed.
    """

    tries: int = 5
    first: float = 0.2
    most: float = 10.0
    healthy: float = 30.0
    start: float = 60.0
    stop: float = 9.5


class Supervisor:
    """``async with Supervisor(...) as running: await running.ready()``; at the end of the block every child is stopped.

    ``changed`` hears of every change of a component's state.
    """

    def __init__(
        self,
        folder: Path,
        children: Sequence[Child],
        changed: Callable[[str, Component], None] = lambda name, component: None,
        patience: Patience = Patience(),
    ) -> None:
        self.components = {child.name: Component() for child in children}
        self._folder = folder
        self._children = {child.name: child for child in children}
        self._changed = changed
        self._patience = patience
        self._been_ready = {child.name: asyncio.Event() for child in children}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._stopping = False
        self._kill_at = 0.0

    async def __aenter__(self) -> Self:
        for name in ("run", "log"):
            prepare_folder(self._folder / name)
        self._write()
        self._tasks = {name: asyncio.create_task(self._keep(child)) for name, child in self._children.items()}
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._stopping = True
        deadline = time.monotonic() + self._patience.stop
        groups = [list(group) for _, group in groupby(reversed(self._children.values()), lambda c: c.group or c.name)]
        for later, group in zip(reversed(range(len(groups))), groups, strict=True):
            # one that hangs may use what is left but a tenth of the whole for each group after it
            self._kill_at = max(time.monotonic() + 0.1, deadline - later * self._patience.stop / 10)
            tasks = [self._tasks[child.name] for child in group]
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            for task in tasks:
                if not task.cancelled():
                    task.exception()  # seen: ready() or watch() raised the first one
            for child in group:
                if self.components[child.name].state != "failed":
                    self._become(child, "stopped")

    async def ready(self) -> None:
        """Wait until every child has been ready.

        Raises Misconfigured with the sentence of a child that could not start.
        """
        all_ready = asyncio.create_task(self._all_ready())
        try:
            done, _ = await asyncio.wait([all_ready, *self._tasks.values()], return_when=asyncio.FIRST_COMPLETED)
        finally:
            all_ready.cancel()
        for task in done:
            task.result()

    async def watch(self) -> None:
        """Keep the children alive until this is cancelled."""
        done, _ = await asyncio.wait(self._tasks.values(), return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    def pass_on(self, number: signal.Signals, group: str) -> None:
        """Send a signal to the children of a group that are ready: one that only starts may not know it yet."""
        for name, child in self._children.items():
            component = self.components[name]
            if child.group == group and component.state == "ready" and component.pid is not None:
                _signal(component.pid, number)

    async def _all_ready(self) -> None:
        for event in self._been_ready.values():
            await event.wait()

    async def _keep(self, child: Child) -> None:
        for name in child.needs:
            await self._been_ready[name].wait()
        component, delay = self.components[child.name], self._patience.first
        while True:
            began = time.monotonic()
            try:
                code, reason = await self._live(child)
            except OSError as error:  # no more processes or descriptors: as bad as a crash, and as passing
                code, reason = os.EX_OSERR, f"cannot be started: {error.strerror}"
            if self._stopping:
                return
            given_up = child.ready or code == os.EX_CONFIG or component.restarts + 1 >= self._patience.tries
            if given_up and not self._been_ready[child.name].is_set():
                self._become(child, "failed", reason)
                raise Misconfigured(self._sentence(child, code))
            if time.monotonic() - began > self._patience.healthy:
                delay = self._patience.first
            component.restarts += 1
            self._become(child, "restarting", reason)
            await asyncio.sleep(delay)
            delay = min(2 * delay, self._patience.most)

    async def _live(self, child: Child) -> tuple[int, str]:
        """One life of a child: its exit code, and the reason of its end in words."""
        log, component = self._log(child), self.components[child.name]
        with _open_log(log) as output:
            born = output.tell()
            process = await asyncio.create_subprocess_exec(
                *tethered(child.argv),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if child.ready is None else output,
                stderr=output,
                env=self._environment(child),
                start_new_session=True,  # a Ctrl-C in the terminal is ours to pass on, in order
            )
            component.pid = process.pid
            self._write()
            listening = asyncio.create_task(
                self._ask(child, child.ready, process.pid)
                if child.ready
                else self._listen(child, cast(asyncio.StreamReader, process.stdout), output)
            )
            late = asyncio.get_running_loop().call_later(self._patience.start, self._give_up, child, process)
            try:
                code = await process.wait()
            finally:  # cancelled: the child is to stop
                never_ready = component.state != "ready" and late.when() <= asyncio.get_running_loop().time()
                late.cancel()
                await self._end(process)
                await _finish(listening, 0 if child.ready else 1)
        if never_ready:
            return code, f"not ready after {self._patience.start:g} s"
        return code, _reason(code, last_line(log) if log.stat().st_size > born else "")

    async def _listen(self, child: Child, stdout: asyncio.StreamReader, log: BinaryIO) -> None:
        """Notice the ready line; what else the child prints on standard output goes to its log."""
        while line := await _line(stdout):
            address = _announced(line)
            if address is not None:
                self._become_ready(child, address)
                continue
            with suppress(OSError):  # a full disk must not end what runs
                log.write(line)
                log.flush()

    async def _ask(self, child: Child, ready: Callable[[int], bool], pid: int) -> None:
        while True:
            if await asyncio.to_thread(ready, pid):
                break
            await asyncio.sleep(0.05)
        self._become_ready(child, child.address)

    def _give_up(self, child: Child, process: asyncio.subprocess.Process) -> None:
        if self.components[child.name].state != "ready":
            _kill(process)

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        """Ask a process to stop, and insist when its time is up."""
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(max(0.0, self._kill_at - time.monotonic())):
                await process.wait()
        except TimeoutError:
            _kill(process)
            await process.wait()

    def _environment(self, child: Child) -> dict[str, str]:
        given = {variable: self.components[name].address for variable, name in child.given.items()}
        before = self.components[child.name].address
        port = {child.port: before.rpartition(":")[2]} if child.port and before else {}
        return {**os.environ, **child.env, **given, **port}

    def _log(self, child: Child) -> Path:
        return self._folder / "log" / f"{child.name}.log"

    def _sentence(self, child: Child, code: int) -> str:
        """Our roles end with the sentence for the operator; a crash's or a server's last words need an introduction."""
        if code == os.EX_CONFIG and child.ready is None and (said := last_line(self._log(child))):
            return said
        return f"{child.name} did not start: {self.components[child.name].reason} (see {self._log(child)})"

    def _become_ready(self, child: Child, address: str) -> None:
        self.components[child.name].address = address
        self._become(child, "ready")
        self._been_ready[child.name].set()

    def _become(self, child: Child, state: State, reason: str | None = None) -> None:
        component = self.components[child.name]
        component.state = state
        component.reason = component.reason if reason is None else reason
        component.pid = component.pid if state in ("starting", "ready", "restarting") else None
        self._write()
        self._changed(child.name, component)

    def _write(self) -> None:
        run = self._folder / "run"
        states = {name: asdict(component) for name, component in self.components.items()}
        pids = {self.components[name].pid: child.argv for name, child in self._children.items()}
        with suppress(OSError):  # a full disk must not end what runs; the next change is written again
            write_json(run / "components.json", {"components": states})
            write_json(run / "pids.json", {str(pid): argv for pid, argv in pids.items() if pid is not None})


def write_json(file: Path, content: object) -> None:
    """Write a file that its owner alone may read; a reader finds the old content or the new one, never a part."""
    draft = file.with_name(f".{file.name}")
    draft.touch(mode=0o600)
    draft.write_text(json.dumps(content))
    draft.replace(file)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder for this process alone; the system lets go when the process ends, however it ends.

    Raises Misconfigured when another process holds it or it cannot be written.
    """
    prepare_folder(folder)
    prepare_folder(folder / "run")
    with (folder / "run" / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            raise Misconfigured(
                f"{folder} is in use by another `convergedon up` (pid {holder}): stop it or choose another --data"
            ) from None
        except OSError as error:
            raise Misconfigured(f"cannot lock {folder}: {error.strerror}") from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def end_leftovers(folder: Path, patience: float = 10.0) -> None:
    """End the children of a supervisor that was killed; a pid that is another program's by now is left alone."""
    try:
        recorded: dict[str, list[str]] = json.loads((folder / "run" / "pids.json").read_text())
    except (OSError, ValueError):
        return
    deadline = time.monotonic() + patience
    left = {int(pid): argv for pid, argv in recorded.items() if _is_running(int(pid), argv)}
    for pid in left:
        _signal(pid, signal.SIGTERM)
    while left := {pid: argv for pid, argv in left.items() if _is_running(pid, argv)}:
        if time.monotonic() > deadline:
            for pid in left:
                _signal(pid, signal.SIGKILL)
        time.sleep(0.05)


def _is_running(pid: int, argv: Sequence[str]) -> bool:
    """Whether the process is the one that was started; argv[0] is left out, a framework Python on macOS replaces it."""
    if Path("/proc/self/cmdline").exists():
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").rstrip("\0").replace("\0", " ")
        except OSError:
            return False
    else:
        line = subprocess.run(["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(line) and line.endswith(" ".join(argv[1:]))


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _kill(process: asyncio.subprocess.Process) -> None:
    """Kill a process that has not been waited for, and its group: it leads one."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _open_log(log: Path) -> BinaryIO:
    if log.exists() and log.stat().st_size > LOG_LIMIT:
        log.replace(log.with_name(f"{log.name}.1"))
    return log.open("ab")


async def _finish(task: asyncio.Task[None], patience: float) -> None:
    """Give a task time to end by itself, then cancel it; what went wrong in it is raised."""
    await asyncio.wait([task], timeout=patience)
    await end([task])
    if not task.cancelled():
        task.result()


async def _line(stream: asyncio.StreamReader) -> bytes:
    try:
        return await stream.readline()
    except ValueError:  # longer than the stream's limit, dropped by it
        return b"(a line too long to keep)\n"


def _announced(line: bytes) -> str | None:
    """The address in a ready line; None for any other line."""
    try:
        said = json.loads(line)
    except ValueError:
        return None
    return str(said.get("address", "")) if isinstance(said, dict) and said.get("ready") is True else None


def _reason(code: int, last: str) -> str:
    if code < 0:  # its last words were about something else
        return f"ended by {signal.Signals(-code).name if -code in set(signal.Signals) else f'signal {-code}'}"
    return f"exit code {code}: {last[:300]}" if last else f"exit code {code}"
