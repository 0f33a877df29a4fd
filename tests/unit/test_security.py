"""Secrets stay hidden, and settings that would protect nothing are refused."""

import copy
import io
import logging
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine import App
from engine.config import Config, make
from engine.errors import ConfigError
from engine.kafka.credentials import expiry_ms
from engine.security import Redact, Secret, Security
from tests.shell import environ, error_of, headrace

CANARY = "canary-hunter2"
SASL = {
    "security_protocol": "SASL_SSL",
    "sasl_mechanism": "SCRAM-SHA-512",
    "sasl_username": "alice",
    "sasl_password": CANARY,
}


def config(security: Any, **environ: str) -> Config:
    return make({"id": "app", "security": security}, environ)


def test_a_secret_shows_itself_to_nobody() -> None:
    """Repr, str, format, a settings' repr, msgspec with and without a hook, pickle, copies."""
    settings = config(SASL)
    secret = settings.security.sasl_password
    assert secret is not None
    assert secret.reveal() == CANARY
    shown = [repr(secret), str(secret), f"{secret}", f"{secret!r:>20}", "%s" % secret,  # noqa: UP031
             repr(settings), str(settings), settings.security.summary(),
             msgspec.json.encode(settings, enc_hook=str).decode()]  # fmt: skip
    assert all(CANARY not in text for text in shown)
    for encode in (msgspec.json.encode, msgspec.msgpack.encode, msgspec.to_builtins,
                   pickle.dumps, copy.deepcopy):  # fmt: skip
        with pytest.raises(TypeError) as caught:
            encode(settings)
        assert CANARY not in str(caught.value)
    with pytest.raises(TypeError, match="not copied"):
        copy.copy(secret)
    assert not hasattr(secret, "__dict__")


def test_an_app_keeps_no_secret_in_the_open() -> None:
    """Its settings wait in it until it starts."""
    app = App("hidden", security=SASL)
    assert CANARY not in repr(vars(app))
    secret = app.settings().security.sasl_password
    assert secret is not None
    assert secret.reveal() == CANARY


def test_a_secret_is_compared_as_a_whole() -> None:
    """Equal texts are equal, and nothing else is."""
    assert Secret("abc") == Secret("abc")
    assert Secret("abc") != Secret("abd")
    assert Secret("abc") != "abc"
    assert Secret("abc").matches("abc")
    assert not Secret("abc").matches("ab")
    assert not Secret("abc").matches("äbc")


def test_a_secret_of_another_type_is_refused_without_being_shown() -> None:
    """A number from a settings file, or an empty variable."""
    for wrong in (73910456, ""):
        with pytest.raises(ConfigError) as caught:
            config({**SASL, "sasl_password": wrong})
        assert "73910456" not in str(caught.value)


def test_the_log_filter_takes_secrets_out_of_messages_and_tracebacks() -> None:
    """Also those that came in as arguments, or that an error quotes."""
    Secret(CANARY)
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(Redact())
    log = logging.getLogger("test.redact")
    log.propagate = False
    log.addHandler(handler)
    try:
        log.warning("a password: %s", CANARY)
        log.warning(f"{CANARY} in the text, and 100%")  # noqa: G004
        try:
            int(CANARY)
        except ValueError:
            log.exception("failed")
        log.warning("nothing to hide: %d", 7)
    finally:
        log.removeHandler(handler)
    said = stream.getvalue()
    assert CANARY not in said
    assert "a password: ***" in said
    assert "with base 10: '***'" in said
    assert "nothing to hide: 7" in said


def test_settings_come_from_the_environment_and_files(tmp_path: Path) -> None:
    """Each under its own name."""
    path = tmp_path / "password"
    path.write_text(f"{CANARY}\n")
    security = config(
        None,
        HEADRACE_SECURITY_PROTOCOL="SASL_SSL",
        HEADRACE_SASL_MECHANISM="PLAIN",
        HEADRACE_SASL_USERNAME="alice",
        HEADRACE_SASL_PASSWORD_FILE=str(path),
        HEADRACE_SSL_CAFILE="ca.pem",
        HEADRACE_SSL_CHECK_HOSTNAME="false",
    ).security
    assert security.sasl_password_file == path
    assert security.ssl_cafile == Path("ca.pem")
    assert not security.ssl_check_hostname
    assert "HOSTNAME NOT CHECKED" in security.summary()


