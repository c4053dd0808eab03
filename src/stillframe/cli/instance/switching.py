"""Waiting until an instance has been started or stopped."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING, Final

from stillframe.cli.exit_codes import CommandFailed, ExitCode
from stillframe.cli.instance.views import TASK
from stillframe.domain.printable import printable

if TYPE_CHECKING:
    from stillframe.cli.client import Client

_PAUSE: Final = 0.2
_NOTED_AFTER: Final = 1.0
_MEANWHILE: Final = {"powering-off": ": its guest is asked to shut down; if it does not, it is turned off"}


def add_wait_option(parser: argparse.ArgumentParser) -> None:
    """`--wait` and `--no-wait`: what follows in a script needs the instance as it was asked for."""
    parser.add_argument(
        "--wait",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="Wait until it has happened (default). Without waiting, `instance show` shows the state.",
    )


def wait_for(client: Client, instance_id: str, status: str) -> None:
    """Wait until nothing is being done with the instance; raises `CommandFailed` if its status is another one then."""
    started, said = time.monotonic(), False
    try:
        while (server := client.instance(instance_id)).get(TASK) is not None:
            if not said and time.monotonic() - started > _NOTED_AFTER:
                said = True
                now = f"{printable(server['name'])} is {server[TASK]}{_MEANWHILE.get(server[TASK], '')}"
                print(now, file=sys.stderr, flush=True)  # noqa: T201  # this is what it is for
            time.sleep(_PAUSE)
    except KeyboardInterrupt:
        raise CommandFailed(
            ExitCode.INTERRUPTED, f"no longer waiting; it goes on, see: stillframe instance show {instance_id}"
        ) from None
    if server["status"] != status:
        raise CommandFailed(
            ExitCode.FAILED, f"instance {instance_id} is {server['status']}; the log of the service says why"
        )
