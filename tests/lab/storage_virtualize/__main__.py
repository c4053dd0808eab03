"""`python -m tests.lab.storage_virtualize`: serve a simulated array until it is interrupted."""

from __future__ import annotations

import argparse
import sys
import threading
from pathlib import Path

from tests.lab.storage_virtualize.array import Array
from tests.lab.storage_virtualize.objects import Behaviour
from tests.lab.storage_virtualize.server import PASSWORD, USER, SimulatedArray


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve a simulated IBM Storage Virtualize array on 127.0.0.1.")
    parser.add_argument("--port", type=int, default=7443)
    parser.add_argument("--folder", type=Path, default=Path("var/array"), help="where ca.pem and password are written")
    parser.add_argument("--vdisk", action="append", default=[], metavar="NAME=BYTES", help="a volume to begin with")
    parser.add_argument("--speed", type=float, default=1.0, help="factor on copy and clean rates")
    parser.add_argument("--code-level", default=Behaviour.code_level)
    chosen = parser.parse_args()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    array = Array("simulated", Behaviour(code_level=chosen.code_level, speed=chosen.speed))
    for vdisk in chosen.vdisk:
        name, _, size = vdisk.partition("=")
        array.add_vdisk(name, int(size))
    served = SimulatedArray(array, chosen.folder, chosen.port)
    password = chosen.folder / "password"
    password.touch(0o600)
    password.write_text(PASSWORD)
    served.start()
    sys.stdout.write(
        f"{served.endpoint} answers as user '{USER}' with the password in {password.absolute()};\n"
        f"its certificate is of the authority in {served.ca_file.absolute()}. Ctrl-C ends it.\n"
    )
    sys.stdout.flush()
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        served.stop()


if __name__ == "__main__":
    main()
