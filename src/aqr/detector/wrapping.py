"""What makes of a function of tensors its compiled form, or leaves it as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]


def as_it_is(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function itself: nothing is compiled."""
    return function
