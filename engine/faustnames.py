"""Faust's settings and options: their names here; which are without effect, or refused."""

from __future__ import annotations

from typing import Any

from engine.errors import ConfigError
from engine.web import OFF

NAMES = {
    "topic_partitions": "partitions",
    "topic_replication_factor": "replicas",
    "datadir": "state_dir",
    "processing_guarantee": "guarantee",
}
"""Settings that Faust has under another name."""


REFUSED = {
    "broker_credentials": "give security= (see docs/security.md)",
    "ssl_context": "give security= with ssl_cafile, ssl_certfile, ssl_keyfile",
    "key_serializer": "keys are bytes, text or numbers by key_type=",
    "value_serializer": "values are JSON, text or bytes by value_type=",
}
"""Settings of Faust's that must not look as if they did something."""

IGNORED = frozenset({
    "acks", "allow_empty", "deleting", "has_prefix", "help", "isolated_partitions",
    "key_serializer", "loop", "maxsize", "on_recover", "on_window_close", "partitions",
    "recovery_buffer_size", "schema", "standby_buffer_size", "supervisor_strategy",
    "use_partitioner", "use_reply_headers", "value_serializer",
})  # fmt: skip
"""Faust's options that have no meaning here, and do no harm."""


def translated(settings: dict[str, Any]) -> dict[str, Any]:
    """Return an app's settings under our names, with our defaults for those that stay Faust's.

    Raises:
        ConfigError: one would look as if it protected something, and would not.
    """
    for name in REFUSED.keys() & settings.keys():
        raise ConfigError(f"{name} has no effect here: {REFUSED[name]}")
    named = {NAMES.get(name, name): value for name, value in settings.items()}
    # Faust's own default is every address
    return {"web_enabled": False, "web_bind": "127.0.0.1", **dict.fromkeys(OFF, False), **named}


def plain_broker(broker: Any) -> str:
    """Return ``host:port`` for what Faust takes: a URL, or a list of them."""
    urls = broker if isinstance(broker, list | tuple) else str(broker).split(";")
    hosts = [str(url).rpartition("//")[2].strip("/") for url in urls]
    return ",".join(
        part if ":" in part else f"{part}:9092" for host in hosts for part in host.split(",")
    )


def check_serializer(codec: Any, where: str) -> None:
    """Refuse Faust's other codecs: pickle runs code that is in a record."""
    if codec not in {None, "json", "raw", "text"}:
        raise ConfigError(
            f"{where}: there is no serializer {codec!r} here. Values are JSON, text or bytes: "
            "say which with value_type="
        )
