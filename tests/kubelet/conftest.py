"""A kubelet for each test, in a folder whose name is short: a socket's path has 107 bytes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kubelet.asking import Asking, asking_of
from tests.kubelet.podresources import FakeKubelet


@pytest.fixture
def kubelet() -> Iterator[FakeKubelet]:
    """A kubelet that serves."""
    with tempfile.TemporaryDirectory() as folder, FakeKubelet(Path(folder)) as serving:
        yield serving


@pytest.fixture
def asking(kubelet: FakeKubelet) -> Iterator[Asking]:
    with asking_of(kubelet) as connection:
        yield connection
