"""The toy store of these tests (see toys.py)."""

from toys import toy

__all__ = ["toy"]
