"""What the deflate kernel tells when it cannot do what it is asked."""

from __future__ import annotations


class BadStream(ValueError):
    """No deflate stream, or one that ends before its end."""


class BadTrace(ValueError):
    """Exceptions that contradict the content, or themselves."""


class TooMuch(ValueError):
    """More than there is room for: exceptions that are made, bits that are written, tokens of one block."""


class Lost(ValueError):
    """The engine cannot follow this stream, or begin there."""


class ViewTooSmall(ValueError):
    """Content that the engine needs to see is not in the buffer."""
