"""How connections are protected: secrets, and one block of settings for every client.

The names are those that Kafka's Python clients use. Nothing here connects; see
:mod:`engine.kafka.credentials` for what does with these settings.
"""

from __future__ import annotations

import errno
import hmac
import logging
from pathlib import Path
from typing import Any, Literal, NoReturn

import msgspec

from engine.errors import ConfigError

Protocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]

HIDDEN = "***"
REDACTED_CHARS = 4
"""Shorter secrets are not looked for in the log: they would be found in every line."""


class Secret:
    """A text that only :meth:`reveal` shows.

    Its repr and str are ``Secret(***)`` and ``***``; msgspec, pickle and copy refuse it.
    """

    __slots__ = ("_text",)

    def __init__(self, text: Any) -> None:
        if not isinstance(text, str) or not text:
            raise ConfigError("a secret must be a text that is not empty")
        self._text = text
        if len(text) >= REDACTED_CHARS:
            _known.add(text)

    def reveal(self) -> str:
        """Return the text. Whoever calls this keeps it out of messages."""
        return self._text

    def matches(self, text: str) -> bool:
        """Say whether ``text`` is the secret, in a time that does not tell how much of it is."""
        return hmac.compare_digest(self._text.encode(), text.encode())

    def __repr__(self) -> str:
        return f"Secret({HIDDEN})"

    def __str__(self) -> str:
        return HIDDEN

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self.matches(other._text)

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not copied or pickled")


_known: set[str] = set()
"""The secrets of this process, for :class:`Redact`."""


class Redact(logging.Filter):
    """Puts ``***`` in the place of secrets in log lines. A second line: none should get so far.

    ``headrace`` has it on its own log; an app that sets up logging itself adds it to its handlers.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record through, without secrets."""
        if not _known:
            return True
        if record.exc_info and not record.exc_text:
            record.exc_text = _plain.formatException(record.exc_info)
        text = record.getMessage()
        if _redacted(text) != text:
            record.msg, record.args = _redacted(text), None
        if record.exc_text and _redacted(record.exc_text) != record.exc_text:
            record.exc_text, record.exc_info = _redacted(record.exc_text), None
        return True


_plain = logging.Formatter()


def _redacted(text: str) -> str:
    for secret in _known:
        if secret in text:
            text = text.replace(secret, HIDDEN)
    return text


def read_secret(secret: Secret | None, path: Path | None) -> Secret | None:
    """Return a secret that is given, or the one that its file holds at this moment.

    Raises:
        OSError: the file cannot be read, or is empty.
    """
    if path is None:
        return secret
    text = path.read_text().strip()
    if not text:
        raise OSError(errno.ENODATA, "is empty where there should be a secret", str(path))
    return Secret(text)


class Security(msgspec.Struct, frozen=True, kw_only=True):
    """How clients connect, and who may look at the web pages.

    Each field but the token provider can be set by ``HEADRACE_<NAME>``. Files are read again
    whenever a connection is made, so what is in them can change while a worker runs.

    Attributes:
        security_protocol: ``SASL_SSL``, ``SSL``, ``PLAINTEXT``, or ``SASL_PLAINTEXT`` (which needs
            ``allow_insecure_sasl``).
        sasl_mechanism: how to prove who we are.
        sasl_username, sasl_password, sasl_password_file: for PLAIN and SCRAM.
        sasl_oauth_token, sasl_oauth_token_file: for OAUTHBEARER, or
        sasl_oauth_token_provider: a function, plain or async, that returns a token; a JWT is kept
            until shortly before it expires.
        oauth_refresh_margin_s: so long before its end a token is not used any more.
        oauth_timeout_s: so long may a provider take.
        ssl_cafile: the CAs that may have signed the broker's certificate; None: the system's.
        ssl_certfile, ssl_keyfile: our own certificate and its key (PEM), for mTLS.
        ssl_key_password, ssl_key_password_file: of an encrypted key.
        ssl_check_hostname: the broker's certificate must be for the name that we connect to.
        allow_insecure_sasl: SASL without TLS, on a network that is trusted.
        web_token, web_token_file: what a request to a web page must carry as its bearer token.
    """

    security_protocol: Protocol = "PLAINTEXT"
    sasl_mechanism: Mechanism | None = None
    sasl_username: str = ""
    sasl_password: Secret | None = None
    sasl_password_file: Path | None = None
    sasl_oauth_token: Secret | None = None
    sasl_oauth_token_file: Path | None = None
    sasl_oauth_token_provider: Any = None
    oauth_refresh_margin_s: float = 30.0
    oauth_timeout_s: float = 10.0
    ssl_cafile: Path | None = None
    ssl_certfile: Path | None = None
    ssl_keyfile: Path | None = None
    ssl_key_password: Secret | None = None
    ssl_key_password_file: Path | None = None
    ssl_check_hostname: bool = True
    allow_insecure_sasl: bool = False
    web_token: Secret | None = None
    web_token_file: Path | None = None

    @property
    def encrypted(self) -> bool:
        """Whether connections are TLS."""
        return self.security_protocol in {"SSL", "SASL_SSL"}

    @property
    def authenticated(self) -> bool:
        """Whether connections use SASL."""
        return self.security_protocol.startswith("SASL_")

    def summary(self) -> str:
        """Say it in a line, without secrets."""
        parts: list[str] = [self.security_protocol]
        if self.authenticated:
            who = f" as {self.sasl_username}" if self.sasl_username else ""
            parts.append(f"{self.sasl_mechanism}{who}")
        if self.ssl_certfile is not None:
            parts.append(f"certificate {self.ssl_certfile}")
        if self.encrypted and not self.ssl_check_hostname:
            parts.append("HOSTNAME NOT CHECKED")
        return ", ".join(parts)


