"""What the demo claims, and what it does when a claim doesn't hold."""

from __future__ import annotations

from dataclasses import dataclass


class NotSoError(Exception):
    """Something that the demo shows isn't so; the text says what, for a person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A claim that was looked into; `problem` is empty when it holds."""

    claim: str
    problem: str = ""


def compared(claim: str, *, expected: object, actual: object) -> Finding:
    """Return a finding that holds when both are equal."""
    problem = "" if expected == actual else f"expected {expected}, found {actual}"
    return Finding(claim=claim, problem=problem)
