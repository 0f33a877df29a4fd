"""``headrace torture`` as its user runs it: on Kafka, with workers that are really killed."""

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from engine.devbroker import DevBroker, start_tansu
from engine.torture import observer
from tests.broker.conftest import need_kafka
from tests.shell import ROOT, environ, error_of, headrace, need_tansu

KEYS = [
    "kills", "events", "lost", "duplicated", "table_differences", "recovery_p50_s",
    "recovery_p99_s", "seed",
]  # fmt: skip
SHORT = ("--kills", 2, "--replicas", 2, "--partitions", 2, "--rate", 300, "--session-timeout", "2s")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--faults", "kill,flood"), "'flood' is none of kill, stop, term, broker"),
        (("--faults", "broker", "--broker", "b:1"), "a broker that you give is not started again"),
        (("--broker", "127.0.0.1:1"), "no Kafka broker answers at 127.0.0.1:1"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(arguments: tuple, sentence: str) -> None:
    """And leaves nothing behind."""
    assert sentence in error_of(headrace("torture", *arguments))


@pytest.mark.broker
def test_a_broker_without_transactions_is_refused(tmp_path: Path) -> None:
    """Tansu: the sentence says why."""
    need_tansu()
    with start_tansu(tmp_path) as tansu:
        done = headrace("torture", "--broker", tansu.bootstrap)
    assert "needs Kafka's transactions" in error_of(done)


@pytest.mark.broker
@pytest.mark.slow
@pytest.mark.timeout(200)
def test_a_short_campaign_finds_nothing(tmp_path: Path) -> None:
    """Two kills with a broker of its own; the last line is the promised object."""
    need_kafka()
    done = headrace(
        "torture", *SHORT, "--seed", 5, "--json", "--home", tmp_path / "home", timeout_s=180
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert list(result) == KEYS
    assert (result["kills"], result["seed"]) == (2, 5)
    assert (result["lost"], result["duplicated"], result["table_differences"]) == (0, 0, 0)
    assert result["events"] > 1_000
    assert 0 < result["recovery_p50_s"] <= result["recovery_p99_s"] < 60
    assert "every invariant holds" in done.stderr
    assert "headrace torture --kills 2 --replicas 2 --rate 300" in done.stderr
    assert (tmp_path / "home" / "w1.log").exists()
    noted = (tmp_path / "home" / "faults.log").read_text()
    assert len(re.findall(r"UTC kill w\d", noted)) == 2
    assert len(re.findall(r"UTC start w\d", noted)) == 4


@pytest.mark.broker
@pytest.mark.slow
@pytest.mark.timeout(200)
def test_a_campaign_that_goes_wrong_fails(fresh_kafka: DevBroker, tmp_path: Path) -> None:
    """Somebody writes an output that no event accounts for: it is found, and the logs stay."""
    home = tmp_path / "home"
    campaign = subprocess.Popen(
        [sys.executable, "-m", "engine.cli", "torture", *map(str, SHORT), "--json",
         "--broker", fresh_kafka.bootstrap, "--home", home],
        cwd=ROOT, env=environ(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        topic = asyncio.run(output_of(fresh_kafka.bootstrap))
        forged = [(b"user_1", b'{"id":"from-nowhere"}', 0)]
        asyncio.run(observer.produce(fresh_kafka.bootstrap, topic, forged, 2))
        out, errors = campaign.communicate(timeout=170)
    finally:
        campaign.kill()
    assert campaign.returncode == 1, errors
    assert json.loads(out.splitlines()[-1])["duplicated"] == 1
    assert errors.splitlines()[-1].startswith("Error: broken: I2; logs, stores")
    assert "outputs too many, by id: from-nowhere" in errors
    assert (home / "w1.log").exists()


async def output_of(bootstrap: str) -> str:
    """Wait for the campaign's output topic."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        async with asyncio.timeout(60):
            while True:
                for topic in await admin.list_topics():
                    if topic.endswith("-enriched-events"):
                        return topic
                await asyncio.sleep(0.2)
    finally:
        await admin.close()