_PAIRS = (
    ("sasl_password", "sasl_password_file"),
    ("sasl_oauth_token", "sasl_oauth_token_file"),
    ("ssl_key_password", "ssl_key_password_file"),
    ("web_token", "web_token_file"),
)
_SASL = ("sasl_mechanism", "sasl_username", "sasl_password", "sasl_password_file",
         "sasl_oauth_token", "sasl_oauth_token_file", "sasl_oauth_token_provider")  # fmt: skip
_TLS = ("ssl_cafile", "ssl_certfile", "ssl_keyfile", "ssl_key_password", "ssl_key_password_file")


def hidden(given: Any) -> Any:
    """Return a block as the code gives it, with its secrets wrapped: it is kept until the start."""
    if not isinstance(given, dict):
        return given
    secrets = {name for name, _ in _PAIRS}
    return {
        name: Secret(it) if name in secrets and isinstance(it, str) else it
        for name, it in given.items()
    }


def make_security(given: Security | dict[str, Any] | None, environ: dict[str, str]) -> Security:
    """Return the block: what the code says, filled up from the environment's values.

    Raises:
        ConfigError: an unknown setting, a wrong type, or settings that do not go together.
    """
    if isinstance(given, Security):
        plain = Security()
        fields = {name: getattr(given, name) for name in given.__struct_fields__}
        given = {name: it for name, it in fields.items() if it != getattr(plain, name)}
    values = dict(given or {})
    unknown = values.keys() - set(Security.__struct_fields__)
    if unknown:
        raise ConfigError(f"unknown settings in security: {', '.join(sorted(unknown))}")
    environ = dict(environ)
    for pair in _PAIRS:  # whichever of the two the code says hides both in the environment
        if any(name in values for name in pair):
            for name in pair:
                environ.pop(name, None)
    try:
        made = msgspec.convert({**environ, **values}, Security, strict=False, dec_hook=decode_field)
    except msgspec.ValidationError as error:
        raise ConfigError(f"security: {error}") from None
    return _validate(made)


def decode_field(kind: type, value: Any) -> Any:
    """Return a value of a type that msgspec does not know (its ``dec_hook``)."""
    if kind is Path:
        return Path(value)
    if kind is Secret:
        return value if isinstance(value, Secret) else Secret(value)
    raise NotImplementedError(kind)


def _validate(security: Security) -> Security:
    """Return it, or say what does not fit.

    A setting that would have no effect is an error: whoever gives a password must not get a
    connection without one.
    """
    protocol = security.security_protocol
    for name in _SASL if not security.authenticated else ():
        if getattr(security, name):
            raise ConfigError(
                f"{name} is set, but security_protocol {protocol} uses no SASL: "
                "set security_protocol=SASL_SSL (HEADRACE_SECURITY_PROTOCOL)"
            )
    for name in _TLS if not security.encrypted else ():
        if getattr(security, name):
            raise ConfigError(
                f"{name} is set, but security_protocol {protocol} uses no TLS: "
                "set security_protocol=SSL or SASL_SSL (HEADRACE_SECURITY_PROTOCOL)"
            )
    for secret, path in _PAIRS:
        if getattr(security, secret) is not None and getattr(security, path) is not None:
            raise ConfigError(f"{secret} and {path} are both set: give one")
    if security.ssl_keyfile is not None and security.ssl_certfile is None:
        raise ConfigError("ssl_keyfile is set without ssl_certfile, the certificate of that key")
    if security.authenticated:
        _validate_sasl(security)
    return security


def _validate_sasl(security: Security) -> None:
    if not security.encrypted and not security.allow_insecure_sasl:
        raise ConfigError(
            "security_protocol SASL_PLAINTEXT sends credentials and records over the network "
            "unencrypted: use SASL_SSL, or say allow_insecure_sasl=True "
            "(HEADRACE_ALLOW_INSECURE_SASL=true) where the network is trusted"
        )
    mechanism = security.sasl_mechanism
    if mechanism is None:
        raise ConfigError(
            f"security_protocol {security.security_protocol} needs sasl_mechanism: PLAIN, "
            "SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER"
        )
    password = security.sasl_password or security.sasl_password_file
    tokens = [name for name in _SASL if name.startswith("sasl_oauth") and getattr(security, name)]
    if mechanism == "OAUTHBEARER":
        if len(tokens) != 1:
            raise ConfigError(
                "sasl_mechanism OAUTHBEARER needs one of sasl_oauth_token_file, sasl_oauth_token "
                "and sasl_oauth_token_provider"
            )
    elif not security.sasl_username or not password:
        raise ConfigError(
            f"sasl_mechanism {mechanism} needs sasl_username and sasl_password, or "
            "sasl_password_file (HEADRACE_SASL_USERNAME, HEADRACE_SASL_PASSWORD_FILE)"
        )
