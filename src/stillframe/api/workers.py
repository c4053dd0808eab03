"""Workers, in the form in which Cinder shows its services."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from stillframe.api import platform_schemas as schemas

if TYPE_CHECKING:
    from datetime import datetime

    from stillframe.api.exchange import Exchange
    from stillframe.store.presence import SeenWorker

_BINARY: Final = "stillframe-worker"
_TIME: Final = "%Y-%m-%dT%H:%M:%S.%f"


def list_all(exchange: Exchange) -> schemas.ServicesReply:
    query: schemas.ServicesQuery = exchange.query
    found = [_view(exchange, one) for one in exchange.services.workers.list(exchange.caller)]
    return schemas.ServicesReply(
        services=[
            one
            for one in found
            if query.host in (None, one.host)
            if query.binary in (None, one.binary)
            if not query.service or query.service == one.binary
        ]
    )


def _view(exchange: Exchange, worker: SeenWorker) -> schemas.ServiceView:
    return schemas.ServiceView(
        id=worker.name,
        binary=_BINARY,
        # The name begins with its machine's; what follows tells the workers of one machine apart.
        host=worker.name.partition(":")[0],
        zone="",
        status="enabled",
        state="up" if exchange.services.workers.is_up(worker) else "down",
        updated_at=_time(worker.seen_at),
        disabled_reason=None,
        started_at=_time(worker.started_at),
    )


def _time(at: datetime) -> str:
    return at.strftime(_TIME)
