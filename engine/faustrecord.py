"""``faust.Record`` as a contract."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from faust.models.base import Model

from engine import faustnames
from engine.contracts.contract import Contract

if TYPE_CHECKING:
    from collections.abc import Callable


def contract_of(name: str, value_type: Any, key_type: Any, *, compacted: bool) -> Contract:
    """Return the contract of a type: a Struct, a ``faust.Record``, or a plain one."""
    if isinstance(value_type, type) and issubclass(value_type, Model):
        faustnames.check_serializer(value_type._options.serializer, value_type.__name__)
        decode, encode = _record_functions(value_type)
        return Contract(
            name=name, value_type=value_type, key_type=key_type, decode=decode, encode=encode,
            null_values=compacted,
        )  # fmt: skip
    return Contract.of(name, value_type, key_type=key_type, null_values=compacted)


def _record_functions(model: Any) -> tuple[Callable[[bytes], Any], Callable[[Any], bytes]]:
    """Return (decode, encode) for a ``faust.Record``, as Faust's JSON codec has them."""
    parse = msgspec.json.Decoder().decode

    def decode(raw: bytes) -> Any:
        data = parse(raw)
        if not isinstance(data, dict):
            raise TypeError("Expected `object`")
        try:
            return model.from_data(data, preferred_type=model)
        except Exception as error:  # a field's own conversion may raise anything
            raise ValueError(f"not a {model.__name__}") from error

    def encode(record: Any) -> bytes:
        return msgspec.json.encode(record.to_representation())

    return decode, encode
