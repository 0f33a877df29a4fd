"""A job in two versions, for rolling upgrades: ``HEADRACE_JOB`` is 1 or 2.

The second has one more optional field in its input and in its table, and a stricter contract. What
it emits for an order is the running total of its user, so that every order's effect shows in all
that come after it.
"""

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from engine import App, Contract, Stream, read_options

LARGEST = 1_000


class Options(Struct):
    """Which version, and the names' beginning."""

    job: int = 1
    prefix: str = ""


class OrderOne(Struct, frozen=True):
    """An order, as the first version knows it."""

    id: int
    user: str
    amount: int


class OrderTwo(OrderOne, frozen=True):
    """An order with a coupon, and of a limited amount."""

    amount: Annotated[int, Meta(le=LARGEST)]
    coupon: str = ""


class TotalOne(Struct):
    """What a user has ordered so far."""

    orders: int = 0
    amount: int = 0


class TotalTwo(TotalOne):
    """With the coupons used."""

    coupons: int = 0


class Receipt(Struct, frozen=True):
    """What comes out for an order."""

    id: int
    user: str
    orders: int
    amount: int
    job: int


options = read_options(Options)
Order, Total = (OrderOne, TotalOne) if options.job == 1 else (OrderTwo, TotalTwo)
app = App(f"{options.prefix}orders")
ORDERS = app.topic(
    f"{options.prefix}orders-in",
    contract=Contract.of("orders", Order, key_type=str, key_required=True),
)
RECEIPTS = app.topic(
    f"{options.prefix}receipts",
    contract=Contract.of("receipts", Receipt, key_type=str, key_field="user"),
)
totals = app.Table("totals", default=Total, key_type=str, value_type=Total)


@app.agent(ORDERS, sink=[RECEIPTS])
async def add_up(orders: Stream) -> None:
    """Add each order to its user's total."""
    async for order in orders:
        total = msgspec.structs.replace(totals[order.user])
        total.orders += 1
        total.amount += order.amount
        if options.job == 2:
            total.coupons += bool(order.coupon)
        totals[order.user] = total
        yield Receipt(order.id, order.user, total.orders, total.amount, options.job)
