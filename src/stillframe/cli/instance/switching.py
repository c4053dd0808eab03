"""Waiting until an instance has been started or stopped."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Final

from stillframe.cli.exit_codes import CommandFailed, ExitCode
from stillframe.cli.instance.views import TASK

if TYPE_CHECKING:
    from stillframe.cli.client import Client

_PAUSE: Final = 0.2


def add_wait_option(parser: argparse.ArgumentParser) -> None:
    """`--wait` and `--no-wait`: what follows in a script needs the instance as it was asked for."""
    parser.add_argument(
        "--wait",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="Wait until it has happened (default: yes). Without waiting, `instance show` tells.",
    )


def wait_for(client: Client, instance_id: str, status: str) -> None:
    """Wait until nothing is being done with the instance; raises `CommandFailed` if its status is another one then."""
    while (server := client.instance(instance_id)).get(TASK) is not None:
        time.sleep(_PAUSE)
    if server["status"] != status:
        raise CommandFailed(
            ExitCode.FAILED, f"instance {instance_id} is {server['status']}; the log of the service says why"
        )
