"""What a type checker makes of an agent: the event's type goes through views and joins."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

AGENT = """
from typing import Any
from msgspec import Struct
from engine import App, Stream

class Order(Struct):
    user: str
    amount: int

class Profile(Struct):
    tier: str

app = App("types")
profiles = app.Table("profiles", key_type=str, value_type=Profile)
anything = app.Table("anything")
names = app.topic("names", key_type=str, value_type=Profile, compacting=True)
tiers = app.GlobalTable("tiers", source=names, key_type=str, value_type=Profile)

async def score_of(user: str) -> float:
    return 0.5

@app.agent(app.topic("orders", value_type=Order))
async def work(orders: Stream[Order]) -> None:
    reveal_type(orders.filter(lambda order: order.amount > 3))
    reveal_type(orders.map(lambda order: order.amount))
    reveal_type(orders.join(profiles))
    reveal_type(orders.join(profiles, how="left").map(lambda pair: pair[1]))
    reveal_type(orders.take(10))
    reveal_type(profiles.get("ann"))
    reveal_type(profiles["ann"])
    reveal_type(anything["ann"])
    reveal_type(orders.join(tiers, on=Order.user))
    reveal_type(orders.lookup(score_of, on=Order.user))
    async for number, order in orders.enumerate():
        reveal_type(order)
        order.amuont
"""

SEEN = [
    "Stream[Order]", "Stream[int]", "Stream[tuple[Order, Profile]]", "Stream[Profile | None]",
    "Stream[list[Order]]", "Profile | None", "Profile", "Any",
    "Stream[tuple[Order, Profile]]", "Stream[tuple[Order, float]]", "Order",
]  # fmt: skip


def test_types_go_through_views_and_joins(tmp_path):
    (tmp_path / "agent.py").write_text(AGENT)
    done = subprocess.run(  # not in this process: mypy raises its recursion limit
        [
            sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"),
            "--cache-dir", str(tmp_path / "cache"), "--follow-imports", "silent",
            str(tmp_path / "agent.py"),
        ],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    out = done.stdout
    assert not done.stderr
    revealed = re.findall(r'Revealed type is "(.*)"', out)
    short = [re.sub(r"(?:[a-z_]+\.)+", "", each) for each in revealed]
    short = [re.sub(r"Union\[(\w+), None\]", r"\1 | None", each) for each in short]
    assert short == SEEN, out
    assert '"Order" has no attribute "amuont"' in out
