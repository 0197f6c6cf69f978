"""A real NETCONF server, yuma123's netconfd behind OpenSSH, with our YANG module loaded.

apt-get install --no-install-recommends netconfd netconfd-module-ietf-interfaces openssh-server net-tools
"""

import getpass
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from peers import PATH, peers

PROGRAMS = ("netconfd", "netconf-subsystem", "sshd", "ssh-keygen", "netstat")

SUBSYSTEM = """#!/bin/sh
rm {gluing} 2> /dev/null && exec {python} {glue} {subsystem}
exec {subsystem}
"""
GLUE = """import os, subprocess, sys

with subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE) as server:
    said = b""
    while b"##" not in said:
        said += os.read(0, 65536)
    while said:
        os.write(server.stdin.fileno(), said)
        said = os.read(0, 65536)
"""


@contextmanager
def running(folder: Path, *options: str) -> Iterator[dict[str, Any]]:
    """Run netconfd and sshd on loopback; what is given is the device's netconf settings."""
    with served(folder, *options) as server:
        yield server.entry


@contextmanager
def served(folder: Path, *options: str) -> Iterator["Server"]:
    """Run them, and have them restarted."""
    server = Server(folder, options)
    server.start()
    try:
        yield server
    finally:
        server.stop()


class Server:
    """netconfd behind an sshd of its own; ``entry`` is the device's netconf settings."""

    def __init__(self, folder: Path, options: tuple[str, ...]) -> None:
        self._programs = peers(*PROGRAMS)
        self._folder, self._options, self._port = folder, options, _free_port()
        self._ncx = folder / "ncx.sock"
        self._processes: tuple[subprocess.Popen[bytes], ...] = ()
        for key in ("host", "client"):
            keygen = [self._programs["ssh-keygen"], "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)]
            subprocess.run(keygen, check=True, timeout=30)
        if os.geteuid() == 0:  # sshd started by root insists on this empty folder, which its service makes at boot
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        # the first <get> aborts netconfd unless it finds this program
        stub = folder / "get-interface-ipv4"
        stub.write_text("#!/bin/sh\nexit 0\n")
        stub.chmod(0o755)
        self._config = folder / "sshd_config"
        subsystem = f"{self._programs['netconf-subsystem']} --ncxserver-sockname={self._port}@{self._ncx}"
        self._gluing = folder / "gluing"
        glue, wrapper = folder / "glue.py", folder / "subsystem"
        glue.write_text(GLUE)
        wrapper.write_text(SUBSYSTEM.format(gluing=self._gluing, python=sys.executable, glue=glue, subsystem=subsystem))
        wrapper.chmod(0o755)
        self._config.write_text(
            "\n".join(
                [
                    f"Port {self._port}",
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
                    f"Subsystem netconf {wrapper}",
                    "",
                ]
            )
        )
        # where it would be without is in the home of whoever runs the tests
        self._startup = folder / "startup-cfg.xml"
        self._startup.write_text('<config xmlns="urn:ietf:params:xml:ns:netconf:base:1.0"/>')
        self.entry = {
            "host": "127.0.0.1",
            "port": self._port,
            "username": getpass.getuser(),
            "keyFile": str(folder / "client"),
            "hostKey": (folder / "host.pub").read_text().split()[1],
        }

    def start(self) -> None:
        environment = {**os.environ, "PATH": f"{self._folder}{os.pathsep}{PATH}", "HOME": str(self._folder)}
        with as_file(files("convergedon.adapters.netconf") / "yang") as yang, (self._folder / "log").open("ab") as log:
            netconfd = [
                self._programs["netconfd"],
                f"--superuser={getpass.getuser()}",
                "--target=candidate",
                "--with-startup=true",
                "--with-validate=true",
                "--with-nmda=false",
                f"--port={self._port}",
                f"--ncxserver-sockname={self._ncx}",
                f"--modpath={yang}:/usr/share/yuma/modules",
                "--module=convergedon-access",
                f"--startup={self._startup}",
                *self._options,
            ]
            sshd = [self._programs["sshd"], "-D", "-e", "-f", str(self._config)]
            self._processes = tuple(
                subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=self._folder)
                for command in (netconfd, sshd)
            )
        _await(lambda: self._ncx.exists() and _listens(self._port), self._processes, self._folder / "log")

    @property
    def gluing(self) -> bool:
        """Whether the next session's greeting and first call reach netconfd in one piece, as on a busy machine."""
        return self._gluing.exists()

    def glue(self) -> None:
        self._gluing.touch()

    def call_home(self, host: str, port: int, address: str) -> subprocess.Popen[bytes]:
        """Be called home for by an sshd that serves a connection of our own, as inetd's would (RFC 8071).

        The subsystem believes nobody who came by another port than the server's.
        """
        with socket.socket() as link, (self._folder / "log").open("ab") as log:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            link.bind((address, self._port))
            link.connect((host, port))
            sshd = [self._programs["sshd"], "-i", "-e", "-f", str(self._config)]
            return subprocess.Popen(sshd, stdin=link, stdout=link, stderr=log, cwd=self._folder)

    def restart(self) -> None:
        """What a device does whose power fails: it comes back with its startup configuration."""
        for process in reversed(self._processes):
            process.kill()
            process.wait(5)
        self._ncx.unlink(missing_ok=True)
        self.start()

    def stop(self) -> None:
        for process in reversed(self._processes):
            process.terminate()
        for process in reversed(self._processes):
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
