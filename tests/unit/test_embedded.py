"""The embedded servers start, keep their port and their contents, and say in one sentence why they cannot."""

import os
import select
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path

import nats
import pytest
from pymongo import AsyncMongoClient
from pymongo.errors import OperationFailure

from convergedon.core import embedded
from convergedon.core.errors import Misconfigured

Start = Callable[..., AbstractAsyncContextManager[embedded.Server]]
both = pytest.mark.parametrize("start", [embedded.nats, embedded.mongodb])


async def _keep_in_nats(url: str) -> None:
    client = await nats.connect(url)
    await client.jetstream().add_stream(name="kept", subjects=["kept"])
    await client.jetstream().publish("kept", b"1")
    await client.close()


async def _count_in_nats(url: str) -> int:
    client = await nats.connect(url)
    info = await client.jetstream().stream_info("kept")
    await client.close()
    return info.state.messages


async def _keep_in_mongodb(url: str) -> None:
    async with AsyncMongoClient(url) as client:
        await client.trial.kept.insert_one({"_id": 1})


async def _count_in_mongodb(url: str) -> int:
    async with AsyncMongoClient(url) as client:
        return await client.trial.kept.count_documents({})


@pytest.mark.parametrize(
    ("start", "keep", "count"),
    [
        (embedded.nats, _keep_in_nats, _count_in_nats),
        (embedded.mongodb, _keep_in_mongodb, _count_in_mongodb),
    ],
)
async def test_a_restart_finds_the_same_port_and_contents(
    start: Start, keep: Callable[[str], Awaitable[None]], count: Callable[[str], Awaitable[int]], tmp_path: Path
) -> None:
    """Clients that know the URL find what they kept there after a restart."""
    async with start(tmp_path) as first:
        await keep(first.url)

    async with start(tmp_path) as second:
        assert second.url == first.url
        assert second.pid != first.pid
        assert await count(second.url) == 1


async def test_nobody_gets_into_the_store_without_its_password(tmp_path: Path) -> None:
    """Neither without any nor with another: not even who it is is told. The file is its owner's alone."""
    async with embedded.mongodb(tmp_path) as server:
        await _keep_in_mongodb(server.url)
        secret = (tmp_path / "password").read_text()
        async with AsyncMongoClient(server.url.replace(f"convergedon:{secret}@", "")) as stranger:
            for ask in (
                stranger.trial.kept.count_documents({}),
                stranger.trial.kept.delete_many({}),
                stranger.admin.command("createUser", "stranger", pwd="x", roles=["root"]),
                stranger.admin.command("usersInfo"),
                stranger.list_database_names(),
            ):
                with pytest.raises(OperationFailure, match=r"(?i)auth"):
                    await ask
        async with AsyncMongoClient(server.url.replace(secret, "guessed"), retryReads=False) as guesser:
            with pytest.raises(OperationFailure, match=r"(?i)auth"):
                await guesser.trial.kept.count_documents({})
        kept = await _count_in_mongodb(server.url)

    assert kept == 1
    assert stat.S_IMODE((tmp_path / "password").stat().st_mode) == 0o600


async def test_a_password_that_was_removed_is_another_at_the_next_start(tmp_path: Path) -> None:
    """What is kept is there, the old password counts no more."""
    async with embedded.mongodb(tmp_path) as first:
        await _keep_in_mongodb(first.url)
    (tmp_path / "password").unlink()

    async with embedded.mongodb(tmp_path) as second:
        assert await _count_in_mongodb(second.url) == 1
        with pytest.raises(OperationFailure):
            await _count_in_mongodb(first.url)


async def test_a_store_that_was_open_keeps_what_it_has(tmp_path: Path) -> None:
    """A data folder of an earlier build, which wanted no password."""
    prepared = embedded.mongodb_command(tmp_path)
    options = prepared.argv[5:]
    argv = (sys.executable, "-P", "-m", "secantus", *options, "--storage-path", str(tmp_path / "store"))
    url = f"mongodb://{prepared.address}/?directConnection=true"
    before = replace(prepared, argv=argv, url=url, answers=lambda pid: not embedded.is_free(int(url.split(":")[2][:5])))
    with embedded.running(before) as server:
        await _keep_in_mongodb(server.url)

    async with embedded.mongodb(tmp_path) as now:
        assert await _count_in_mongodb(now.url) == 1
        with pytest.raises(OperationFailure):
            await _count_in_mongodb(url)


