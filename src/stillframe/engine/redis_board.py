"""TaskFlow's job board on Redis, also behind Sentinel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from redis.backoff import NoBackoff
from redis.retry import Retry
from taskflow.jobs.backends.impl_redis import RedisJob, RedisJobBoard

from stillframe.engine import postings
from stillframe.engine.board import given
from stillframe.engine.internals import OpenRedisBoard
from stillframe.settings.job_board import JobBoardOptions

# The listings' entries that are short enough to be ours, at most so many; others never leave the server.
_SHORT: Final = """
local found, cursor = {}, '0'
repeat
  local page = redis.call('HSCAN', KEYS[1], cursor, 'COUNT', 1000)
  cursor = page[1]
  for i = 1, #page[2], 2 do
    if #page[2][i] == 36 and #page[2][i + 1] <= tonumber(ARGV[1]) then
      found[#found + 1] = page[2][i]
      found[#found + 1] = page[2][i + 1]
    end
  end
until cursor == '0' or #found >= 2 * tonumber(ARGV[2])
return found
"""
_LAST_OF_A_NUMBER: Final = 24
_LAST_OF_AN_OWNER: Final = 255


class RedisPosts(OpenRedisBoard, RedisJobBoard):  # type: ignore[misc]  # untyped library
    """See `stillframe.engine.job_board.Posts`."""

    @classmethod
    def prepare(cls, client: Any) -> None:
        client.set_retry(_once())

    def listed(self) -> Sequence[Any]:
        # The stock board deletes whatever it cannot read, then raises, and reads entries of any length.
        answer = self.server().eval(_SHORT, 1, self.listings_key, postings.MOST_BYTES, postings.MOST)
        jobs = []
        for key, blob in dict(zip(answer[::2], answer[1::2], strict=True)).items():
            found = postings.from_msgpack(blob)
            if found is not None and found["uuid"].encode() == key:
                jobs.append(RedisJob(self, found["name"], found["sequence"], key, uuid=found["uuid"]))
        return sorted(jobs, key=lambda job: job.sequence)

    def prolong(self, job: Any, who: str, expiry: int) -> bool:
        # The stock job prolongs anybody's claim.
        held = self.server().getrange(job.owner_key, 0, _LAST_OF_AN_OWNER) == self.written(who)
        return held and bool(self.server().pexpire(job.owner_key, 1000 * expiry))

    def posted(self) -> int:
        return int(self.server().getrange(self.sequence_key, 0, _LAST_OF_A_NUMBER) or 0)


def connect(options: JobBoardOptions) -> RedisPosts:
    """A connected board; raises what the libraries raise."""
    board = RedisPosts(options.namespace, configuration(options))
    board.connect()
    return board


def _once() -> Retry:
    """Whoever uses a board asks again, and works without it meanwhile: the library's retries would only hide that."""
    return Retry(NoBackoff(), 0)


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
                "retry": _once(),
                **timeouts,
                **(tls if options.tls else {}),
            }
        )
    return given(conf)
