"""What the tests of training share."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def toy_objectives() -> Iterator[None]:
    """Register the objectives of ``toy_objectives.py`` for the duration of a test."""
    spec = importlib.util.spec_from_file_location("toy_objectives", Path(__file__).with_name("toy_objectives.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with module.registered():
        yield
