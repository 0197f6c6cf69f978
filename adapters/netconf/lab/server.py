"""How a lab element is reached: NETCONF over SSH on loopback (RFC 6242), or by calling home (RFC 8071)."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convergedon.adapters.netconf.lab.memory import write
from convergedon.core.errors import Misconfigured

if TYPE_CHECKING:
    import asyncssh

Serve = Callable[["asyncssh.SSHServerProcess[bytes]"], Awaitable[None]]


class Server:
    """Lets in who knows the password, or has the key that is ``authorized``, and hands out what they open to ``serve``.

    The host key and the port are kept in the folder. ``gone`` is called when a connection has ended.
    """

    def __init__(
        self, folder: Path, login: Callable[[], tuple[str, str]], serve: Serve, gone: Callable[[], None]
    ) -> None:
        self._folder, self._login, self._serve, self._gone = folder, login, serve, gone
        self.authorized = ""
        """The public key, in base64."""
        self._acceptor: asyncssh.SSHAcceptor | None = None
        self._key: asyncssh.SSHKey | None = None
        self.connections: set[asyncssh.SSHServerConnection] = set()

    @property
    def host_key(self) -> str:
        """The public host key in base64, once the server was started."""
        if self._key is None:
            raise Misconfigured(f"the element of {self._folder} has no host key before it was started")
        return self._key.export_public_key().split()[1].decode()

    async def start(self, wanted: int) -> int:
        """Listen on the port that is wanted, or the one that it had before, or a free one. Raises Misconfigured."""
        import asyncssh

        logging.getLogger("asyncssh").setLevel(logging.WARNING)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._key = self._kept_key()
        kept = self._folder / "port"
        port = wanted or (int(kept.read_text()) if kept.exists() else 0)
        try:
            self._acceptor = await asyncssh.listen("127.0.0.1", port, **self._options())
        except OSError as error:
            if wanted:
                raise Misconfigured(f"port {wanted} on 127.0.0.1 is taken") from error
            self._acceptor = await asyncssh.listen("127.0.0.1", 0, **self._options())
        write(kept, str(self._acceptor.get_port()))
        return self._acceptor.get_port()

    async def call_home(self, host: str, port: int, address: str) -> None:
        """Connect to a client from this address, and be its server."""
        import asyncssh

        await asyncssh.connect_reverse(host, port, local_addr=(address, 0), **self._options())

    async def stop(self) -> None:
        """Close everything; the last ``gone`` comes afterwards."""
        if self._acceptor is not None:
            self._acceptor.close()
            await self._acceptor.wait_closed()
            self._acceptor = None
        for connection in list(self.connections):
            connection.abort()

    def _kept_key(self) -> asyncssh.SSHKey:
        import asyncssh

        kept = self._folder / "host.key"
        if not kept.exists():
            write(kept, asyncssh.generate_private_key("ssh-ed25519").export_private_key().decode())
        return asyncssh.read_private_key(kept)

    def _options(self) -> dict[str, Any]:
        import asyncssh

        server = self

        class Login(asyncssh.SSHServer):
            def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
                self.connection = conn
                server.connections.add(conn)

            def connection_lost(self, exc: Exception | None) -> None:
                server.connections.discard(self.connection)
                server._gone()

            def begin_auth(self, username: str) -> bool:
                return True

            def password_auth_supported(self) -> bool:
                return True

            def validate_password(self, username: str, password: str) -> bool:
                return (username, password) == server._login()

            def public_key_auth_supported(self) -> bool:
                return bool(server.authorized)

            def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
                shown = key.export_public_key().split()[1].decode()
                return (username, shown) == (server._login()[0], server.authorized)

        return {
            "server_factory": Login,
            "server_host_keys": [self._key],
            "process_factory": self._serve,
            "encoding": None,
            "line_editor": False,
            "allow_pty": False,
            "agent_forwarding": False,
            "server_version": "ConvergedON-lab",
        }
