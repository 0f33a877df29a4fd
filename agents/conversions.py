"""Conversions: a purchase within an hour of a login."""

from __future__ import annotations

from collections.abc import AsyncIterator

from agents.app import app
from agents.contracts import CONVERSIONS, RAW_EVENTS, Conversion, RawEvent
from engine import Match, Pattern, Stream


def is_login(event: RawEvent) -> bool:
    """Say whether a visit may begin to pay off here."""
    return event.event_type == "login"


def is_purchase(event: RawEvent) -> bool:
    """Say whether it has."""
    return event.event_type == "purchase"


login_to_purchase = app.Match(
    "login-to-purchase",
    RAW_EVENTS,
    Pattern.begin("login")
    .where(is_login)
    .followed_by("purchase")
    .where(is_purchase)
    .within(60 * 60),
    delay=60,
)


@app.agent(login_to_purchase, sink=[CONVERSIONS])
async def convert(matches: Stream[Match]) -> AsyncIterator[Conversion]:
    """Emit each login with the first purchase within an hour of it."""
    async for match in matches:
        yield Conversion.of(match)
