"""The engine as a service among Faust's, and what a worker starts of those."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from faust.app.base import BootStrategy
from mode import Service

from engine import web
from engine.errors import HeadraceError
from tables.errors import StateError

if TYPE_CHECKING:
    from engine.app import App


class EngineService(Service):
    """The engine as a service of the app: starts with it, stops with it, crashes it."""

    mundane_level = "debug"

    def __init__(self, app: App, **options: Any) -> None:
        self.app = app
        self._work: asyncio.Future[None] | None = None
        super().__init__(**options)

    async def on_start(self) -> None:
        """Begin to run; settings that do not fit are an error right here."""
        engine = self.app.engine
        self._work = self.add_future(engine.run())

    async def on_stop(self) -> None:
        """Let the loop end, which commits what is done; a crash has ended it already."""
        work = self._work
        if work is None or work.done():
            return
        self.app.engine.stop()
        if not self.app.engine.ready.is_set():  # there is nothing to commit yet
            work.cancel()
        await asyncio.wait([work])

    async def crash(self, reason: BaseException) -> None:
        """End the app. An error of ours says all in its sentence: no traceback goes to the log."""
        if not isinstance(reason, HeadraceError | StateError):
            await super().crash(reason)
            return
        for node in self.beacon.walk():
            if isinstance(node.data, Service):
                node.data._crash(reason)


class Boot(BootStrategy):
    """What a worker starts: the engine and, if asked for, the web server."""

    def server(self) -> Iterable[Any]:
        """Return the services of a worker."""
        app: Any = self.app
        if app.conf.web_enabled:
            pages: Any = app.web  # the driver for aiohttp, whose application it has
            web.protect(pages.web_app, app.conf.web_bind, app.settings().security)
        return [*self.web_server(), app.engine_service]

    client_only = server
    producer_only = server
