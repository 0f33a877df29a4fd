"""stand-in"""

import asyncio
import importlib
import logging
import signal
import sys

import uvloop


def main():
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    sys.path.insert(0, ".")
    app = importlib.import_module(sys.argv[2]).app

    async def run():
        loop = asyncio.get_running_loop()
        eng = app.engine
        loop.add_signal_handler(signal.SIGTERM, eng.stop)
        await eng.run()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as r:
        r.run(run())


main()
