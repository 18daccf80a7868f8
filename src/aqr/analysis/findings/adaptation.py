"""What moved clamp and residual while training, and whether the band was held."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from aqr.analysis.findings import bands
from aqr.analysis.findings.finding import Check, Context, Finding
from aqr.analysis.language import text

_NAMES: Final = ("max_weight_clamp", "residual_weight")


def moved(context: Context) -> Iterator[Finding]:
    """From where to where the settings went, and how often they turned around."""
    snapshots = [one for one in context.run.snapshots if one.settings]
    if not snapshots:
        return
    paths = {name: np.array([one.settings[name] for one in snapshots]) for name in _NAMES}
    turns = {name: _turns(path) for name, path in paths.items()}
    clamp, residual = paths["max_weight_clamp"], paths["residual_weight"]
    changes = [one.mean("modulation_pers", "relative_change") for one in snapshots[len(snapshots) // 2 :]]
    known = np.array([change for change in changes if change is not None])
    low, high = bands.CAMERA_CHANGE
    yield Finding(
        "adaptation.moved",
        "info",
        text("Clamp and residual moved while training"),
        text(
            "max_weight_clamp went from {c0:.3g} to {c1:.3g}, residual_weight from {r0:.3g} to {r1:.3g}, and they "
            "turned around {turns} times; image features changed by {mean:.1f} % on average in the second half of the "
            "snapshots. Forecasts start from the last settings.",
            c0=float(clamp[0]),
            c1=float(clamp[-1]),
            r0=float(residual[0]),
            r1=float(residual[-1]),
            turns=sum(turns.values()),
            mean=100 * float(known.mean()) if len(known) else 0.0,
        ),
        {
            "first": {name: float(path[0]) for name, path in paths.items()},
            "last": {name: float(path[-1]) for name, path in paths.items()},
            "turns": turns,
            "relative_change_second_half": float(known.mean()) if len(known) else None,
            "share_in_seed_band": float(((known >= low) & (known <= high)).mean()) if len(known) else None,
        },
        bands.ARITHMETIC,
        context.run.name,
    )


def out_of_reach(context: Context) -> Iterator[Finding]:
    """The controller gave up."""
    stopped = [one for one in context.run.snapshots if one.stopped]
    if not stopped:
        return
    first = stopped[0]
    change = first.mean("modulation_pers", "relative_change")
    yield Finding(
        "adaptation.band-out-of-reach",
        "warning",
        text("The controller could not reach its band"),
        text(
            "It stopped at forward {forward} with image features changing by {change:.1f} %; both settings stood at "
            "the ends of their ranges. Widen the ranges or the band.",
            forward=first.forward,
            change=100 * (change or 0.0),
        ),
        {"forward": first.forward, "relative_change": change, "settings": dict(first.settings)},
        bands.DEFINITION,
        context.run.name,
    )


def _turns(path: np.ndarray) -> int:
    moves = np.diff(path)
    moves = moves[np.abs(moves) > 1e-9]
    return int((np.diff(np.sign(moves)) != 0).sum())


CHECKS: Final[tuple[Check, ...]] = (out_of_reach, moved)
