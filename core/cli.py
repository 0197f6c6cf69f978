"""The command line. Each command says what it needs and hands over to core/app.py, imported only then: it is large."""

from __future__ import annotations

import os
from typing import Any

import click

from convergedon.core.commands import (
    adapter,
    audit,
    hub,
    lab,
    notifications,
    parked,
    policy,
    system,
    token,
    topology,
    trials,
    usage,
    workflow,
)
from convergedon.core.errors import ConvergedonError, Findings, Misconfigured


class Commands(click.Group):
    """Commands whose errors end as one sentence, and with 78 where the operator must change something."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ConvergedonError as error:
            _refuse(ctx, error)
        except BaseExceptionGroup as group:
            ours = _first(group)
            if ours is None:
                raise
            _refuse(ctx, ours)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="convergedon", message="convergedon %(version)s")
def main() -> None:
    """ConvergedON joins business systems and networks through TM Forum Open APIs."""


for command in (
    system.up,
    system.gateway,
    system.worker,
    adapter.adapter,
    lab.lab,
    token.token,
    audit.audit,
    policy.policy,
    notifications.notifications,
    workflow.workflow,
    topology.topology,
    usage.usage,
    parked.parked,
    hub.hub,
    trials.demo,
    trials.campaign,
):
    main.add_command(command)


def _refuse(ctx: click.Context, error: ConvergedonError) -> None:
    for sentence in error.sentences if isinstance(error, Findings) else [str(error)]:
        click.echo(" ".join(sentence.split()), err=True)
    ctx.exit(os.EX_CONFIG if isinstance(error, Misconfigured) else 1)


def _first(group: BaseExceptionGroup[BaseException]) -> ConvergedonError | None:
    """The first of our errors in a group that a task group raised."""
    for error in group.exceptions:
        found = _first(error) if isinstance(error, BaseExceptionGroup) else error
        if isinstance(found, ConvergedonError):
            return found
    return None


if __name__ == "__main__":
    main()
