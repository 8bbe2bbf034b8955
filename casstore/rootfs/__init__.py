"""Layers applied: a merged tree of entries, and what becomes of it, a tar or a folder."""
