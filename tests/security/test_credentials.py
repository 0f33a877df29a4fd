"""Tokens and certificates: where they come from, how long they are kept, what is said without."""

import ssl
from pathlib import Path
from typing import Any

import pytest

from engine.config import make
from engine.kafka.client import options
from engine.kafka.credentials import Credentials, TokenUnavailable
from engine.security import Secret
from tests.security.conftest import jwt


def tokens(**given: Any) -> Any:
    security = {"security_protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER", **given}
    return Credentials(make({"id": "app", "security": security}, {}).security).tokens


async def test_a_providers_token_is_kept_until_shortly_before_its_end() -> None:
    """Every connection asks for one; the provider is asked when it is time."""
    given: list[str] = []

    def provider() -> str:
        given.append(jwt(lifetimes.pop(0)))
        return given[-1]

    lifetimes = [40, 20, 3600]
    source = tokens(sasl_oauth_token_provider=provider, oauth_refresh_margin_s=30)
    assert await source.token() == given[0]
    assert await source.token() == given[0]  # 40 s to go
    early = tokens(sasl_oauth_token_provider=provider, oauth_refresh_margin_s=30)
    assert await early.token() == given[1]
    assert await early.token() == given[2]  # 20 s to go: too few
    assert await early.token() == given[2]
    assert len(given) == 3


async def test_a_token_that_does_not_say_when_it_ends_is_asked_for_each_time() -> None:
    """As is one in a file: what is there now counts."""
    given: list[str] = []

    async def provider() -> Secret:
        given.append(f"opaque-{len(given)}")
        return Secret(given[-1])

    source = tokens(sasl_oauth_token_provider=provider)
    assert [await source.token(), await source.token()] == ["opaque-0", "opaque-1"]


async def test_a_tokens_file_is_read_each_time(tmp_path: Path) -> None:
    """And a missing or empty one is told by its name."""
    path = tmp_path / "token"
    source = tokens(sasl_oauth_token_file=path)
    with pytest.raises(TokenUnavailable, match=r"no OAUTHBEARER token: .*/token"):
        await source.token()
    path.write_text("first\n")
    assert await source.token() == "first"
    path.write_text("second")
    assert await source.token() == "second"
    path.write_text("\n")
    with pytest.raises(TokenUnavailable, match="is empty where there should be a secret"):
        await source.token()


async def test_a_token_that_has_ended_is_not_sent(tmp_path: Path) -> None:
    """aiokafka would take no notice of the broker's refusal."""
    path = tmp_path / "token"
    path.write_text(jwt(-60))
    source = tokens(sasl_oauth_token_file=path)
    with pytest.raises(
        TokenUnavailable, match=r"the OAUTHBEARER token expired \d+ s ago: renew it"
    ):
        await source.token()
    path.write_text(jwt(60))
    assert await source.token() == path.read_text()


@pytest.mark.parametrize("bad", ["two words", "a\x01auth=Bearer b", "a\nb", "ä"])
async def test_a_token_cannot_end_the_message_early(bad: str) -> None:
    """It goes into a message with fields of its own."""
    with pytest.raises(TokenUnavailable, match="characters that no token has") as caught:
        await tokens(sasl_oauth_token=bad).token()
    assert bad not in str(caught.value)


@pytest.mark.parametrize("nothing", [None, "", 7])
async def test_a_provider_that_returns_none_is_told_so(nothing: Any) -> None:
    """In a sentence."""
    with pytest.raises(TokenUnavailable, match="the provider returned no text"):
        await tokens(sasl_oauth_token_provider=lambda: nothing).token()


def test_tls_is_checked_and_recent() -> None:
    """Only the check of the name can be turned off."""
    for check in (True, False):
        given = {"security_protocol": "SSL", "ssl_check_hostname": check}
        context = Credentials(make({"id": "app", "security": given}, {}).security).context()
        assert context is not None
        assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.check_hostname is check


def test_what_aiokafka_is_given_at_first_connects_nowhere() -> None:
    """A client that was not made by ours would have no secret, and trust nobody."""
    given = {"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN", "sasl_username": "alice",
             "sasl_password": "canary-pl4ceholder"}  # fmt: skip
    settings = options(make({"id": "app", "security": given}, {}), "role")
    assert "canary" not in repr(settings)
    assert settings["ssl_context"].get_ca_certs() == []
    assert settings["ssl_context"].verify_mode is ssl.CERT_REQUIRED
