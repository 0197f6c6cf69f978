"""Logs are one JSON object a line, with the trace and without secrets."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from typing import Any

import pytest

SECRET = "hunter2-s3cret"


def logged(code: str) -> list[dict[str, Any]]:
    """What a process of its own writes: logging is set for a whole process."""
    begin = f"""
        import logging
        import structlog
        from convergedon.core import logs, trace
        SECRET = {SECRET!r}
        logs.configure("worker")
        trace.configure("worker")
        log = structlog.get_logger()
    """
    whole = textwrap.dedent(begin) + textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-c", whole], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == ""
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_a_line_says_what_when_who_and_how_bad() -> None:
    """Our own lines and those of libraries have one form."""
    ours, theirs = logged("log.info('order taken', order='1'); logging.getLogger('library').warning('hm %s', 5)")

    assert (ours["event"], ours["order"], ours["role"], ours["level"]) == ("order taken", "1", "worker", "info")
    assert ours["timestamp"].endswith("Z")
    assert (theirs["event"], theirs["role"], theirs["level"]) == ("hm 5", "worker", "warning")


def test_a_line_inside_a_span_carries_its_trace() -> None:
    """And one outside carries none."""
    parent = f"00-{'a1' * 16}-{'b2' * 8}-01"
    inside, outside = logged(f"""
        with trace.span("order", {{"traceparent": "{parent}"}}):
            log.info("inside")
        log.info("outside")
    """)

    assert inside["trace"] == "a1" * 16
    assert "trace" not in outside


@pytest.mark.parametrize(
    "name",
    ["password", "snmp_community", "Authorization", "bearer_token", "client_secret", "keyPassphrase", "key_file"],
)
def test_a_secret_is_masked_by_its_name(name: str) -> None:
    """Whoever logs it by mistake."""
    (line,) = logged(f"log.info('connecting', **{{{name!r}: SECRET}})")

    assert line[name] == "***"


def test_a_secret_is_masked_wherever_it_is_nested() -> None:
    """Headers and settings are logged as a whole more easily than a password is."""
    (line,) = logged("log.info('request', headers={'Authorization': SECRET}, devices=[{'password': SECRET}])")

    assert SECRET not in json.dumps(line)


def test_a_failure_is_logged_on_one_line_with_its_cause() -> None:
    """A traceback does not break the form, and shows no values."""
    (line,) = logged("""
        def connect(password):
            raise ValueError("refused")
        try:
            connect(SECRET)
        except ValueError:
            log.exception("failed")
    """)

    assert "ValueError: refused" in line["exception"]
    assert SECRET not in json.dumps(line)


def test_libraries_that_log_payloads_are_quiet() -> None:
    """ncclient writes whole configurations at info."""
    assert logged("logging.getLogger('ncclient.transport').info('<password>%s</password>', SECRET)") == []


def test_a_secret_is_masked_by_its_form() -> None:
    """A password in a URL and a token after Bearer, in a sentence as in a traceback, of ours or of a library's."""
    lines = logged("""
        url = f"mongodb://anna:{SECRET}@db.example:27017/?tls=true"
        log.warning("cannot connect", reason=f"refused by {url}")
        logging.getLogger("library").warning("GET with Authorization: Bearer %s.x.y", SECRET)
        try:
            raise OSError(url)
        except OSError as error:
            log.error("failed", exc_info=error)
    """)

    assert SECRET not in str(lines)
    assert "mongodb://***@db.example:27017" in lines[0]["reason"]
    assert "Bearer ***" in lines[1]["event"]
    assert "mongodb://***@db.example" in lines[2]["exception"]
