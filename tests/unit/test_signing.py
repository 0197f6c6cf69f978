"""A listener can tell that an event is ours, whole and fresh, by what the documentation tells it to do."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from time import time

import pytest

from convergedon.core import settings
from convergedon.core.errors import Misconfigured
from convergedon.handlers.signing import Signer, signer

BODY = b'{"eventId": "1"}'
OLD, NEW = "old key of the gateway long enough", "new key of the gateway long enough"


@pytest.fixture(scope="module")
def verify() -> Callable[[str, Mapping[str, str], bytes], bool]:
    """The function that the documentation hands out."""
    page = (Path(__file__).parents[2] / "docs" / "listen.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    given: dict[str, Callable[[str, Mapping[str, str], bytes], bool]] = {}
    exec(code, given)  # type: ignore[arg-type]
    return given["verify"]


def test_what_was_signed_is_verified_and_nothing_else(verify: Callable[[str, Mapping[str, str], bytes], bool]) -> None:
    """Another body, id, hub or time is refused."""
    ours = Signer([NEW.encode()])
    headers, secret = ours.headers("hub-1", "event-1", BODY), ours.secret("hub-1")

    assert verify(secret, headers, BODY)
    assert not verify(secret, headers, BODY + b" ")
    assert not verify(secret, {**headers, "webhook-id": "event-2"}, BODY)
    assert not verify(secret, {**headers, "webhook-timestamp": str(int(headers["webhook-timestamp"]) + 1)}, BODY)
    assert not verify(ours.secret("hub-2"), headers, BODY)
    assert not verify(secret, ours.headers("hub-1", "event-1", BODY, time() - 301), BODY)
    assert not verify(secret, ours.headers("hub-1", "event-1", BODY, time() + 302), BODY)


def test_a_key_is_replaced_while_both_sign(verify: Callable[[str, Mapping[str, str], bytes], bool]) -> None:
    """Who registered before and who registers now are both served; without the old key only the latter."""
    before, between, after = [signer(settings.load(hub_key=keys)) for keys in (OLD, f"{NEW}, {OLD}", NEW)]
    headers = between.headers("hub", "event", BODY)

    assert verify(before.secret("hub"), headers, BODY)
    assert verify(between.secret("hub"), headers, BODY)
    assert between.secret("hub") == after.secret("hub") != before.secret("hub")
    assert between.knows(before.mark)
    assert not after.knows(before.mark)


def test_the_key_of_the_data_folder_is_the_same_for_every_process_and_for_nobody_else(tmp_path: Path) -> None:
    """Made once, and readable by its owner alone."""
    first, second = [signer(settings.load(data=tmp_path)) for _ in range(2)]

    assert first.secret("hub") == second.secret("hub")
    assert stat.S_IMODE((tmp_path / "keys" / "hub.key").stat().st_mode) == 0o600
    assert signer(settings.load(data=tmp_path / "other")).secret("hub") != first.secret("hub")


def test_keys_are_in_no_representation_and_a_short_one_is_refused(tmp_path: Path) -> None:
    """Neither a signer's mark nor the refusal tells the key."""
    with pytest.raises(Misconfigured, match="32 characters") as refused:
        settings.load(hub_key=f"{NEW},hunter2")

    assert "hunter2" not in str(refused.value)
    assert NEW not in f"{settings.load(hub_key=NEW)}"
    assert NEW not in f"{signer(settings.load(hub_key=NEW))}"
    (tmp_path / "keys").write_text("a file where the folder would be")
    with pytest.raises(Misconfigured, match="CONVERGEDON_HUB_KEY"):
        signer(settings.load(data=tmp_path))
