"""Text of strangers, as it may be printed on a terminal or stand in a line of a log."""

from __future__ import annotations


def printable(text: str) -> str:
    r"""The text with everything that is no visible character, nor a space, written out as Python writes it (`\x1b`).

    That is ends of lines, escape sequences of terminals, marks that turn the direction of writing, invisible characters
    and broken surrogates: all of Unicode's categories of others and separators.
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
