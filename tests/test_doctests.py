"""The examples in docstrings, run."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize("module", ["aqr.modulation.aqr", "aqr.modulation.modulate"])
def test_examples_run(module: str) -> None:
    result = doctest.testmod(importlib.import_module(module))
    assert result.attempted > 0
    assert result.failed == 0
