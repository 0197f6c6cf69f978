"""A real NETCONF server, yuma123's netconfd behind OpenSSH, with our YANG module loaded.

apt-get install --no-install-recommends netconfd netconfd-module-ietf-interfaces openssh-server net-tools
"""

import getpass
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from peers import PATH, peers

PROGRAMS = ("netconfd", "netconf-subsystem", "sshd", "ssh-keygen", "netstat")


@contextmanager
def running(folder: Path, *options: str) -> Iterator[dict[str, Any]]:
    """Run netconfd and sshd on loopback; what is given is the device's netconf settings."""
    programs = peers(*PROGRAMS)
    port, ncx = _free_port(), folder / "ncx.sock"
    for key in ("host", "client"):
        subprocess.run(
            [programs["ssh-keygen"], "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True, timeout=30
        )
    if os.geteuid() == 0:  # sshd started by root insists on this empty folder, which its service makes at boot
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    # the first <get> aborts netconfd unless it finds this program
    stub = folder / "get-interface-ipv4"
    stub.write_text("#!/bin/sh\nexit 0\n")
    stub.chmod(0o755)
    config = folder / "sshd_config"
    config.write_text(
        "\n".join(
            [
                f"Port {port}",
                "ListenAddress 127.0.0.1",
                f"HostKey {folder / 'host'}",
                f"AuthorizedKeysFile {folder / 'client.pub'}",
                f"PidFile {folder / 'sshd.pid'}",
                "PermitRootLogin prohibit-password",
                "PasswordAuthentication no",
                "KbdInteractiveAuthentication no",
                "StrictModes no",
                "UsePAM no",
                "MaxStartups 200",
                f'Subsystem netconf "{programs["netconf-subsystem"]} --ncxserver-sockname={port}@{ncx}"',
                "",
            ]
        )
    )
    environment = {**os.environ, "PATH": f"{folder}{os.pathsep}{PATH}", "HOME": str(folder)}
    with as_file(files("convergedon.adapters.netconf") / "yang") as yang, (folder / "log").open("wb") as log:
        netconfd = subprocess.Popen(
            [
                programs["netconfd"],
                "--no-startup",
                f"--superuser={getpass.getuser()}",
                "--target=candidate",
                "--with-startup=true",
                "--with-validate=true",
                "--with-nmda=false",
                f"--port={port}",
                f"--ncxserver-sockname={ncx}",
                f"--modpath={yang}:/usr/share/yuma/modules",
                "--module=convergedon-access",
                *options,
            ],
            stdout=log,
            stderr=log,
            env=environment,
            cwd=folder,
        )
        sshd = subprocess.Popen(
            [programs["sshd"], "-D", "-e", "-f", str(config)], stdout=log, stderr=log, env=environment
        )
        try:
            _await(lambda: ncx.exists() and _listens(port), (netconfd, sshd), folder / "log")
            host_key = (folder / "host.pub").read_text().split()[1]
            yield {
                "host": "127.0.0.1",
                "port": port,
                "username": getpass.getuser(),
                "keyFile": str(folder / "client"),
                "hostKey": host_key,
            }
        finally:
            for process in (sshd, netconfd):
                process.terminate()
            for process in (sshd, netconfd):
                try:
                    process.wait(5)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait(5)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _await(ready: Any, processes: tuple[subprocess.Popen[bytes], ...], log: Path) -> None:
    until = time.monotonic() + 20
    while not ready():
        if any(process.poll() is not None for process in processes) or time.monotonic() > until:
            raise AssertionError(f"the peer did not start:\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.02)
