"""RabbitMQ: one node of its own on loopback, in memory as far as it can, at rest when nobody talks."""

from __future__ import annotations

import os
import shutil

import amqp

from tests.lab.openstack.services import HOST, Place, Service, free_port

__all__ = ["Rabbit"]


class Rabbit(Service):
    """The broker; `url` is what oslo.messaging takes, `transport` is host:port."""

    def __init__(self, place: Place) -> None:
        port = free_port()
        self.transport = f"{HOST}:{port}"
        self.url = f"rabbit://guest:guest@{self.transport}//"
        self.folder = place.folder / "rabbit"
        owner = ["setpriv", "--reuid=rabbitmq", "--regid=rabbitmq", "--init-groups"] if os.geteuid() == 0 else []
        super().__init__(place, "rabbit", [*owner, "/usr/lib/rabbitmq/bin/rabbitmq-server"], self._accepts)
        self.environment = {
            "HOME": str(self.folder),
            "RABBITMQ_NODENAME": f"lab{port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": HOST,
            "RABBITMQ_NODE_PORT": str(port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "ERL_EPMD_PORT": str(free_port()),
            "ERL_EPMD_ADDRESS": HOST,
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": str(self.folder / "none"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            # The script then becomes the broker instead of waiting for it.
            "RUNNING_UNDER_SYSTEMD": "true",
            # Schedulers that spin while they wait would take the processors from everybody else.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none",
        }

    def begin(self) -> None:
        self.folder.mkdir(exist_ok=True)
        (self.folder / "plugins").write_text("[].\n")
        if os.geteuid() == 0:
            shutil.chown(self.folder, "rabbitmq", "rabbitmq")
        super().begin()

    def _accepts(self) -> bool:
        try:
            with amqp.Connection(self.transport, login_method="PLAIN", connect_timeout=5):
                return True
        except (OSError, amqp.AMQPError):
            return False
