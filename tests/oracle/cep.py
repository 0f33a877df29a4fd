"""Patterns, as Flink CEP matched them.

The recorded scripts say when the watermark moves. So the watermark has a topic of its own here, and
the partition takes its time from there and from nowhere else.
"""

from __future__ import annotations

from engine import Late, Match, Pattern, Timeout
from engine.matcher import Matcher
from engine.pattern import (
    no_skip,
    skip_past_last_event,
    skip_to_first,
    skip_to_last,
    skip_to_next,
)
from tables.pattern import PatternPartition
from tests.oracle.declared import new_app, topic

TOPOLOGIES = (
    "cep_strict", "cep_relaxed", "cep_any", "cep_not", "cep_quant", "cep_mixed", "cep_skip",
    "cep_within",
)  # fmt: skip


def OUTPUTS(topology, config):  # noqa: N802
    """Name the outputs that are filled."""
    return ["matches", "timeouts", "late"]


def feed(driver, record):
    """Give the app an event, or move its watermark."""
    if "watermark" in record:
        driver.pipe("watermark", key="all", value=record["watermark"], timestamp=0)
    else:
        driver.pipe("in", key=record["key"], value=record["value"], timestamp=record["ts"])


def app_for(topology, config, **table_options):
    """Declare the app that stands for a case."""
    app = new_app(topology, config)
    events, watermark = topic(app, "in", partitions=1), topic(app, "watermark", partitions=1)
    found = Watermarked(events, watermark, pattern_for(config["params"]), table_options)
    app.declare(found)
    outputs = {name: topic(app, name, partitions=1) for name in OUTPUTS(topology, config)}

    @app.agent(found)
    async def tell(results):
        async for key, result in results.items():
            match result:
                case Match():
                    await outputs["matches"].send(key=key, value=ids(result))
                case Timeout():
                    await outputs["timeouts"].send(key=key, value=ids(result))
                case Late():
                    await outputs["late"].send(key=key, value={"id": result.event["id"]})

    return app


def ids(found):
    """Return the ids of the events by step."""
    return {step: [event["id"] for event in events] for step, events in found.events.items()}


class Watermarked(Matcher):
    """A pattern whose watermark comes from the second topic.

    Flink looks at a limit between neighbours only when an event of the key is worked on; so does
    this, where the engine would keep it by time.
    """

    def __init__(self, events, watermark, pattern, options):
        super().__init__("found", events, pattern, timeouts=True, late=True, **options)
        self.inputs = (events, watermark)
        self.sides = {"in": 0, "watermark": 1}
        self.plan = self.plan._replace(prompt=False)

    def open(self, store, emit):
        partition = super().open(store, emit)
        partition.__class__ = Driven
        return partition


class Driven(PatternPartition):
    """Takes the time from side 1."""

    __slots__ = ()

    def step(self, side, key, ts, value):
        return self.advance(value) if side else self.hold(key, ts, value)


# -- patterns --------------------------------------------------------------------------------------

STEP = {
    "next": Pattern.next,
    "followedBy": Pattern.followed_by,
    "followedByAny": Pattern.followed_by_any,
    "notNext": Pattern.not_next,
    "notFollowedBy": Pattern.not_followed_by,
}
BETWEEN = {"FIRST_AND_LAST": "first_and_last", "PREVIOUS_AND_CURRENT": "previous_and_current"}


def pattern_for(params):
    """Build the pattern that a case describes."""
    pattern = None
    for step in params["pattern"]:
        if pattern is None:
            pattern = Pattern.begin(step["name"], skip=skip_for(params["skip"]))
        else:
            pattern = STEP[step["op"]](pattern, step["name"])
        pattern = quantified(pattern.where(condition(step["where"])), step.get("quant") or {})
    if params.get("within_ms") is not None:
        between = BETWEEN[params.get("within_type") or "FIRST_AND_LAST"]
        pattern = pattern.within(params["within_ms"] / 1000, between=between)
    return pattern


def skip_for(skip):
    """Return the skip strategy of a case."""
    plain = {"noSkip": no_skip, "skipToNext": skip_to_next,
             "skipPastLastEvent": skip_past_last_event}  # fmt: skip
    if skip["strategy"] in plain:
        return plain[skip["strategy"]]()
    named = {"skipToFirst": skip_to_first, "skipToLast": skip_to_last}
    return named[skip["strategy"]](skip["name"])


def quantified(pattern, quant):
    """Say how often the last step takes an event."""
    if quant.get("oneOrMore"):
        pattern = pattern.one_or_more()
    if "times" in quant:
        pattern = pattern.times(quant["times"])
    if "timesRange" in quant:
        pattern = pattern.times(*quant["timesRange"])
    if "timesOrMore" in quant:
        pattern = pattern.times_or_more(quant["timesOrMore"])
    if quant.get("consecutive"):
        pattern = pattern.consecutive()
    if quant.get("combinations"):
        pattern = pattern.allow_combinations()
    if quant.get("greedy"):
        pattern = pattern.greedy()
    if quant.get("optional"):
        pattern = pattern.optional()
    if "until" in quant:
        pattern = pattern.until(condition(quant["until"]))
    return pattern


def condition(where):
    """Return the condition that a case describes."""

    def plain(event):
        return (
            event["type"] == where.get("type", event["type"])
            and event["type"] in where.get("types", [event["type"]])
            and event["x"] > where.get("x_gt", event["x"] - 1)
            and event["x"] < where.get("x_lt", event["x"] + 1)
        )

    def after(event, before):
        last = before[where["x_ge_last_of"]][-1:]
        return plain(event) and (not last or event["x"] >= last[0]["x"])

    return after if "x_ge_last_of" in where else plain
