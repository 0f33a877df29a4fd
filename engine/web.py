"""Who may look at an app's web pages (``@app.page``): whoever is on this machine, or has the token.

Faust serves them, on every address and to everybody by its own defaults, along with pages of its
own that show tables and routes and let a request be passed on. Those are off here.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any

from aiohttp import web

from engine.errors import ConfigError
from engine.security import Secret, read_secret

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from engine.security import Security

OFF = ("web_router_enabled", "web_tables_enabled", "web_stats_enabled", "web_graph_enabled",
       "web_metrics_enabled")  # fmt: skip
"""Faust's settings for its own pages."""


def protect(pages: web.Application, bind: str, security: Security) -> None:
    """Let only those in who may; done before the server starts.

    Raises:
        ConfigError: the address can be reached from elsewhere, and there is no token.
    """
    given = security.web_token is not None or security.web_token_file is not None
    if given:
        pages.middlewares.append(_guard(security))
    elif not is_loopback(bind):
        raise ConfigError(
            f"web_bind {bind}: pages that others can reach need a token: set "
            "HEADRACE_WEB_TOKEN_FILE (requests then carry it as `Authorization: Bearer ...`), or "
            "bind them to 127.0.0.1"
        )


def is_loopback(bind: str) -> bool:
    """Say whether an address is this machine's alone. A name other than localhost is not."""
    try:
        return ipaddress.ip_address(bind.strip("[]")).is_loopback
    except ValueError:
        return bind == "localhost"


def _guard(security: Security) -> Any:
    """Return what asks every request for the token, whatever it asks for."""

    @web.middleware
    async def guard(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        token = _current(security)
        kind, _, given = request.headers.get("Authorization", "").partition(" ")
        if token is None or kind.lower() != "bearer" or not token.matches(given.strip()):
            raise web.HTTPUnauthorized(headers={"WWW-Authenticate": "Bearer"})
        return await handler(request)

    return guard


def _current(security: Security) -> Secret | None:
    """Return the token as it is now; a file that cannot be read lets nobody in."""
    try:
        return read_secret(security.web_token, security.web_token_file)
    except OSError:
        return None
