"""Bytes of keys and values, both ways, for tables and topics alike.

Keys must be *stable*: equal keys give equal bytes in every process and every version, because the
changelog is compacted by them and partitions are chosen by them. So ``str`` is UTF-8, ``int`` is
its decimal text, ``bytes`` is itself, a Struct (or tuple) is a MessagePack array, and a key of no
declared type is MessagePack, which keeps its type.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_SIGN_FLIP = 1 << 63
TIME_BYTES = 8
KEY_DEPTH = 100
"""So deep may keys of no declared type be nested: as values may, :mod:`engine.contracts.limits`."""


class Codec(Generic[T]):
    """A pair of plain functions, looked up once: ``encode(value) -> bytes`` and its inverse.

    ``decode`` raises :class:`ValueError` (of which msgspec's errors are kinds) for foreign bytes.
    """

    __slots__ = ("decode", "encode")

    def __init__(self, encode: Callable[[T], bytes], decode: Callable[[bytes], T]) -> None:
        self.encode = encode
        self.decode = decode


def _encode_bytes(key: bytes) -> bytes:
    return key


def _decode_int(raw: bytes) -> int:
    return int(raw.decode("ascii"))


def _encode_int(key: int) -> bytes:
    return b"%d" % key


_encode_any = msgspec.msgpack.Encoder().encode
_decode_any = msgspec.msgpack.Decoder().decode
_STR: Codec[str] = Codec(str.encode, bytes.decode)
_INT: Codec[int] = Codec(_encode_int, _decode_int)
_BYTES: Codec[bytes] = Codec(_encode_bytes, _encode_bytes)


def _encode_text(key: str | int | bytes) -> bytes:
    if type(key) is str:
        return key.encode()
    if type(key) is bytes:
        return key
    if isinstance(key, int):
        return b"%d" % key
    raise TypeError(f"a key must be text, a number or bytes here, not {type(key).__name__}")


def _encode_raw(key: Any) -> bytes:
    return _encode_text(key) if isinstance(key, str | int | bytes) else _encode_any(key)


TEXT_KEYS: Codec[Any] = Codec(_encode_text, bytes.decode)
"""For keys whose type nobody has declared, in bytes that others use too; they come back as text."""

RAW_KEYS: Codec[Any] = Codec(_encode_raw, _encode_bytes)
"""The same bytes, and they come back as bytes: what Faust does for a topic without a key type."""


def key_codec(key_type: Any = None) -> Codec[Any]:
    """Return the codec for keys of ``key_type`` (str, int, bytes, Struct, tuple, or None: any).

    A key of no declared type that was a tuple is a tuple again, at all depths; one that is nested
    more than ``KEY_DEPTH`` deep is a ValueError.
    """
    if key_type is str:
        return _STR
    if key_type is int:
        return _INT
    if key_type is bytes:
        return _BYTES
    if key_type is None or key_type is Any:
        return Codec(msgspec.msgpack.Encoder().encode, _decode_any_key)
    return value_codec(key_type)


def _decode_any_key(raw: bytes) -> Any:
    return _hashable(_decode_any(raw))


def _hashable(key: Any, room: int = KEY_DEPTH) -> Any:
    if type(key) is not list:
        return key
    if not room:
        raise ValueError(f"a key is nested more than {KEY_DEPTH} deep")
    return tuple([_hashable(each, room - 1) for each in key])


def value_codec(value_type: Any = None) -> Codec[Any]:
    """Return the MessagePack codec for ``value_type``; None means plain Python values."""
    if value_type is None or value_type is Any:
        return Codec(msgspec.msgpack.Encoder().encode, _decode_any)
    return Codec(
        msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(value_type, strict=False).decode
    )


def encode_time(time_ms: int) -> bytes:
    """Return 8 bytes whose order is the order of time, also below zero."""
    return (time_ms + _SIGN_FLIP).to_bytes(TIME_BYTES, "big")


def decode_time(raw: bytes) -> int:
    """Return the time (ms) that the first 8 bytes hold."""
    return int.from_bytes(raw[:TIME_BYTES], "big") - _SIGN_FLIP
