"""Errors with the specification's codes (CNI section 5), written for who reads the pod's events."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, ClassVar


class ErrorCode(IntEnum):
    """The codes that the specification reserves and we use; from 100 on they are a plugin's own."""

    INCOMPATIBLE_VERSION = 1
    UNSUPPORTED_FIELD = 2
    UNKNOWN_CONTAINER = 3
    INVALID_ENVIRONMENT = 4
    IO_FAILURE = 5
    DECODING_FAILURE = 6
    INVALID_NETWORK_CONFIG = 7
    TRY_AGAIN_LATER = 11
    PLUGIN_NOT_AVAILABLE = 50
    LIMITED_CONNECTIVITY = 51


DELEGATE_FAILED = 100  # ours: a delegate failed without saying why in the way of the specification


class CNIError(Exception):
    """A failure that the runtime is told: `code`, `msg` and `details` of the error object."""

    CODE: ClassVar[int] = 0

    def __init__(self, msg: str, *, details: str = "") -> None:
        # What others sent may be in it, also half a surrogate pair, which no log could take.
        self.msg = msg.encode(errors="replace").decode()
        super().__init__(self.msg)
        self.code = int(self.CODE)
        self.details = details

    def to_json(self, cni_version: str) -> dict[str, Any]:
        """Return the error object for standard output."""
        error: dict[str, Any] = {"cniVersion": cni_version, "code": self.code, "msg": self.msg}
        return error | ({"details": self.details} if self.details else {})


class IncompatibleVersion(CNIError):
    CODE = ErrorCode.INCOMPATIBLE_VERSION


class UnknownContainer(CNIError):
    CODE = ErrorCode.UNKNOWN_CONTAINER


class InvalidEnvironment(CNIError):
    CODE = ErrorCode.INVALID_ENVIRONMENT


class IOFailure(CNIError):
    CODE = ErrorCode.IO_FAILURE


class DecodingFailure(CNIError):
    CODE = ErrorCode.DECODING_FAILURE


class InvalidNetworkConfig(CNIError):
    CODE = ErrorCode.INVALID_NETWORK_CONFIG


class NetworkNotFound(InvalidNetworkConfig):
    """A network that a pod selects isn't there."""


class TryAgainLater(CNIError):
    CODE = ErrorCode.TRY_AGAIN_LATER


class ClusterAway(TryAgainLater):
    """The cluster could not be asked; what it last said may serve."""


class PluginNotAvailable(CNIError):
    CODE = ErrorCode.PLUGIN_NOT_AVAILABLE


class DelegateError(CNIError):
    """An error whose code is a delegate's own, unchanged, or one from 100 on."""

    def __init__(self, msg: str, *, code: int, details: str = "") -> None:
        super().__init__(msg, details=details)
        self.code = code


class ReportedError(DelegateError):
    """What a delegate itself said is wrong, in the specification's form."""


def join_errors(errors: Sequence[CNIError]) -> CNIError:
    """Return one error that tells all of them, with the first one's code; `errors` isn't empty."""
    first, *others = errors
    if not others:
        return first
    details = "; ".join(error.details for error in errors if error.details)
    message = "; ".join(error.msg for error in errors)
    return DelegateError(f"{len(errors)} failures: {message}", code=first.code, details=details)
