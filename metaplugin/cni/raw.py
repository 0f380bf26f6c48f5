"""JSON as it came: objects are kept and passed on whole, typed views stand beside them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

from metaplugin.cni.errors import DecodingFailure, InvalidNetworkConfig

JSONObject = dict[str, Any]

# Lists and objects in each other. What has been read must be writable wherever it is written, which
# takes a stack as deep; and a record, which nests it in objects of ours, must be readable again.
MAX_NESTING = 200
RECORD_NESTING = MAX_NESTING + 20

_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


def load_object(data: bytes, *, what: str, nesting: int = MAX_NESTING) -> JSONObject:
    """Return the JSON object in `data`; `what` names it in errors.

    Raise DecodingFailure (code 6) for anything that isn't JSON in UTF-8, or can't be passed on as
    it is: NaN, numbers beyond a double or beyond 4300 digits, more than `nesting` levels. Raise
    InvalidNetworkConfig (code 7) for JSON that is no object.
    """
    value = load_value(data, what=what, nesting=nesting)
    if not isinstance(value, dict):
        raise InvalidNetworkConfig(f"{what}: must be a JSON object, is {_kind(value)}")
    return value


def load_value(data: bytes, *, what: str, nesting: int = MAX_NESTING) -> Any:
    """Return the JSON value in `data`; raise DecodingFailure as load_object does."""
    if not data.strip():
        raise DecodingFailure(f"{what}: empty, where JSON was expected")
    try:
        value = json.loads(
            data.decode(), parse_constant=_refuse_constant, parse_float=_finite_float
        )
    except UnicodeDecodeError as exc:
        raise DecodingFailure(f"{what}: byte {exc.start} is not UTF-8") from exc
    except RecursionError as exc:
        raise DecodingFailure(
            f"{what}: nested too deeply, at most {nesting} levels are allowed"
        ) from exc
    except ValueError as exc:
        raise DecodingFailure(f"{what}: no JSON: {exc}") from exc
    # The brackets bound the depth; few texts have so many.
    if data.count(b"[") + data.count(b"{") > nesting and _is_deeper(value, nesting):
        raise DecodingFailure(f"{what}: nested too deeply, at most {nesting} levels are allowed")
    return value


def dump(value: Any) -> bytes:
    """Return compact JSON in ASCII, which also carries text that UTF-8 can't (lone surrogates)."""
    return _ENCODER.encode(value).encode()


def _is_deeper(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit + 1):
        level = [item for item in level if isinstance(item, dict | list)]
        if not level:
            return False
        level = [inner for item in level for inner in _inside(item)]
    return True


def _inside(item: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return item.values() if isinstance(item, dict) else item


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _finite_float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"the number {text[:40]} is too large")
    return value


def _kind(value: Any) -> str:
    names = {list: "a list", str: "text", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "null")
