"""Web pages are for this machine, or for whoever has the token."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web as server

from engine import App
from engine.config import make
from engine.errors import ConfigError
from engine.web import is_loopback, protect

TOKEN = "canary-w3b-token"


@asynccontextmanager
async def pages(**security: Any) -> AsyncIterator[str]:
    """Serve one page; yield where."""

    async def page(_: server.Request) -> server.Response:
        return server.Response(text="shown")

    application = server.Application()
    application.router.add_get("/page", page)
    settings = make({"id": "app", "security": security}, {})
    protect(application, "127.0.0.1", settings.security)
    runner = server.AppRunner(application, access_log=None)
    await runner.setup()
    site = server.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def status(url: str, token: str | None = None, scheme: str = "Bearer") -> int:
    headers = {} if token is None else {"Authorization": f"{scheme} {token}"}
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
        return answer.status


async def test_without_a_token_pages_on_loopback_are_open() -> None:
    """Whoever is on this machine may look."""
    async with pages() as base:
        assert await status(f"{base}/page") == 200


async def test_with_a_token_every_route_wants_it() -> None:
    """Also those that do not exist."""
    async with pages(web_token=TOKEN) as base:
        for path in ("/page", "/nothing"):
            assert await status(base + path) == 401
            assert await status(base + path, TOKEN[:-1]) == 401
            assert await status(base + path, TOKEN + "x") == 401
            assert await status(base + path, "ü") == 401
            assert await status(base + path, TOKEN, "Basic") == 401
        assert await status(f"{base}/page", TOKEN) == 200
        assert await status(f"{base}/nothing", TOKEN) == 404


async def test_the_tokens_file_is_read_for_each_request(tmp_path: Path) -> None:
    """Changed, the old one is not good any more; gone, none is."""
    path = tmp_path / "token"
    path.write_text(TOKEN)
    async with pages(web_token_file=path) as base:
        assert await status(f"{base}/page", TOKEN) == 200
        path.write_text("canary-next")
        assert await status(f"{base}/page", TOKEN) == 401
        assert await status(f"{base}/page", "canary-next") == 200
        path.unlink()
        assert await status(f"{base}/page", "canary-next") == 401


@pytest.mark.parametrize("bind", ["0.0.0.0", "::", "10.1.2.3", "", "my-host"])
def test_an_address_for_others_needs_a_token(bind: str) -> None:
    """The worker does not start."""
    app = App("pages", web_enabled=True, web_bind=bind)
    with pytest.raises(ConfigError, match="need a token: set HEADRACE_WEB_TOKEN_FILE"):
        list(app.boot_strategy.server())


def test_faust_shows_nothing_by_itself() -> None:
    """Its pages with tables, routes and statistics are off, and so is the server unless asked."""
    app = App("pages", web_enabled=True)
    assert not App("quiet").conf.web_enabled
    assert app.conf.web_bind == "127.0.0.1"
    app.web.init_server()
    routes = {route.resource.canonical for route in app.web.web_app.router.routes()}
    assert not {
        path for path in routes if path.startswith(("/router", "/table", "/graph", "/perf"))
    }
    assert routes <= {"/"}


def test_what_is_loopback() -> None:
    """Of both kinds of address; a name can be anything."""
    assert is_loopback("127.0.0.1")
    assert is_loopback("127.9.9.9")
    assert is_loopback("::1")
    assert is_loopback("[::1]")
    assert is_loopback("localhost")
    assert not is_loopback("localhost.example")
    assert not is_loopback("")
