"""The runner: whole commands timed beside their peers.

Standard library only, and small in memory: a child's peak memory, as the kernel tells it, is never less than its
parent's was when it began."""
