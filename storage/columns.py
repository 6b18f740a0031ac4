"""Column types, text that every database accepts, and the database's clock: the same on SQLite and Postgres."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sqlalchemy import JSON, BigInteger, Double, Enum, Integer, LargeBinary, Text, TypeDecorator
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

BigId = BigInteger().with_variant(Integer, "sqlite")
Json = JSON().with_variant(JSONB, "postgresql")
Epoch: Double[float] = Double()


def state_column(states: type[StrEnum]) -> Enum:
    """A state, stored as its lower-case name so that it can be read in SQL."""
    return Enum(states, native_enum=False, length=16, values_callable=lambda enum: [str(e) for e in enum])


class db_now(FunctionElement[float]):  # noqa: N801 - reads as the SQL function it is
    """Seconds since 1970 by the database's clock, because the clocks of hosts differ."""

    type = Double()
    inherit_cache = True


@compiles(db_now, "sqlite")
def _now_sqlite(element: db_now, compiler: Any, **kw: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(db_now, "postgresql")
def _now_postgresql(element: db_now, compiler: Any, **kw: Any) -> str:
    return "extract(epoch from clock_timestamp())::double precision"


class greatest(FunctionElement[float]):  # noqa: N801 - reads as the SQL function it is
    """The greatest of its arguments, which must not be NULL."""

    type = Double()
    inherit_cache = True


@compiles(greatest, "sqlite")
def _greatest_sqlite(element: greatest, compiler: Any, **kw: Any) -> str:
    return f"max({compiler.process(element.clauses, **kw)})"


@compiles(greatest, "postgresql")
def _greatest_postgresql(element: greatest, compiler: Any, **kw: Any) -> str:
    return f"greatest({compiler.process(element.clauses, **kw)})"


def safe_text(text: str) -> str:
    """Replace what Postgres rejects: NUL by U+2400, and lone surrogates by U+FFFD."""
    text = text.replace("\x00", "\u2400")
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def safe_json(value: Any) -> str:
    """Encode JSON whose strings every database accepts (see `safe_text`)."""
    return json.dumps(_safe(value), ensure_ascii=False)


def _safe(value: Any) -> Any:
    if isinstance(value, str):
        return safe_text(value)
    if isinstance(value, Mapping):
        return {_safe(key): _safe(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_safe(item) for item in value]
    return value


def row_of(value: DataclassInstance) -> dict[str, Any]:
    """The fields of a dataclass by name, not copied, as the values of an INSERT."""
    return {field.name: getattr(value, field.name) for field in fields(value)}


class SafeText(TypeDecorator[str]):
    """Text that is stored as `safe_text` returns it."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else safe_text(value)


class TokenIds(TypeDecorator[Sequence[int]]):
    """Token ids as little-endian unsigned 32-bit integers, four bytes each."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: Sequence[int] | None, dialect: Dialect) -> bytes | None:
        return None if value is None else struct.pack(f"<{len(value)}I", *value)

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> tuple[int, ...] | None:
        return None if value is None else struct.unpack(f"<{len(value) // 4}I", value)
