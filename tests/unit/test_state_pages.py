"""The code of docs/aggregations.md and docs/timers.md runs, and does what the pages say."""

import re
from pathlib import Path

import pytest

from engine.testing import Driver

DOCS = Path(__file__).parents[2] / "docs"
MINUTE = 60_000


def page(name):
    """Run all Python of a page, one block after the other, as one module."""
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / name).read_text(), re.DOTALL)
    module = {"__name__": f"page_{name[:-3]}"}
    exec(compile("\n".join(blocks), name, "exec"), module)
    return module


def test_the_aggregations_of_the_page():
    module = page("aggregations.md")
    Visit, Totals = module["Visit"], module["Totals"]  # noqa: N806
    with Driver(module["app"]) as driver:
        for at, kind, where, spent, seconds in [
            (5_000, "page_view", "/a", 0, 3.0),
            (1_000, "page_view", "/b", 0, 5.0),
            (9_000, "purchase", "/a", 12.5, 0),
            (61_000, "page_view", "/c", 0, 1.0),
        ]:
            driver.pipe("visits", key="u", value=Visit("u", at, kind, where, spent, seconds))
        (minute,) = (each.value for each in driver.read("minutes"))
        assert (minute.user, minute.start, minute.end) == ("u", 0, MINUTE)
        assert (minute.views, minute.spent, minute.pages) == (2, 12.5, 2)
        assert minute.p99 == pytest.approx(3.0, rel=0.01)
        ((_, totals),) = driver.table("totals")
        assert isinstance(totals, Totals)
        assert (totals.events, totals.last_page, totals.pages) == (4, "/c", 3)
        assert totals.top[0] == ("/a", 2)


def test_the_expiring_keys_timers_and_punctuators_of_the_page():
    """As its picture shows them."""
    module = page("timers.md")
    Order = module["Order"]  # noqa: N806
    with Driver(module["app"]) as driver:
        reminders, found = [], []
        for number, user, at, paid in [
            ("1", "a", 5, False),
            ("1p", "a", 25, True),
            ("2", "b", 40, False),
            ("3", "c", 85, False),
        ]:
            driver.pipe("orders", key=user, value=Order(number, user, at * MINUTE, paid))
            found.append([key for key, _ in driver.table("seen")])
            reminders += [(at, each.value.user, each.value.at) for each in driver.read("reminders")]
        assert reminders == [(85, "b", 70 * MINUTE)]
        assert found[2:] == [["1", "1p", "2"], ["2", "3"]]
        assert len(driver.read("fresh")) == 4
        reports = [each.value for each in driver.read("reports")]
        assert [each["orders"] for each in reports] == [1, 2, 3, 4]
        driver.advance(20)
        assert [each.key for each in driver.read("reports")] == [b"beat", b"beat"]
