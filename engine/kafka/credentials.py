"""What a connection proves who it is with, read anew for each one: certificates, passwords, tokens.

So a certificate that is renewed, a password that is changed and a token that expires need no
restart. What cannot be read leaves the connection unmade; nothing falls back to less.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import inspect
import logging
import re
import ssl
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec
from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import KafkaError

from engine.clock import SystemClock
from engine.security import Secret, read_secret

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from engine.security import Security

log = logging.getLogger(__name__)

_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
"""RFC 6750's b64token. Anything else could end the SASL message early."""


class TokenUnavailable(KafkaError):
    """There is no token now. A KafkaError, so that aiokafka tries again and does not fall over."""

    retriable = True

    def __str__(self) -> str:
        return str(self.args[0])


class Credentials:
    """One block of settings at work. All clients of a process share one."""

    def __init__(self, security: Security) -> None:
        self._security = security
        self.tokens = Tokens(security)
        self._context: ssl.SSLContext | None = None
        self._stamp: object = None

    def password(self) -> str:
        """Return the password as it is now; empty where there is none.

        Raises:
            OSError: its file cannot be read.
        """
        security = self._security
        secret = read_secret(security.sasl_password, security.sasl_password_file)
        return secret.reveal() if secret is not None else ""

    def context(self) -> ssl.SSLContext | None:
        """Return the TLS settings, made of the files as they are now; None without TLS.

        Files that do not fit together, as happens while they are being replaced, leave the last
        settings in force.

        Raises:
            OSError: there are none yet. ``ssl.SSLError`` is a kind of it.
        """
        if not self._security.encrypted:
            return None
        try:
            stamp = [_stamp(path) for path in self._files()]
            if self._context is None or stamp != self._stamp:
                self._context, self._stamp = _tls(self._security), stamp
        except OSError as error:
            if self._context is None:
                raise
            log.warning("certificates cannot be read again (%s): keeping the last ones", error)
        return self._context

    def _files(self) -> list[Path]:
        security = self._security
        files = (security.ssl_cafile, security.ssl_certfile, security.ssl_keyfile,
                 security.ssl_key_password_file)  # fmt: skip
        return [path for path in files if path is not None]


def _stamp(path: Path) -> tuple[int, int, int]:
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_ino, stat.st_size


def _tls(security: Security) -> ssl.SSLContext:
    """Return TLS 1.2 or later, the broker's certificate always checked."""
    try:
        context = ssl.create_default_context(cafile=security.ssl_cafile)
    except ssl.SSLError as error:
        raise _in_file(security.ssl_cafile, error) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = security.ssl_check_hostname
    if security.ssl_certfile is not None:
        secret = read_secret(security.ssl_key_password, security.ssl_key_password_file)
        try:
            context.load_cert_chain(
                security.ssl_certfile,
                security.ssl_keyfile,
                # always a function: without one OpenSSL asks the terminal and waits
                password=lambda: secret.reveal() if secret is not None else "",
            )
        except ssl.SSLError as error:
            raise _in_file(security.ssl_keyfile or security.ssl_certfile, error) from error
    return context


def _in_file(path: Path | None, error: ssl.SSLError) -> OSError:
    why = error.reason or "not PEM, or its password is wrong"
    return OSError(error.errno, why.lower().replace("_", " "), str(path))


class Tokens(AbstractTokenProvider):
    """Where aiokafka gets OAUTHBEARER tokens from."""

    def __init__(self, security: Security) -> None:
        self._security = security
        self._clock = SystemClock()
        self._kept = ""
        self._good_until_ms = 0.0

    async def token(self) -> str:
        """Return a token that is good for a while.

        Raises:
            TokenUnavailable: there is none; the message says why.
        """
        security = self._security
        if security.sasl_oauth_token_provider is None:
            try:
                secret = read_secret(security.sasl_oauth_token, security.sasl_oauth_token_file)
            except OSError as error:
                raise TokenUnavailable(f"no OAUTHBEARER token: {error}") from error
            assert secret is not None
            return self._current(secret)
        if self._kept and self._clock.now_ms() < self._good_until_ms:
            return self._kept
        token = self._current(await self._provided(security.sasl_oauth_token_provider))
        margin_ms = security.oauth_refresh_margin_s * 1000
        self._kept, self._good_until_ms = token, (expiry_ms(token) or 0) - margin_ms
        return token

    def _current(self, secret: Secret) -> str:
        """Return a token's text, if it is one and has not ended.

        Looked at here, since aiokafka takes no notice of the broker's answer to a token: it goes on
        as if it were let in, and meets a connection that closes.
        """
        token = secret.reveal()
        if not _TOKEN.fullmatch(token):
            raise TokenUnavailable(
                "the OAUTHBEARER token has characters that no token has (RFC 6750)"
            )
        ended_ms = expiry_ms(token)
        if ended_ms is not None and ended_ms <= self._clock.now_ms():
            since_s = (self._clock.now_ms() - ended_ms) / 1000
            raise TokenUnavailable(f"the OAUTHBEARER token expired {since_s:.0f} s ago: renew it")
        return token

    async def _provided(self, provider: Callable[[], Any]) -> Secret:
        timeout_s = self._security.oauth_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                if inspect.iscoroutinefunction(provider):
                    given = await provider()
                else:  # it may block
                    given = await asyncio.to_thread(provider)
        except TimeoutError as error:
            raise TokenUnavailable(
                f"no OAUTHBEARER token: the provider took more than {timeout_s:g} s"
            ) from error
        except Exception as error:  # its text may quote the request, and with it a secret
            raise TokenUnavailable(
                f"no OAUTHBEARER token: the provider raised {type(error).__name__}"
            ) from error
        if isinstance(given, Secret):
            return given
        if not isinstance(given, str) or not given:
            raise TokenUnavailable("no OAUTHBEARER token: the provider returned no text")
        return Secret(given)


def expiry_ms(token: str) -> float | None:
    """Return when a JWT ends (RFC 7519's ``exp``, in ms); None for a token that does not say."""
    parts = token.split(".")
    if len(parts) != 3:  # noqa: PLR2004  header, claims, signature
        return None
    try:
        claims = msgspec.json.decode(
            base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        )
        return float(claims["exp"]) * 1000
    except (ValueError, KeyError, TypeError, binascii.Error):
        return None


@lru_cache(maxsize=16)
def credentials_of(security: Security) -> Credentials:
    """Return the one that all clients with these settings share."""
    return Credentials(security)
