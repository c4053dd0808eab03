"""A process of the service whose drivers do nothing: what is left is what the service itself costs.

Called as `python -m benchmarks.worker_process api|worker URL`; it says one line once it is ready.
"""

from __future__ import annotations

import signal
import sys
import threading
import uuid
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from stillframe import main
from stillframe.api.http_server import HttpServer
from stillframe.domain.instance import Attachment, Instance, MemorySource, PowerState, Volume
from stillframe.drivers.memory import MemoryDriver
from stillframe.drivers.platform import Drivers
from stillframe.settings import load

PROJECT: Final = "bench"
INSTANCES: Final = tuple(str(uuid.uuid5(uuid.NAMESPACE_OID, f"instance {number}")) for number in range(400))


def build(url: str, state_dir: Path, **engine: Any) -> main.Service:
    """The service on a database, with the same instances in every process."""
    settings = load(
        overrides=[
            (None, "state_dir", str(state_dir)),
            (None, "auth_strategy", "noauth"),
            ("database", "connection", url),
            ("engine", "janitor_interval", 0),
        ]
    )
    settings = replace(settings, engine=replace(settings.engine, **engine))
    driver = _driver()
    return main.build(settings, drivers=Drivers(driver.compute, driver.storage))


def _driver() -> MemoryDriver:
    driver = MemoryDriver()
    for instance_id in INSTANCES:
        volume_id = str(uuid.uuid5(uuid.NAMESPACE_OID, f"volume of {instance_id}"))
        volume = Volume(volume_id, PROJECT, "volume", 1024, "in-use", instance_id=instance_id, device="/dev/vda")
        driver.volumes[volume_id], driver.contents[volume_id] = volume, bytearray(1024)
        attachments = (Attachment(volume_id, "/dev/vda", MemorySource(), bootable=True),)
        driver.instances[instance_id] = Instance(instance_id, PROJECT, "vm", PowerState.SHUTOFF, attachments)
    return driver


def _run(role: str, url: str) -> None:
    ending = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ending.set())
    with TemporaryDirectory() as folder:
        service = build(url, Path(folder))
        if role == "api":
            http = HttpServer(service.wsgi, "127.0.0.1", 0, 16, 65536)
            print(http.address, flush=True)
            http.run(ending)
        else:
            service.start()
            print("ready", flush=True)
            ending.wait()
        service.stop()


if __name__ == "__main__":
    _run(*sys.argv[1:])
