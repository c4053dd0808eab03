"""Reaching the service: addresses that can be one, bounds on the time it takes, and plain words where it fails."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from keystoneauth1 import exceptions
from keystoneauth1.session import TCPKeepAliveAdapter

from stillframe.cli.exit_codes import CommandFailed, ExitCode
from stillframe.cli.options import ENDPOINT

if TYPE_CHECKING:
    from collections.abc import Iterator

# For a connection with its TLS handshake; the reply may take longer.
_CONNECT_SECONDS: Final = 10.0
_UNSENT: Final = ("Connection refused", "NameResolutionError", "Network is unreachable", "No route to host")
_LOOK: Final = "whether it has accepted the request is not known: look (stillframe snapshot list) before you try again"


class Adapter(TCPKeepAliveAdapter):
    """Sends requests, with less time for the connection than for the reply."""

    def send(self, *args: Any, **options: Any) -> Any:
        """See `requests`."""
        timeout = options.get("timeout")
        if isinstance(timeout, (int, float)):
            options["timeout"] = (min(timeout, _CONNECT_SECONDS), timeout)
        return super().send(*args, **options)


def address(option: str, text: str) -> str:
    """The address that an option gives; raises `CommandFailed` for what cannot be one."""
    try:
        where = urlsplit(text)
        usable = where.scheme in ("http", "https") and where.hostname and where.port != 0
    except ValueError:
        usable = False
    if not usable:
        example = f"http://{text}" if "://" not in text and text else ENDPOINT
        raise CommandFailed(
            ExitCode.USAGE, f"{option}: '{text}' is no address; it begins with http:// or https://, such as {example}"
        )
    if where.query or where.fragment:
        raise CommandFailed(ExitCode.USAGE, f"{option}: '{text}' is an address with a question; leave out what follows")
    return text.rstrip("/")


@contextmanager
def border(where: str, *, changing: bool = False) -> Iterator[None]:
    """Translate what keystoneauth raises; `changing`: a request that the service may have accepted all the same."""
    try:
        yield
    except exceptions.ConnectionError as error:
        said = str(error)
        unknown = changing and not any(text in said for text in _UNSENT)
        raise CommandFailed(
            ExitCode.UNAVAILABLE, _why(where, error, said) + (f"; {_LOOK}" if unknown else "")
        ) from None
    except (exceptions.Unauthorized, exceptions.Forbidden) as error:
        raise CommandFailed(ExitCode.NOT_ALLOWED, str(error)) from None
    except exceptions.ClientException as error:
        raise CommandFailed(ExitCode.UNAVAILABLE, str(error) or type(error).__name__) from None
    except KeyboardInterrupt:
        if not changing:
            raise
        raise CommandFailed(ExitCode.INTERRUPTED, f"interrupted; {_LOOK}") from None


def _why(where: str, error: exceptions.ConnectionError, said: str) -> str:
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return f"the certificate of {where} is not trusted; --os-cacert says which authorities are"
    secure = where.startswith("https:")
    hint = "; if it serves plain HTTP, its address begins with http://" if secure else ""
    if "Connection refused" in said:
        return f"{where} does not answer: nothing listens there; is the service running?"
    if "NameResolutionError" in said:
        return f"{where} does not answer: its host name cannot be resolved"
    if isinstance(error, exceptions.SSLError):
        return f"{where} does not speak TLS as it should{hint}"
    if isinstance(error, exceptions.ConnectTimeout):
        return f"{where} does not answer in time{hint}"
    return f"{where} broke the connection off, or cannot be reached{hint}"