@both
async def test_it_is_gone_after_the_block(start: Start, tmp_path: Path) -> None:
    """No process is left behind."""
    async with start(tmp_path) as server:
        os.kill(server.pid, 0)

    with pytest.raises(ProcessLookupError):
        os.kill(server.pid, 0)


@both
async def test_a_taken_port_is_one_sentence(start: Start, tmp_path: Path) -> None:
    """A port that was asked for and is taken is the operator's to change."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(Misconfigured, match=rf"^port {port} for .* is taken[^\n]*$"):
            async with start(tmp_path, port):
                pass


@both
async def test_a_remembered_port_that_is_taken_gives_way(start: Start, tmp_path: Path) -> None:
    """A port that was chosen automatically may change when another program has it now."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (tmp_path / "port").write_text(f"{port}\n")

        async with start(tmp_path) as server:
            assert f":{port}" not in server.url


@both
async def test_an_unwritable_folder_is_one_sentence(start: Start, tmp_path: Path) -> None:
    """A folder that cannot be made is named."""
    (tmp_path / "file").touch()

    with pytest.raises(Misconfigured, match=r"^cannot write to .*file/below: Not a directory$"):
        async with start(tmp_path / "file" / "below"):
            pass


@pytest.mark.parametrize("command", ["nats_command", "mongodb_command"])
def test_a_missing_extra_is_one_sentence(command: str, tmp_path: Path) -> None:
    """Without the servers installed the sentence says how to install them and which setting does without."""
    # an interpreter that sees the standard library and our modules alone
    root = Path(embedded.__file__).parent
    script = (
        "import sys, types, pathlib\n"
        "for name in ('convergedon', 'convergedon.core'):\n"
        "    sys.modules[name] = types.ModuleType(name)\n"
        f"    sys.modules[name].__path__ = [{str(root)!r}]\n"
        "from convergedon.core import embedded\n"
        f"try: embedded.{command}(pathlib.Path({str(tmp_path)!r}))\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )

    said = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=True).stdout

    assert said.startswith("Misconfigured the embedded ")
    assert "pip install 'convergedon[embedded]', or set CONVERGEDON_" in said
    assert said.count("\n") == 1


async def test_a_store_that_cannot_open_says_why(tmp_path: Path) -> None:
    """A server that ends at its start is reported with what it said last."""
    (tmp_path / "store").write_text("not a folder")

    with pytest.raises(Misconfigured, match=r"^mongodb did not start: .+ \(see .*mongodb\.log\)$"):
        async with embedded.mongodb(tmp_path):
            pass


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the next start cleans up")
@pytest.mark.crash
def test_a_server_does_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    """Killed with signal 9 the parent cannot stop its server; the kernel does."""
    script = (
        "import sys, pathlib, time\n"
        "from convergedon.core import embedded\n"
        "with embedded.running(embedded.nats_command(pathlib.Path(sys.argv[1]))) as server:\n"
        "    print(server.pid, flush=True)\n"
        "    time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    with parent, parent.stdout:
        server = os.pidfd_open(int(parent.stdout.readline()))

        parent.send_signal(signal.SIGKILL)

        assert _ended(server), "the server still runs 10 s after its parent was killed"


def _ended(process: int) -> bool:
    """Wait for the end of a process that is no child of ours: its pidfd becomes readable."""
    readable, _, _ = select.select([process], [], [], 10)
    os.close(process)
    return bool(readable)


async def test_another_user_of_the_machine_does_not_get_in(tmp_path: Path) -> None:
    """Whoever reaches the port of NATS needs its token, which stands in files that their owner alone can read."""
    async with embedded.nats(tmp_path) as server:
        address = server.url.rpartition("@")[2]
        for url in (f"nats://{address}", f"nats://{'0' * 64}@{address}"):
            client = nats.NATS()
            with pytest.raises(nats.errors.Error, match="Authorization Violation"):
                await client.connect(url, allow_reconnect=False, error_cb=_quiet)
            await client.close()
        await (await nats.connect(server.url)).close()
        line = Path(f"/proc/{server.pid}/cmdline").read_bytes() if Path("/proc").is_dir() else b""

    token = (tmp_path / "token").read_text()
    assert token.encode() not in line
    for file in tmp_path.iterdir():
        if file.is_file() and token in file.read_text(errors="replace"):
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


async def _quiet(_: Exception) -> None:
    """It is raised as well."""
