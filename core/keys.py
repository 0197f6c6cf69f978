"""Keys that the data folder keeps: made on first use, readable by their owner alone, the same for every process."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from convergedon.core.errors import Misconfigured

if TYPE_CHECKING:
    from convergedon.core.settings import Settings


def kept(path: Path, make: Callable[[], bytes]) -> bytes:
    """What the file holds; made when there is none. Raises OSError."""
    if not path.exists():
        path.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        fresh = path.with_suffix(f".{os.getpid()}")
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(make())
        # link, not rename: of two processes that make a key at once, one wins and both read it
        try:
            os.link(fresh, path)
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
    return path.read_bytes()


def audit(settings: Settings) -> bytes:
    """The key of the hashes by which audit records refer to what must not stand in them.

    Without it nobody can try out which person or question a hash stands for. Raises Misconfigured.
    """
    if given := settings.audit_key.get_secret_value():
        return given.encode()
    path = settings.data / "keys" / "audit.key"
    try:
        return kept(path, lambda: secrets.token_hex(32).encode())
    except OSError as error:
        raise Misconfigured(f"{path} cannot be used: {error.strerror} (or set CONVERGEDON_AUDIT_KEY)") from error
