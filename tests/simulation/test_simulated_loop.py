"""The loop itself: time jumps, order is the seed's, nobody hangs, and the dead stay dead."""

import asyncio

import pytest

from tests.simulation.simulated_loop import Deadlock, Process, SimulatedLoop


def run(seed, work):
    loop = SimulatedLoop(seed)
    try:
        return loop.run_until_complete(work(loop))
    finally:
        loop.bury([])
        loop.close()


def test_hours_take_no_time():
    async def work(loop):
        await asyncio.sleep(3 * 3600)
        return loop.time()

    assert 3 * 3600 <= run(0, work) < 3 * 3600 + 0.01


def order(seed):
    seen = []

    async def one(name):
        for _ in range(3):
            seen.append(name)
            await asyncio.sleep(0)

    async def work(_):
        await asyncio.gather(*(one(name) for name in "abcd"))

    run(seed, work)
    return "".join(seen)


def test_the_seed_decides_who_goes_first():
    assert order(1) == order(1)
    assert len({order(seed) for seed in range(10)}) > 5


def test_who_waits_for_ever_is_told():
    async def work(loop):
        await loop.create_future()

    with pytest.raises(Deadlock, match="work"):
        run(0, work)


def test_a_killed_process_does_nothing_more():
    seen = []

    async def victim():
        try:
            while True:
                seen.append(asyncio.get_running_loop().time())
                await asyncio.sleep(1)
        finally:
            seen.append("cleaned up")

    loop = SimulatedLoop(0)
    process = Process("victim")

    async def director():
        loop.spawn(process, victim(), "victim")
        await asyncio.sleep(2.5)
        process.kill()
        await asyncio.sleep(5)
        return list(seen)

    try:
        assert [round(each) for each in loop.run_until_complete(director())] == [0, 1, 2]
    finally:
        loop.bury([process])
        loop.close()
    assert seen[-1] == "cleaned up"


def test_a_frozen_process_goes_on_later():
    seen = []
    loop = SimulatedLoop(0)
    process = Process("sleeper")

    async def sleeper():
        for _ in range(4):
            seen.append(round(loop.time()))
            await asyncio.sleep(1)

    async def director():
        task = loop.spawn(process, sleeper(), "sleeper")
        await asyncio.sleep(1.5)
        loop.freeze(process, 10)
        await task

    loop.run_until_complete(director())
    loop.close()
    assert seen == [0, 1, 12, 13]
