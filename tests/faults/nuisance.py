"""The main job with one more agent, which does harm when a test orders it.

An order is a file ``order`` in the worker's state directory: ``stall 3`` blocks the event loop for
three seconds, as a bad library would; ``doze 3`` awaits for so long; ``raise`` raises.
"""

import asyncio
import os
import sys
import time
from pathlib import Path

import msgspec

from agents import app
from agents.contracts import RAW_EVENTS
from engine import Stream, read_options


class Options(msgspec.Struct):
    """Where the worker's orders are."""

    state_dir: str


ORDER = Path(read_options(Options).state_dir) / "order"


@app.agent(RAW_EVENTS)
async def obey(events: Stream) -> None:
    """Look for an order before each event."""
    async for _ in events:
        if ORDER.exists():
            await _carry_out(take())


def take() -> list[str]:
    """Read the order and remove it: it is carried out once."""
    words = ORDER.read_text().split()
    ORDER.unlink()
    return words


async def _carry_out(words: list[str]) -> None:
    print("obeying:", *words, file=sys.stderr, flush=True)
    match words:
        case ["stall", seconds]:
            time.sleep(float(seconds))  # noqa: ASYNC251  that is the fault
        case ["doze", seconds]:
            await asyncio.sleep(float(seconds))
        case ["raise"]:
            raise RuntimeError("as ordered")
        case _:
            os._exit(99)