def test_what_the_code_says_hides_the_environment() -> None:
    """A password in the code is not in conflict with a file in the environment."""
    for given in (SASL, Security(**{**SASL, "sasl_password": Secret(CANARY)})):
        security = config(given, HEADRACE_SASL_PASSWORD_FILE="/x", HEADRACE_SASL_USERNAME="bob")
        assert security.security.sasl_password == Secret(CANARY)
        assert security.security.sasl_password_file is None
        assert security.security.sasl_username == "alice"


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "SASL in the clear": (
        {**SASL, "security_protocol": "SASL_PLAINTEXT"},
        r"unencrypted: use SASL_SSL, or say allow_insecure_sasl=True \(HEADRACE_ALLOW_INSECURE",
    ),
    "a password that nobody would use": (
        {"sasl_username": "alice", "sasl_password": CANARY}, "uses no SASL: set security_protocol"
    ),
    "a mechanism that nobody would use": (
        {**SASL, "security_protocol": "SSL"}, "uses no SASL: set security_protocol=SASL_SSL"
    ),
    "a CA that nobody would ask": ({"ssl_cafile": "ca.pem"}, "uses no TLS: set security_protocol"),
    "no mechanism": ({"security_protocol": "SASL_SSL"}, "needs sasl_mechanism"),
    "no password": ({**SASL, "sasl_password": None}, "needs sasl_username and sasl_password"),
    "no user": ({**SASL, "sasl_username": ""}, "needs sasl_username and sasl_password"),
    "two passwords": ({**SASL, "sasl_password_file": "x"}, "both set: give one"),
    "no token": (
        {"security_protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER"}, "needs one of"
    ),
    "a key without its certificate": (
        {"security_protocol": "SSL", "ssl_keyfile": "k.pem"}, "without ssl_certfile"
    ),
    "an unknown protocol": ({"security_protocol": "TLS"}, "Invalid enum value 'TLS'"),
    "an unknown setting": ({"sasl_passwort": CANARY}, "unknown settings in security: sasl_pass"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_settings_that_do_not_go_together_are_refused(case: str) -> None:
    """And the message names the setting and the fix, not the secret."""
    given, message = REFUSED[case]
    with pytest.raises(ConfigError, match=message) as caught:
        config(given)
    assert CANARY not in str(caught.value)


def test_sasl_in_the_clear_can_be_allowed_by_name() -> None:
    """In the code or in the environment."""
    clear = {**SASL, "security_protocol": "SASL_PLAINTEXT"}
    assert config({**clear, "allow_insecure_sasl": True}).security.authenticated
    assert config(clear, HEADRACE_ALLOW_INSECURE_SASL="true").security.authenticated


def test_credentials_in_an_address_are_refused_and_not_repeated() -> None:
    """As they are written in URLs elsewhere."""
    with pytest.raises(ConfigError, match="credentials do not go there") as caught:
        make({"id": "app", "broker": f"alice:{CANARY}@kafka:9092"}, {})
    assert CANARY not in str(caught.value)


def test_a_token_says_when_it_ends_if_it_is_a_jwt() -> None:
    """Anything else is used as it is."""
    assert expiry_ms("e30.eyJleHAiOiAxNzAwMDAwMDAwfQ.") == 1_700_000_000_000
    assert expiry_ms("opaque") is None
    assert expiry_ms("a.b.c") is None
    assert expiry_ms("e30.e30.") is None


def test_a_broker_of_our_own_is_reached_without_the_environments_security() -> None:
    """A demo on a machine that is set up for the real cluster."""
    done = subprocess.run(
        [sys.executable, "-c",
         ("from engine import config; config.connect_plainly();"
         "print(config.make({'id': 'app'}).security.summary())")],
        env=environ(HEADRACE_SECURITY_PROTOCOL="SASL_SSL", HEADRACE_SASL_USERNAME="alice"),
        capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
    assert done.stdout.strip() == "PLAINTEXT"


def test_the_campaigns_checker_does_not_connect_without_what_it_was_told_to_use() -> None:
    """It has a client of its own, which knows no security: it says so."""
    done = headrace(
        "torture", "--broker", "127.0.0.1:1",
        HEADRACE_SECURITY_PROTOCOL="SSL",
    )  # fmt: skip
    assert "speaks no SSL" in error_of(done)
