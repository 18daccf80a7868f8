"""What the weight maps show: the clamp, queries that do not belong there, and cells where no query is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from aqr.analysis.findings import bands
from aqr.analysis.findings.finding import Check, Context, Finding
from aqr.analysis.formula import is_gated
from aqr.analysis.language import Listing, Message, text
from aqr.analysis.run import MAPS

_NAMES: Final[dict[str, Message]] = {"weight_map_bev": text("BEV map"), "weight_map_pers": text("image map")}
_TOLERANCE: Final = 1e-4
_PILE: Final = 4.0
"""A map maximum this many times the other map's is no longer explained by overlap of neighbours."""
_OVERLAP: Final = 4.0
"""A sum of weights that neighbouring queries on one cell may well reach."""
_NEAR_ZERO: Final = 0.2
"""Maps below this on average are near 0 on most cells."""
_SHARE: Final = 0.01


def clamp(context: Context) -> Iterator[Finding]:
    """Maps above the clamp, or standing at it."""
    run = context.run
    limit = run.number("max_weight_clamp")
    snapshots = [one for one in run.snapshots if one.settings.get("max_weight_clamp", limit) == limit]
    if not snapshots or limit is None:
        return
    highs = {group: np.concatenate([one.values(group, "max") for one in snapshots]) for group in MAPS}
    highs = {group: values for group, values in highs.items() if len(values)}
    above = {group: int((values > limit * (1 + _TOLERANCE)).sum()) for group, values in highs.items()}
    if any(above.values()):
        yield Finding(
            "maps.clamp-not-applied",
            "critical",
            text("The clamp is not applied"),
            text(
                "max_weight_clamp is {limit:g}, but maxima reach {listed}.",
                limit=limit,
                listed=Listing(
                    tuple(
                        text("{top:.3f} in the {map}", top=float(values.max()), map=_NAMES[group])
                        for group, values in highs.items()
                        if above[group]
                    )
                ),
            ),
            {
                "max_weight_clamp": limit,
                "largest": {group: float(values.max()) for group, values in highs.items()},
                "snapshots_above": above,
                "snapshots": {group: len(values) for group, values in highs.items()},
            },
            bands.DEFINITION,
            run.name,
        )
        return
    at = {group: int((values >= limit * (1 - _TOLERANCE)).sum()) for group, values in highs.items()}
    if not any(at.values()):
        return
    shares = {group: np.concatenate([one.values(group, "clamped_share") for one in snapshots]) for group in MAPS}
    largest = max((float(values.max()) for values in shares.values() if len(values)), default=None)
    always = any(at[group] == len(values) for group, values in highs.items())
    yield Finding(
        "maps.at-clamp",
        "warning" if always and (largest is None or largest > _SHARE) else "info",
        text("Weight maps stand at the clamp"),
        text(
            "Maximum at {limit:g}: {listed}. {share}",
            limit=limit,
            listed=Listing(
                tuple(
                    text("{map} in {at} of {count} snapshots", map=_NAMES[group], at=at[group], count=len(values))
                    for group, values in highs.items()
                )
            ),
            share=text("At most {share:.2f} % of the cells stand there.", share=100 * largest)
            if largest is not None
            else text(
                "How many cells stand there is not logged; invisible queries that are all drawn at one cell would "
                "look the same, hidden by the clamp."
            ),
        ),
        {
            "max_weight_clamp": limit,
            "snapshots_at_clamp": at,
            "snapshots": {group: len(values) for group, values in highs.items()},
            "clamped_share_max": largest,
        },
        bands.ARITHMETIC,
        run.name,
    )


def pile_up(context: Context) -> Iterator[Finding]:
    """A map maximum far above the other map's, or the clamp's: queries that no camera sees land on one cell."""
    run = context.run
    if not run.snapshots:
        return
    pers = np.concatenate([one.values("weight_map_pers", "max") for one in run.snapshots])
    bev = np.concatenate([one.values("weight_map_bev", "max") for one in run.snapshots])
    limit = run.number("max_weight_clamp")
    if not len(pers) or not len(bev):
        return
    top, other = float(np.median(pers)), float(np.median(bev))
    if limit is not None and top <= limit * (1 + _TOLERANCE):
        return
    least = _PILE * (other if limit is None else min(other, limit))
    if top <= least or (limit is None and top <= _OVERLAP):
        return
    yield Finding(
        "maps.invisible-queries-pile-up",
        "critical",
        text("Invisible queries pile up in the image map"),
        text(
            "The maximum of the image map is {pers:.1f} (median over snapshots), that of the BEV map {bev:.1f}. "
            "Queries that no camera sees, all drawn at one cell, look like this; they must touch no cell.",
            pers=top,
            bev=other,
        ),
        {
            "image_map_max_median": top,
            "bev_map_max_median": other,
            "max_weight_clamp": limit,
        },
        bands.HABIT,
        run.name,
    )


def denoising(context: Context) -> Iterator[Finding]:
    """More weights than queries, or a number of weights that varies: noised ground truth is in the maps."""
    run = context.run
    counts = sorted({count for one in run.snapshots for count in one.queries})
    stated = run.number("num_query")
    if not counts or (stated is not None and counts[-1] <= stated) or (stated is None and len(counts) == 1):
        return
    surplus = counts[-1] - (int(stated) if stated is not None else counts[0])
    yield Finding(
        "queries.denoising-in-maps",
        "critical",
        text("Denoising queries are in the weight maps"),
        text(
            "{low} to {high} weights per sample are counted, {own}. Denoising queries sit on noised ground truth: "
            "rendering them writes the answer into the features, and at inference they are gone.",
            low=counts[0],
            high=counts[-1],
            own=text("but the detector has {stated:.0f} queries", stated=stated)
            if stated is not None
            else text(
                "a number that varies from batch to batch, while learned queries are fixed: at least {surplus} of them "
                "are denoising queries",
                surplus=surplus,
            ),
        ),
        {"weights_per_sample": [counts[0], counts[-1]], "num_query": stated, "at_least_denoising": surplus},
        bands.DEFINITION,
        run.name,
    )


def background(context: Context) -> Iterator[Finding]:
    """Maps that are 0 where no query is scale everything else down from the first step."""
    run = context.run
    residual = run.number("residual_weight")
    if not run.snapshots or residual is None or run.text("parameterisation") == "centered":
        return
    if is_gated(run):
        return
    last = run.snapshots[-1]
    means = {group: last.mean(group, "mean") for group in MAPS}
    low = [value for value in means.values() if value is not None]
    if not low or max(low) > _NEAR_ZERO:
        return
    yield Finding(
        "maps.background-damped",
        "warning",
        text("Where no query is, features are scaled down"),
        text(
            "The maps are {bev} (BEV) and {pers} (images) on average, near 0 on most cells, where features are "
            "multiplied by {residual:g} from the first step on.",
            bev=_shown(means["weight_map_bev"]),
            pers=_shown(means["weight_map_pers"]),
            residual=residual,
        ),
        {
            "map_means": {group: None if value is None else round(value, 6) for group, value in means.items()},
            "residual_weight": residual,
        },
        bands.DEFINITION,
        run.name,
    )


def _shown(value: float | None) -> str | Message:
    return text("unknown") if value is None else f"{value:.3f}"


CHECKS: Final[tuple[Check, ...]] = (clamp, pile_up, denoising, background)
