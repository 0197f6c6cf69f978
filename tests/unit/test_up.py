"""What a system consists of, how it is found, and what is said when it cannot start."""

import asyncio
import fcntl
import json
import os
import socket
import subprocess
import sys
from ipaddress import ip_network
from pathlib import Path

import pytest

from convergedon.core import embedded, settings
from convergedon.core.errors import Misconfigured, Unavailable
from convergedon.core.supervisor import write_json
from convergedon.core.up import environment, find, plan, probe


def run(*arguments: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """The command line as a person uses it, with no setting but those given."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CONVERGEDON_")}
    command = [sys.executable, "-P", "-m", "convergedon.core.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=clean | env, timeout=60)


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_servers_come_first_and_adapters_last(tmp_path: Path) -> None:
    """The list is in the order of start; the stop goes the other way."""
    children = plan(settings.load(data=tmp_path), lab=True, workers=2, adapters=["flow", "snmp"])

    names = [child.name for child in children]
    assert names == ["nats", "mongodb", "lab", "gateway", "worker-1", "worker-2", "flow", "snmp"]
    assert [child.group for child in children[-2:]] == ["adapters"] * 2


def test_roles_are_told_where_everything_is(tmp_path: Path) -> None:
    """Roles get the embedded servers, the folder, and in the lab its devices; callbacks may be on loopback."""
    given = settings.load(data=tmp_path, port=0, callback_networks=[ip_network("10.0.0.0/8")])

    children = {child.name: child for child in plan(given, lab=True, workers=1, adapters=["snmp"])}

    worker, snmp, gateway = children["worker-1"], children["snmp"], children["gateway"]
    assert worker.env["CONVERGEDON_NATS_URL"] == embedded.nats_url(tmp_path / "nats", children["nats"].address)
    store = embedded.mongodb_url(tmp_path / "mongodb", children["mongodb"].address)
    assert worker.env["CONVERGEDON_MONGODB_URL"] == store
    assert worker.env["CONVERGEDON_DATA"] == str(tmp_path)
    assert worker.env["PROMETHEUS_MULTIPROC_DIR"] == str(tmp_path / "run" / "metrics")
    assert worker.given == {"CONVERGEDON_DEVICES": "lab", "CONVERGEDON_PUBLIC_URL": "gateway"}
    assert snmp.given == {"CONVERGEDON_DEVICES": "lab"}
    assert set(worker.needs) == {"nats", "mongodb", "lab", "gateway"}
    assert json.loads(gateway.env["CONVERGEDON_CALLBACK_NETWORKS"]) == ["10.0.0.0/8", "127.0.0.0/8", "::1/128"]
    assert "::1/128" not in snmp.env.get("CONVERGEDON_CALLBACK_NETWORKS", "")
    assert gateway.env["CONVERGEDON_PORT"] == "0"


def test_named_servers_are_not_embedded(tmp_path: Path) -> None:
    """A setting that names a server replaces the embedded one."""
    given = settings.load(data=tmp_path, nats_url="nats://there:4222", mongodb_url="mongodb://there")

    children = plan(given, lab=False, workers=1, adapters=[])

    assert [child.name for child in children] == ["gateway", "worker-1"]
    assert children[1].env["CONVERGEDON_NATS_URL"] == "nats://there:4222"
    assert children[1].needs == ("gateway",)


def test_settings_reach_another_process_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was set here says the same when it is read there, secrets and lists included."""
    given = settings.load(
        data=tmp_path,
        nats_url="nats://user:secret@there",
        callback_networks=[ip_network("10.0.0.0/8")],
        devices=tmp_path / "devices.yaml",
        delivery_horizon=2.5,
    )

    for name, value in environment(given).items():
        monkeypatch.setenv(name, value)

    assert settings.load() == given


def test_a_system_is_found_while_it_runs(tmp_path: Path) -> None:
    """The file of a system that ended without removing it is not believed."""
    connection = {"gateway": "http://g", "nats": "n", "mongodb": "m", "trap": "t", "flow": "f", "pid": os.getpid()}
    ended = subprocess.Popen([sys.executable, "-I", "-S", "-c", ""])
    ended.wait()

    assert find(tmp_path) is None
    embedded.prepare_folder(tmp_path / "run")
    write_json(tmp_path / "run" / "connection.json", connection)
    found = find(tmp_path)
    assert found is not None
    assert found.gateway == "http://g"
    write_json(tmp_path / "run" / "connection.json", {**connection, "pid": ended.pid})
    assert find(tmp_path) is None


async def test_servers_that_answer_are_accepted(nats_url: str, mongodb_url: str, tmp_path: Path) -> None:
    """Servers that the settings name and that answer are used without a word."""
    await probe(settings.load(data=tmp_path, nats_url=nats_url, mongodb_url=mongodb_url))


@pytest.mark.parametrize(("name", "scheme"), [("nats_url", "nats"), ("mongodb_url", "mongodb"), ("opa_url", "http")])
async def test_a_server_that_does_not_answer_is_one_sentence(name: str, scheme: str, tmp_path: Path) -> None:
    """It names the server and the setting, and no secret."""
    port = closed_port()
    given = settings.load(data=tmp_path, **{name: f"{scheme}://user:hush@127.0.0.1:{port}"})

    with pytest.raises(Unavailable) as caught:
        await probe(given, patience=1)

    assert f" at 127.0.0.1:{port} (CONVERGEDON_{name.upper()}) " in str(caught.value)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(("name", "scheme"), [("nats_url", "nats"), ("mongodb_url", "mongodb"), ("opa_url", "http")])
async def test_a_silent_server_is_not_waited_for(name: str, scheme: str, tmp_path: Path) -> None:
    """A server that accepts and says nothing does not hold up the start for ever."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        given = settings.load(data=tmp_path, **{name: f"{scheme}://127.0.0.1:{port}"})

        with pytest.raises(Unavailable, match=rf"127\.0\.0\.1:{port} .* does not answer within 1 s$"):
            async with asyncio.timeout(15):
                await probe(given, patience=1)


async def test_an_unusable_mongodb_url_is_one_sentence(tmp_path: Path) -> None:
    """A URL that cannot be read is the operator's to change."""
    with pytest.raises(Misconfigured, match=r"CONVERGEDON_MONGODB_URL\) is not a MongoDB URL"):
        await probe(settings.load(data=tmp_path, mongodb_url="http://there"))


def test_up_refuses_a_folder_in_use(tmp_path: Path) -> None:
    """The second `up` says in one sentence that there is a first, and exits with 78."""
    embedded.prepare_folder(tmp_path / "run")
    with (tmp_path / "run" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        said = run("up", "--data", str(tmp_path), cwd=tmp_path)

    assert (said.returncode, said.stdout) == (78, "")
    assert said.stderr.startswith(f"{tmp_path} is in use by another `convergedon up`")
    assert said.stderr.count("\n") == 1


def test_up_refuses_a_folder_it_cannot_write(tmp_path: Path) -> None:
    """The folder is named, in one sentence."""
    (tmp_path / "file").touch()

    said = run("up", cwd=tmp_path, CONVERGEDON_DATA=str(tmp_path / "file"))

    assert (said.returncode, said.stdout) == (78, "")
    assert said.stderr == f"cannot write to {tmp_path}/file: it is a file\n"


def test_up_refuses_a_server_that_does_not_answer(tmp_path: Path) -> None:
    """An unreachable server is one sentence and a non-zero exit, and nothing is started."""
    said = run("up", cwd=tmp_path, CONVERGEDON_NATS_URL=f"nats://127.0.0.1:{closed_port()}")

    assert (said.returncode, said.stdout) == (1, "")
    assert said.stderr.startswith("NATS at 127.0.0.1:")
    assert said.stderr.count("\n") == 1
    assert not (tmp_path / "convergedon-data" / "log").exists()


def test_a_wrong_setting_is_one_sentence(tmp_path: Path) -> None:
    """A setting that cannot be read is named, and its value is not repeated."""
    said = run("up", cwd=tmp_path, CONVERGEDON_PORT="hush")

    assert said.returncode == 78
    assert said.stderr.startswith("setting CONVERGEDON_PORT: ")
    assert "hush" not in said.stderr


def test_commands_say_when_no_system_runs(tmp_path: Path) -> None:
    """A command that needs a running system says how to start one."""
    said = run("parked", "list", "--data", str(tmp_path), cwd=tmp_path)

    assert said.returncode == 78
    assert said.stderr.startswith(f"no system runs in {tmp_path}: start it with `convergedon up --data {tmp_path}`")


def test_the_version_is_told(tmp_path: Path) -> None:
    """--version is the product's name and the installed version."""
    said = run("--version", cwd=tmp_path)

    assert said.returncode == 0
    assert said.stdout.startswith("convergedon 0.")
