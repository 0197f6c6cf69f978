"""The process of the embedded store: SecantusDB with one user, who is known before anybody can connect.

    python -P -m convergedon.core.embedded_store FOLDER options...

SecantusDB itself takes a first user over its port, which is open to everybody until then; here it is written to the
store before there is a port. The folder keeps the password; who removes it gets another at the next start.
"""

from __future__ import annotations

import sys
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

from secantus import cli, server
from secantus.auth import SCRAM_SHA_256, derive_credentials
from secantus.storage import Storage

from convergedon.core.lean_store import TRIED, LeanStorage, lean

USER = "convergedon"
DATABASE = "admin"


def main() -> None:
    folder, options = Path(sys.argv[1]), sys.argv[2:]
    _admit(folder / "store", (folder / "password").read_text(), folder / "admitted")
    if version("SecantusDB") == TRIED:
        lean()
        server.Storage = LeanStorage
    sys.exit(cli.main([*options, "--storage-path", str(folder / "store"), "--auth"]))


def _admit(store: Path, password: str, admitted: Path) -> None:
    """Let the user in by this password, and by no other. ``admitted`` notes which that is."""
    which = sha256(password.encode()).hexdigest()
    if admitted.exists() and admitted.read_text() == which:
        return
    user = {
        "_id": f"{DATABASE}.{USER}",
        "user": USER,
        "db": DATABASE,
        "credentials": derive_credentials(password, mechanism=SCRAM_SHA_256, username=USER).to_doc(),
        "roles": [{"role": "root", "db": DATABASE}],
        "mechanisms": [SCRAM_SHA_256],
    }
    opened = Storage(str(store), sync_on_commit=True)
    try:
        opened.add_user(DATABASE, USER, user, replace=True)
    finally:
        opened.close()
    admitted.write_text(which)


if __name__ == "__main__":
    main()
