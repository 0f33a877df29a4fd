"""One headrace worker for a job: ``python -m benchmarks.headrace_worker JOB GROUP``.

GROUP is the consumer group; all else comes from the environment (``HEADRACE_BROKER``, ...), as for
any worker.
"""

import asyncio
import json
import logging
import signal
import sys
import time

import uvloop

from engine import App
from engine.stages import stages

MARK = "stages"
"""What the last line of the log begins with: seconds by stage (see benchmarks.breakdown)."""
PROCESS = "process"
"""In it: the CPU seconds of all threads meanwhile."""


def app_for(job: str, group: str) -> App:
    """The main job's app with the agents to measure (``main``) or one, or the passthrough."""
    if job == "passthrough":
        from benchmarks.headrace_passthrough import app as passthrough  # noqa: PLC0415

        app = passthrough
    else:
        from agents import app, count_events, enrich, sessionize  # noqa: PLC0415

        alone = {"enrich": enrich, "sessions": sessionize, "tumbling": count_events}
        app.declared_agents[:] = [alone[job]] if job in alone else alone.values()
    app.configure(id=group)
    return app


async def work(app: App) -> None:
    engine = app.engine
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, engine.stop)
    began = time.process_time()
    await engine.run()
    spent = {**stages.seconds(), PROCESS: time.process_time() - began}
    print(MARK, json.dumps(spent), flush=True)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work(app_for(*sys.argv[1:3])))
