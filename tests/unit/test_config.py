"""Settings are checked once, and a wrong one is named with its bound."""

from pathlib import Path

import pytest

from engine.config import _BOUNDS, Config, make, validate
from engine.errors import ConfigError


def test_the_defaults_are_within_their_bounds():
    config = make({"id": "app"}, {})
    assert config == Config(id="app")
    assert validate(config) is config


def test_code_goes_before_the_environment_goes_before_the_default():
    environ = {
        "HEADRACE_COMMIT_INTERVAL_MS": "250",
        "HEADRACE_PARTITIONS": "6",
        "HEADRACE_END_MARKS": "true",
        "HEADRACE_STATE_DIR": "/var/lib/app",
        "HEADRACE_BROKER": "kafka:9092",
        "HEADRACE_NONSENSE": "1",  # not ours
        "PARTITIONS": "99",
    }
    config = make({"id": "app", "partitions": 4}, environ)
    assert (config.partitions, config.commit_interval_ms, config.end_marks) == (4, 250, True)
    assert (config.state_dir, config.broker) == (Path("/var/lib/app"), "kafka:9092")


@pytest.mark.parametrize("home", ["state", Path("state")])
def test_the_state_directory_may_be_text_or_a_path(home):
    assert make({"id": "app", "state_dir": home}, {}).state_dir == Path("state")


@pytest.mark.parametrize(("name", "low", "high", "unit"), _BOUNDS)
def test_a_setting_out_of_bounds_is_named_with_its_bound(name, low, high, unit):
    for wrong in (low - 1, high + 1):
        with pytest.raises(ConfigError) as caught:
            make({"id": "app", name: wrong}, {})
        assert str(caught.value) == f"{name} {wrong} {unit} is outside of {low} to {high} {unit}"


def test_an_unknown_setting_is_named():
    with pytest.raises(ConfigError, match="unknown settings: comit_interval, zzz"):
        make({"id": "app", "zzz": 1, "comit_interval": 1}, {})


@pytest.mark.parametrize(
    "settings",
    [{"partitions": "many"}, {"guarantee": "perhaps"}, {"compression": "rar"}, {"partitions": 1.5}],
)
def test_a_value_of_the_wrong_kind_is_refused(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        make({"id": "app", **settings}, {})


def test_a_variable_of_the_wrong_kind_is_refused():
    with pytest.raises(ConfigError, match="partitions"):
        make({"id": "app"}, {"HEADRACE_PARTITIONS": "many"})


@pytest.mark.parametrize("name", ["", "a b", "a/b", "x" * 101, "é"])
def test_an_id_must_fit_a_topic_name(name):
    with pytest.raises(ConfigError, match="letters, digits"):
        make({"id": name}, {})


@pytest.mark.parametrize("broker", ["", "kafka", "kafka:", "kafka://h:1", "h:1,", "h:1 h:2", "h:x"])
def test_a_broker_is_a_host_and_a_port(broker):
    with pytest.raises(ConfigError, match="host:port"):
        make({"id": "app", "broker": broker}, {})


def test_several_brokers():
    assert make({"id": "app", "broker": "a:1,b.c:22"}, {}).broker == "a:1,b.c:22"


def test_settings_that_must_not_pass_each_other():
    with pytest.raises(ConfigError, match="min_insync 3 is more than replicas 2"):
        make({"id": "app", "replicas": 2, "min_insync": 3}, {})
    with pytest.raises(
        ConfigError, match="commit_interval_ms 20000 is more than transaction_timeo"
    ):
        make({"id": "app", "commit_interval_ms": 20_000}, {})


@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_fewer_replicas_need_no_second_setting(replicas):
    """``topic_replication_factor=1`` is in many a Faust app."""
    assert make({"id": "app", "replicas": replicas}, {}).min_insync == min(2, replicas)
    assert make({"id": "app"}, {"HEADRACE_REPLICAS": str(replicas)}).min_insync == min(2, replicas)
