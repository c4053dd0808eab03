"""Sessions of keystoneauth's, to identity and other services of a cloud."""

from __future__ import annotations

from typing import Final

from keystoneauth1.session import Session, TCPKeepAliveAdapter

from stillframe.foreign import replies
from stillframe.foreign.session import Bounded, mount

# A service may lead from one of its own paths to another.
_REDIRECTS: Final = 3


class CloudAdapter(Bounded, TCPKeepAliveAdapter):
    """As keystoneauth's own; what reads documents above it would break at those that are no documents."""

    def accept(self, content: bytes) -> None:
        """See `Bounded`."""
        if content.lstrip()[:1] in (b"{", b"["):
            replies.document(content)


def harden(session: Session) -> None:
    """Give a session of keystoneauth's a bound on the bytes, the depth and the whole time of each reply."""
    tls = {key: getattr(session, key, None) for key in ("tls_ciphers", "tls_min_version")}
    mount(session.session, CloudAdapter(**{key: value for key, value in tls.items() if value is not None}))
    session.redirect = _REDIRECTS
