"""The watch over the event loop names the line that holds it up, once, and says for how long."""

import asyncio
import time

from engine.clock import SystemClock
from engine.metrics import Metrics
from engine.watch import Watch


def hold_up(seconds):
    time.sleep(seconds)


async def test_a_stall_is_logged_once_with_its_stack_and_its_length(caplog):
    metrics = Metrics()
    with Watch(200, SystemClock(), metrics):
        await asyncio.sleep(0.2)
        hold_up(1.2)
        await asyncio.sleep(0.3)
    stacks = [r.getMessage() for r in caplog.records if "stands still" in r.getMessage()]
    lengths = [r.getMessage() for r in caplog.records if "stood still" in r.getMessage()]
    assert sum("in hold_up\n    time.sleep(seconds)" in stack for stack in stacks) == 1
    assert len(lengths) == metrics.totals["stalls"]  # a busy machine may add some of its own
    longest = max(float(text.split()[-2]) for text in lengths)
    assert longest >= 900
    assert b'headrace_loop_lag_seconds_bucket{le="0.5"}' in metrics.text()


async def test_a_calm_loop_is_left_alone(caplog):
    metrics = Metrics()
    for stall_ms in (30_000, 0):
        with Watch(stall_ms, SystemClock(), metrics):
            await asyncio.sleep(0.05)
    assert caplog.records == []
    assert "stalls" not in metrics.totals
