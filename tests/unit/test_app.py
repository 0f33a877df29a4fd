"""The surface: what an app takes from Faust's settings, and what it refuses."""

from datetime import timedelta

import faust
import pytest

from engine import App
from engine.errors import ConfigError
from engine.testing import Driver
from engine.windowed import WindowedTable


def test_an_app_is_a_faust_app_with_a_web_server_for_this_machine_only() -> None:
    """Faust binds every address by default, without asking who calls."""
    app = App("surface")
    assert isinstance(app, faust.App)
    assert app.conf.web_bind == "127.0.0.1"
    assert not app.conf.web_enabled


@pytest.mark.parametrize(
    ("given", "broker"),
    [
        ("kafka://one:9092", "one:9092"),
        ("kafka://one", "one:9092"),
        ("one:1,two:2", "one:1,two:2"),
        ("kafka://one:1;kafka://two:2", "one:1,two:2"),
        (["kafka://one:1", "kafka://two:2"], "one:1,two:2"),
    ],
)
def test_brokers_are_given_as_in_faust_or_plainly(given: object, broker: str) -> None:
    """URLs, lists of them, or host:port."""
    assert App("brokers", broker=given).settings().broker == broker


def test_faust_names_of_settings_are_understood() -> None:
    """What has another name here."""
    app = App("named", topic_partitions=3, topic_replication_factor=1, datadir="/tmp/named")
    settings = app.settings()
    assert (settings.partitions, settings.replicas) == (3, 1)
    assert str(settings.state_dir) == "/tmp/named"


def test_code_beats_environment_and_the_command_line_beats_code() -> None:
    """Overrides, then configure(), then the code."""
    app = App("order", commit_interval_ms=300)
    assert app.settings().commit_interval_ms == 300
    app.configure(commit_interval_ms=200, broker=None)
    assert app.settings().commit_interval_ms == 200
    assert app.settings(commit_interval_ms=100).commit_interval_ms == 100


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda app: app.topic(), "needs a name"),
        (lambda app: app.topic("t", no_such=1), "no option 'no_such'"),
        (lambda app: app.agent("t", concurrency=2), "out of order"),
        (lambda app: app.agent("t", no_such=1), "no option 'no_such'"),
        (lambda app: app.Table("a table"), "use letters"),
        (lambda app: app.Table("t").hopping(10, 20), "0 < step <= size"),
        (lambda app: app.Table(), "needs a name"),
        (lambda app: app.SessionTable("s", gap=1, reduce=max), "belong together"),
        (
            lambda app: app.SessionTable("s", gap=0, reduce=max, merge=max, value_type=int),
            "gap must be more than 0",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_reason(declare, message: str) -> None:
    """At declaration, not at run time."""
    with pytest.raises(ConfigError, match=message):
        declare(App("refusing"))


def test_windows_take_timedeltas_and_replace_the_table_they_come_from() -> None:
    """As in Faust: app.Table(...).tumbling(timedelta(...))."""
    app = App("windows")
    counts = app.Table("counts", default=int).tumbling(timedelta(minutes=1), grace=5)
    assert isinstance(counts, WindowedTable)
    assert (counts.windows.size_ms, counts.windows.grace_ms) == (60_000, 5_000)
    assert app.declared_tables == {"counts": counts}


def test_a_table_that_is_a_topic_has_its_name_and_a_session_table_counts_by_default() -> None:
    """The shortest forms."""
    app = App("short")
    profiles = app.topic("profiles", key_type=str, compacting=True)
    clicks = app.topic("clicks", key_type=str)
    visits = app.topic("visits", key_type=str)
    table = app.table(source=profiles)
    assert table.name == "profiles"
    sessions = app.SessionTable("s", gap=timedelta(minutes=30), grace=5, key_type=str, sink=visits)

    @app.agent(clicks)
    async def agent(stream):
        async for key, click in stream.items():
            sessions.update(key, click)

    with Driver(app) as driver:
        for second in (0, 60, 7_200):
            driver.pipe("clicks", key="ann", value=1, timestamp=second * 1000)
        assert [out.value for out in driver.read("visits")] == [2]
        driver.close_windows()
        assert [out.value for out in driver.read("visits")] == [1]
