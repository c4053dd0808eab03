"""What of a message is for every user: no path of a host, whoever wrote it."""

from __future__ import annotations

import re
from typing import Final

# What stands in the place of a path; the log has the path itself.
_HIDDEN: Final = "[path]"
# In quotes a path may hold blanks; before it may stand what says how it is reached, as in file:/srv/disk.
_QUOTED: Final = re.compile(r"""(["'`])(?:[\w+.-]+:(?://(?=/))?)?/(?!/|\1)(?:\\.|(?!\1).)*\1""", re.DOTALL)
# Neither a fraction, nor a part of an URL or of a name such as and/or.
_BARE: Final = re.compile(r"""(?:(?<=://)|(?<![\w/.~)\]%-]))/(?!/)[^\s"'`<>|;,()\[\]{}]*[^\s"'`<>|;,()\[\]{}.:!?]""")


def without_paths(text: str) -> str:
    """The text with every absolute path of a file taken out of it."""
    if "/" not in text:
        return text
    return _BARE.sub(_HIDDEN, _QUOTED.sub(rf"\1{_HIDDEN}\1", text))
