"""A link that is as slow as told, and breaks: a TCP proxy in a process of its own.

    python tests/link.py HOST:PORT [--rate BYTES] [--resets 0.01] [--unit BYTES] [--seed N]

Prints the port that it listens on. `--rate`: bytes a second, each way, of all connections together; `--resets`: that
share of every `--unit` bytes that go over, either way, takes its connection along: both ends get a reset, what was on
its way is lost. Which bytes these are, `--seed` tells. On SIGTERM it prints what it did, as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass

PIECE = 64 << 10


@dataclass
class Counts:
    connections: int = 0
    resets: int = 0
    up: int = 0
    down: int = 0


class Pace:
    """So many bytes a second go by."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._free = 0.0

    async def go(self, count: int) -> None:
        now = asyncio.get_running_loop().time()
        self._free = max(self._free, now) + count / self._rate
        if self._free - now > 0.002:
            await asyncio.sleep(self._free - now)


class Link:
    def __init__(self, host: str, port: int, rate: float, resets: float, unit: int, seed: int) -> None:
        self._there = host, port
        self._paces = {"up": Pace(rate), "down": Pace(rate)}
        self._random = random.Random(seed)
        self._often = resets / unit
        self._left = self._gap()
        self.counts = Counts()

    def _gap(self) -> float:
        """Bytes until the next reset."""
        return self._random.expovariate(self._often) if self._often else float("inf")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.counts.connections += 1
        try:
            there_reader, there_writer = await asyncio.open_connection(*self._there, limit=2 * PIECE)
        except OSError:
            writer.transport.abort()
            return
        both = [writer, there_writer]
        await asyncio.gather(
            self._pump(reader, there_writer, "up", both), self._pump(there_reader, writer, "down", both)
        )
        for each in both:
            each.close()

    async def _pump(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, way: str, both: list[asyncio.StreamWriter]
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(PIECE):
                await self._paces[way].go(len(data))
                setattr(self.counts, way, getattr(self.counts, way) + len(data))
                self._left -= len(data)
                if self._left < 0:
                    self.counts.resets += 1
                    target.write(data[: int(self._left)])
                    self._left = self._gap()
                    for each in both:
                        ended = each.get_extra_info("socket")
                        ended.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        each.transport.abort()
                    return
                target.write(data)
                await target.drain()
            if target.can_write_eof():
                target.write_eof()


async def run(asked: argparse.Namespace) -> None:
    host, _, port = asked.there.rpartition(":")
    link = Link(host, int(port), asked.rate, asked.resets, asked.unit, asked.seed)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    server = await asyncio.start_server(link.serve, "127.0.0.1", 0, limit=2 * PIECE)
    print(server.sockets[0].getsockname()[1], flush=True)
    await ended.wait()
    print(json.dumps(asdict(link.counts)), flush=True)
    os._exit(0)  # whatever is still open


@contextlib.contextmanager
def linked(there: str, *options: str) -> Iterator[tuple[str, Counts]]:
    """A link to `HOST:PORT`: where it begins, and, when it is left, what it did."""
    command = [sys.executable, __file__, there, *options]
    counts = Counts()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        try:
            yield f"localhost:{port}", counts
        finally:
            process.send_signal(signal.SIGTERM)
            said = process.stdout.read()
    for name, value in json.loads(said).items():
        setattr(counts, name, value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("there", metavar="HOST:PORT")
    parser.add_argument("--rate", type=float, default=100e6)
    parser.add_argument("--resets", type=float, default=0.01)
    parser.add_argument("--unit", type=int, default=1 << 20)
    parser.add_argument("--seed", type=int, default=1)
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
