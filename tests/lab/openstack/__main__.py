"""Bring a lab up in the foreground and say how to reach it, until Ctrl-C: `python -m tests.lab.openstack [--ceph]`."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time

from tests.lab.openstack.keystone import USERS
from tests.lab.openstack.lab import Lab, Options, openstack_lab


def main() -> None:
    parser = argparse.ArgumentParser(prog="make openstack-lab", description=__doc__)
    parser.add_argument("--ceph", action="store_true", help="a second back end: Cinder's RBD driver on a tiny Ceph")
    parser.add_argument("--backup-before-revert", action="store_true", help="Cinder cuts a snapshot before each revert")
    parser.add_argument("--keep", action="store_true", help="leave the folder with all logs in place at the end")
    chosen = parser.parse_args()
    begun = time.monotonic()
    # An end in order for `kill` as for Ctrl-C; a `kill -9` is the watchdog's affair.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with openstack_lab(Options(**vars(chosen))) as lab:
            say(lab, time.monotonic() - begun)
            while True:
                signal.pause()
    except KeyboardInterrupt:
        sys.stderr.write("the lab has ended\n")


def say(lab: Lab, seconds: float) -> None:
    """Write clouds.yaml and a file of OS_* variables for each user, and say where they are."""
    (lab.folder / "clouds.yaml").write_text(json.dumps(lab.clouds(), indent=2))  # JSON is YAML
    names = {"user_domain_id": "OS_USER_DOMAIN_ID", "project_domain_id": "OS_PROJECT_DOMAIN_ID"}
    for user in USERS:
        lines = [
            f"export {names.get(key, f'OS_{key.upper()}')}='{value}'"
            for key, value in lab.keystone.credentials(user).items()
        ]
        (lab.folder / f"{user}.openrc").write_text("\n".join([*lines, "export OS_IDENTITY_API_VERSION=3", ""]))
    sys.stdout.write(
        f"OpenStack is up after {seconds:.0f} s; everything is in {lab.folder} (logs in {lab.folder}/logs).\n\n"
        f"  export OS_CLIENT_CONFIG_FILE={lab.folder}/clouds.yaml OS_CLOUD=alpha-member\n"
        f"  . {lab.folder}/alpha-member.openrc\n\n"
        f"users:   {', '.join(USERS)}\n"
        f"types:   {', '.join(lab.volume_types)}; group type consistent; flavor small; image pattern\n"
        f"bytes:   {lab.volume_folder}/volume-<id>\n\nCtrl-C ends it and removes the folder.\n"
    )
    sys.stdout.flush()


if __name__ == "__main__":
    main()
