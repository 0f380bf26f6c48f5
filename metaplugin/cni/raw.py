"""JSON as it came: objects are kept and passed on whole, typed views stand beside them."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from metaplugin.cni.errors import DecodingFailure, InvalidNetworkConfig

JSONObject = dict[str, Any]

_BRACKETS = re.compile(rb'[][{}]|"(?:[^"\\]|\\.)*"?', re.DOTALL)
MAX_DEPTH = 400  # far below where Python's recursion ends, so that what is read can be written


def load_object(data: bytes, *, what: str, max_depth: int = MAX_DEPTH) -> JSONObject:
    """Return the JSON object in `data`; `what` names it in errors.

    Raise DecodingFailure (code 6) for anything that isn't JSON in UTF-8, or can't be passed on as
    it is: NaN, numbers beyond a double or beyond 4300 digits, nesting over `max_depth`. Raise
    InvalidNetworkConfig (code 7) for JSON that is no object.
    """
    value = load_value(data, what=what, max_depth=max_depth)
    if not isinstance(value, dict):
        raise InvalidNetworkConfig(f"{what}: must be a JSON object, is {_kind(value)}")
    return value


def load_value(data: bytes, *, what: str, max_depth: int = MAX_DEPTH) -> Any:
    """Return the JSON value in `data`; raise DecodingFailure as load_object does."""
    if not data.strip():
        raise DecodingFailure(f"{what}: empty, where JSON was expected")
    if _is_deeper(data, max_depth):
        raise DecodingFailure(f"{what}: nested too deeply, over {max_depth} levels")
    try:
        return json.loads(data.decode(), parse_constant=_refuse_constant, parse_float=_finite_float)
    except UnicodeDecodeError as exc:
        raise DecodingFailure(f"{what}: byte {exc.start} is not UTF-8") from exc
    except ValueError as exc:
        raise DecodingFailure(f"{what}: no JSON: {exc}") from exc


def dump(value: Any) -> bytes:
    """Return compact JSON in ASCII, which also carries text that UTF-8 can't (lone surrogates)."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def _is_deeper(data: bytes, limit: int) -> bool:
    """Say whether objects and lists are nested over `limit`; texts are left out of account."""
    if data.count(b"[") + data.count(b"{") <= limit:
        return False
    depth = 0
    for token in _BRACKETS.finditer(data):
        if token[0] in b"[{":
            depth += 1
        elif token[0] in b"]}":
            depth -= 1
        if depth > limit:
            return True
    return False


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
