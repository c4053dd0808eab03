"""Nothing of a lab outlives its starter; this needs no OpenStack."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.openstack.services import MARK, until
from tests.lab.openstack.watchdog import processes_of

# A starter whose child has a session of its own, and a child in another one.
STARTER = """
import os, signal, subprocess, sys
from pathlib import Path
from tests.lab.openstack.watchdog import guarded
mark, folder = sys.argv[1:]
name, value = mark.split("=")
# Who started the tests in the background had them ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
with guarded(mark, Path(folder)):
    again = "import subprocess, time; subprocess.Popen(['sleep', '600'], start_new_session=True); time.sleep(600)"
    subprocess.Popen([sys.executable, "-c", again], env={name: value}, start_new_session=True)
    print("started", flush=True)
    try:
        signal.pause()
    except KeyboardInterrupt:
        pass
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_of_a_lab_whose_starter_ends(tmp_path: Path, end: signal.Signals) -> None:
    folder = tmp_path / "lab"
    (folder / "logs").mkdir(parents=True)
    mark = f"{MARK}={folder}"
    with subprocess.Popen([sys.executable, "-c", STARTER, mark, str(folder)], stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        assert starter.stdout.readline() == b"started\n"
        until(lambda: len(list(processes_of(mark.encode()))) == 2, 60)
        starter.send_signal(end)
    until(lambda: not folder.exists(), 60)
    assert not list(processes_of(mark.encode()))
