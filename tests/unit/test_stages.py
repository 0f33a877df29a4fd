"""The stages add up to what the thread has used, whoever is cancelled or raises in between."""

import asyncio
import gc
import time

import pytest

from engine.metrics import Metrics
from engine.stages import Stages, charged, stages


def burn(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def test_each_stage_has_what_was_used_in_it_and_all_have_everything():
    mine = Stages()
    began = time.thread_time()
    mine.begin()
    before = mine.switch("decode")
    burn(0.02)
    assert mine.switch(before) == "decode"
    burn(0.01)
    spent = mine.seconds()
    used = time.thread_time() - began
    assert spent["decode"] >= 0.02
    assert spent["loop"] >= 0.01
    assert sum(spent.values()) == pytest.approx(used, abs=0.002)


async def test_a_coroutine_is_charged_for_its_own_steps_only():
    async def work():
        burn(0.01)
        await asyncio.sleep(0.01)
        burn(0.01)
        return 7

    async def others():
        burn(0.03)

    stages.begin()
    task = asyncio.create_task(others())
    assert await charged("commit", work) == 7
    await task
    spent = stages.seconds()
    assert 0.02 <= spent["commit"] < 0.03
    assert spent["loop"] >= 0.03


def test_they_are_counted_since_the_last_look():
    metrics = Metrics()
    metrics.staged({"poll": 1.5})
    metrics.staged({"poll": 2.0, "agent": 3.0})
    text = metrics.text().decode()
    assert 'headrace_stage_seconds_total{stage="poll"} 2.0' in text
    assert 'headrace_stage_seconds_total{stage="agent"} 3.0' in text


async def test_what_it_raises_and_its_cancellation_go_through():
    async def fails():
        await asyncio.sleep(0)
        raise KeyError("x")

    with pytest.raises(KeyError):
        await charged("agent", fails)

    caught = []

    async def waits():
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            caught.append(True)
            raise

    task = asyncio.create_task(charged("agent", waits))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert caught == [True]
    early = asyncio.create_task(charged("agent", waits))
    early.cancel()  # before it has run at all: no coroutine is left that nobody awaits
    with pytest.raises(asyncio.CancelledError):
        await early
    gc.collect()
    assert caught == [True]
    assert stages.switch("loop") == "loop"
