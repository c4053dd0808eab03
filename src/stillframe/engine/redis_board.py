"""TaskFlow's job board on Redis, also behind Sentinel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from taskflow.jobs.backends.impl_redis import RedisJobBoard

from stillframe.engine.board import JobBoardOptions, given


class RedisPosts(RedisJobBoard):  # type: ignore[misc]  # untyped library
    """See `stillframe.engine.job_board.Posts`."""

    def listed(self) -> Sequence[Any]:
        jobs: Sequence[Any] = self._fetch_jobs()
        return jobs

    def prolong(self, job: Any, who: str, expiry: int) -> bool:
        # The stock job prolongs anybody's claim.
        held = self._client.get(job.owner_key) == self._encode_owner(who)
        return held and bool(self._client.pexpire(job.owner_key, 1000 * expiry))

    def posted(self) -> int:
        return int(self._client.get(self.sequence_key) or 0)


def connect(options: JobBoardOptions) -> RedisPosts:
    """A connected board; raises what the libraries raise."""
    board = RedisPosts(options.namespace, configuration(options))
    board.connect()
    return board


def configuration(options: JobBoardOptions) -> dict[str, Any]:
    """The options in the board's own words (taskflow.jobs.backends.impl_redis)."""
    timeouts = {"socket_timeout": options.timeout, "socket_connect_timeout": options.timeout}
    tls = {
        "ssl": True,
        "ssl_ca_certs": options.ca_file,
        "ssl_certfile": options.cert_file,
        "ssl_keyfile": options.key_file,
    }
    conf: dict[str, Any] = {
        "host": options.host,
        "port": options.port or (26379 if options.sentinel else 6379),
        "namespace": options.namespace,
        "username": options.username,
        "password": options.password,
        "db": options.database,
        **timeouts,
        **(tls if options.tls else {}),
    }
    if options.sentinel:
        conf["sentinel"] = options.sentinel
        conf["sentinel_fallbacks"] = list(options.sentinel_fallbacks)
        conf["sentinel_kwargs"] = given(
            {
                "username": options.sentinel_username,
                "password": options.sentinel_password,
                **timeouts,
                **(tls if options.tls else {}),
            }
        )
    return given(conf)
