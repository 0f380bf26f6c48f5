"""JSON comes and goes whole, or is refused with a reason."""

from __future__ import annotations

import json

import pytest

from metaplugin.cni.errors import CNIError, DecodingFailure, InvalidNetworkConfig
from metaplugin.cni.raw import dump, load_object

UNDECODABLE = {
    "empty": b"",
    "blank": b" \n",
    "truncated": b'{"a": 1',
    "not utf-8": b'{"a": "\xff"}',
    "utf-16": '{"a": 1}'.encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf{}",
    "deep": b'{"a":' * 100_000,
    "deep list": b"[" * 100_000 + b"]" * 100_000,
    "deeper than a record can hold": b'{"a":' + b"[" * 200 + b"]" * 200 + b"}",
    "nan": b'{"a": NaN}',
    "infinite": b'{"a": 1e999}',
    "two": b"{} {}",
    "huge number": b'{"a": ' + b"1" * 5000 + b"}",
}


@pytest.mark.parametrize("data", UNDECODABLE.values(), ids=UNDECODABLE.keys())
def test_what_is_no_json_is_a_decoding_failure(data: bytes) -> None:
    """CNI-IN-1, CNI-IN-2, CNI-IN-5."""
    with pytest.raises(DecodingFailure, match="^input: ") as raised:
        load_object(data, what="input")
    assert raised.value.code == 6


@pytest.mark.parametrize("data", [b"[]", b'"a"', b"1", b"1.5", b"true", b"null"])
def test_json_that_is_no_object_is_refused(data: bytes) -> None:
    """CNI-IN-3."""
    with pytest.raises(InvalidNetworkConfig, match="must be a JSON object"):
        load_object(data, what="input")


@pytest.mark.parametrize(
    "value",
    [
        {"a": None, "b": [1, 2.5, True, "\u00e9\u2028\U0001f600"]},
        {"big": 10**400, "negative": -1, "exponent": 1e300},
        {"surrogate": "\ud800", "nul": "\0", "quote": '"\\'},
        {"deep": json.loads("[" * 199 + "]" * 199)},
    ],
)
def test_objects_come_back_unchanged(value: dict[str, object]) -> None:
    """CNI-DLG-4."""
    assert value == load_object(dump(value), what="input")


def test_the_error_object_has_the_specifications_keys() -> None:
    """CNI-ERR-1, CNI-ERR-2."""
    error: CNIError = DecodingFailure("bad", details="why")
    expected = {"cniVersion": "1.0.0", "code": 6, "msg": "bad", "details": "why"}
    assert expected == error.to_json("1.0.0")
