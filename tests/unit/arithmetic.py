"""What tests let other processes work out: functions that those can import."""

import os
import signal
import time
from pathlib import Path


def double(order):
    return order.amount * 2


def pid(_):
    time.sleep(0.002)
    return os.getpid()


class Odd(Exception):
    """One that cannot be sent: its arguments are not its constructor's."""

    def __init__(self, amount, why):
        super().__init__(f"{amount}: {why}")


def refuse_13(order):
    if order.amount == 13:
        raise ValueError("13")
    if order.amount == 14:
        raise Odd(14, "odd")
    if order.amount == 15:
        return Path(os.devnull).open()  # it cannot be sent back
    if order.amount == 16:
        raise SystemExit(3)
    return order.amount


def die_on_13(order):
    if order.amount == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    return order.amount


def die_once(path, order):
    """Die on 13, unless this has happened before."""
    if order.amount == 13 and not Path(path).exists():
        Path(path).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return order.amount


def nap(order):
    time.sleep(order.amount / 1000)
    return order.amount


async def co(order):
    return order


class Scorer:
    def score(self, order):
        return order.amount
