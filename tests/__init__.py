"""The tests; they mirror the packages, and run in private namespaces (tests/run-in-namespaces)."""

from __future__ import annotations
