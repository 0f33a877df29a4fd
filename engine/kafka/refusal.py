"""Why a broker that is there does not let us in, in a sentence."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from aiokafka.errors import (
    IllegalSaslStateError,
    KafkaConnectionError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)

from engine.kafka.credentials import TokenUnavailable

if TYPE_CHECKING:
    from engine.security import Security

_UNTRUSTED = {
    9: "the broker's certificate is not valid yet",
    10: "the broker's certificate has expired",
    18: "the broker's certificate is self-signed: ssl_cafile does not have it",
    19: "the broker's certificate is signed by a CA that ssl_cafile does not have",
    20: "the broker's certificate is signed by a CA that ssl_cafile does not have",
    62: "the broker's certificate is for another name than the one we connect to",
    64: "the broker's certificate is for another address than the one we connect to",
}
"""By OpenSSL's verification codes (x509_vfy.h)."""


def refusal(security: Security, error: BaseException) -> str:
    """Return what keeps us out, or nothing where it is only that nobody answers."""
    text = ""
    match error:
        case TokenUnavailable():
            text = str(error)
        case SaslAuthenticationFailed() if security.sasl_mechanism == "OAUTHBEARER":
            text = "it refuses the OAUTHBEARER token (expired, or for another service?)"
        case SaslAuthenticationFailed():
            text = (
                f"it refuses the credentials of {security.sasl_username} "
                f"({security.sasl_mechanism}): check sasl_username and sasl_password"
            )
        case IllegalSaslStateError():
            text = f"it knows no SASL there: check security_protocol {security.security_protocol}"
        case UnsupportedSaslMechanismError():
            text = f"it has no sasl_mechanism {security.sasl_mechanism}"
        case ssl.SSLCertVerificationError():
            known = _UNTRUSTED.get(error.verify_code)
            text = f"{known} ({error.verify_message})" if known else error.verify_message
        case ssl.SSLError():
            text = _no_tls(error)
        case OSError() if error.filename:
            text = f"{error.filename}: {error.strerror}"
        case KafkaConnectionError() | ConnectionResetError():
            text = _closed(security, error)
    return text


def _no_tls(error: ssl.SSLError) -> str:
    reason = (error.reason or str(error)).lower().replace("_", " ")
    if "alert" in reason:
        return f"it refuses our certificate ({reason}): check ssl_certfile and ssl_keyfile"
    return f"TLS fails ({reason}): is that a TLS listener? Check security_protocol"


def _closed(security: Security, error: BaseException) -> str:
    """Explain a connection that was made and then closed by the other side."""
    cause = error.__cause__
    if isinstance(cause, ssl.SSLError):
        return _no_tls(cause)
    if isinstance(error, ConnectionResetError):
        wanted = "is that a TLS listener? Check security_protocol"
    elif cause is None and "closed" not in str(error):
        return ""
    elif not security.encrypted:
        wanted = "it may want TLS or SASL. Check security_protocol"
    elif security.ssl_certfile is None:
        wanted = "it may want a certificate of ours. Give ssl_certfile and ssl_keyfile"
    else:
        wanted = f"has {security.ssl_certfile} expired, or is its CA not the broker's?"
    return f"it closes the connection: {wanted}"
