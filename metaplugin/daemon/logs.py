"""Structured logs: one line an event, `key=value`, with the fields of the request that it belongs
to."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType

_bound: ContextVar[Mapping[str, str]] = ContextVar("request_fields", default=MappingProxyType({}))

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


@contextmanager
def bound(**fields: str) -> Iterator[None]:
    """Add fields to every log line of the block, and of tasks that it starts; empty ones are left
    out."""
    token = _bound.set({**_bound.get(), **{k: v for k, v in fields.items() if v}})
    try:
        yield
    finally:
        _bound.reset(token)


class KeyValueFormatter(logging.Formatter):
    """`time=… level=… msg="…" key=value …`; values that hold blanks or quotes are quoted as in
    JSON."""

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        fields: dict[str, object] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "msg": record.getMessage(),
            **_bound.get(),
            **{key: value for key, value in vars(record).items() if key not in _STANDARD},
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return " ".join(f"{key}={_quoted(str(value))}" for key, value in fields.items())


def _quoted(value: str) -> str:
    plain = value and value.isprintable() and not set(value) & set(' "=')
    return value if plain else json.dumps(value)


def set_up_logging(level: str) -> None:
    """Log to standard error, from `level` on."""
    handler = logging.StreamHandler()
    handler.setFormatter(KeyValueFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for chatty in ("asyncio", "pyroute2", "urllib3", "kubernetes"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
