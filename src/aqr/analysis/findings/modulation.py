"""How strongly features are changed, by which formula, and what sets it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from aqr.analysis.findings import bands
from aqr.analysis.findings.finding import Check, Context, Finding
from aqr.analysis.formula import applied_factor, form_of, largest_factor
from aqr.analysis.language import text
from aqr.analysis.whatif import anchors_of


def camera_band(context: Context) -> Iterator[Finding]:
    """relative_change of the image features against the wanted band, which holds for `sigmoid` maps without a gate."""
    run = context.run
    if not run.snapshots:
        return
    last = run.snapshots[-1]
    change = last.mean("modulation_pers", "relative_change")
    if change is None:
        return
    spread = last.rank_std("modulation_pers", "relative_change")
    low, high = bands.CAMERA_CHANGE
    evidence = {"forward": last.forward, "relative_change": round(change, 6), "rank_std": spread, "band": [low, high]}
    shown = text("{change:.1f} %", change=100 * change)
    gated = "gate" in run.settings and bool(run.settings["gate"].value)
    if run.text("parameterisation") == "centered" or gated:
        yield Finding(
            "modulation.strength",
            "info",
            text("Image features change by {shown}", shown=shown),
            text(
                "Mean over all ranks at forward {forward}. The band of 25–30 % was found with maps that are 0 where no "
                "query is and without a gate, so it is not applied to this run.",
                forward=last.forward,
            ),
            evidence,
            bands.SEED,
            run.name,
        )
        return
    if low <= change <= high:
        return
    above = change > high
    yield Finding(
        "modulation.camera-above-band" if above else "modulation.camera-below-band",
        "warning" if above else "info",
        text("Image features change by {shown}, above the band of 25–30 %", shown=shown)
        if above
        else text("Image features change by {shown}, below the band of 25–30 %", shown=shown),
        text(
            "relative_change of the image features at forward {forward}, mean over {ranks} ranks{spread}.",
            forward=last.forward,
            ranks=last.ranks,
            spread=text(", standard deviation between ranks {std:.2f} points", std=100 * spread)
            if spread is not None
            else "",
        ),
        evidence,
        bands.SEED,
        run.name,
    )


def residual_band(context: Context) -> Iterator[Finding]:
    residual = context.run.number("residual_weight")
    if residual is None or context.run.uses_aqr is False or residual >= bands.RESIDUAL[0]:
        return
    if context.run.text("parameterisation") == "centered":
        return
    yield Finding(
        "modulation.residual-below-band",
        "warning",
        text("residual_weight {residual:g} is below the band of 0.65–0.70", residual=residual),
        text(
            "Where a map is 0, features are scaled by {residual:g} from the first step on.",
            residual=residual,
        ),
        {
            "residual_weight": residual,
            "band": list(bands.RESIDUAL),
            "origin": context.run.settings["residual_weight"].origin,
        },
        bands.SEED,
        context.run.name,
    )


def residual_sets_it(context: Context) -> Iterator[Finding]:
    """Where the map is near 0 on most cells, the change is 1 − r there whatever the clamp."""
    run = context.run
    camera = anchors_of(run).get("camera")
    if camera is None or camera.mean is None or camera.spread is None or camera.parameterisation == "centered":
        return
    if camera.mean > 0.3:
        return
    lower = max(1.0, camera.clamp - 0.5)
    by_clamp = camera.forecast(lower, camera.residual)
    other = min(camera.residual + 0.1, 1.0)
    by_residual = camera.forecast(camera.clamp, other)
    yield Finding(
        "modulation.set-by-residual",
        "info",
        text("The residual sets the strength of the modulation, the clamp hardly moves it"),
        text(
            "The image map is {mean:.3f} on average, so most cells are near 0, where the change is 1 − residual. A clamp "
            "of {lower:g} instead of {clamp:g} takes at most {loss:.1f} points off the {change:.1f} %; a residual of "
            "{other:g} instead of {residual:g} takes {gain:.1f}.",
            mean=camera.mean,
            lower=lower,
            clamp=camera.clamp,
            loss=100 * (camera.forecast(camera.clamp, camera.residual).low - by_clamp.low),
            change=100 * camera.change,
            other=other,
            residual=camera.residual,
            gain=100 * (camera.change - by_residual.expected),
        ),
        {
            "relative_change": round(camera.change, 6),
            "map_mean": round(camera.mean, 6),
            "clamp_effect_at_most": round(camera.forecast(camera.clamp, camera.residual).low - by_clamp.low, 6),
            "residual_effect": round(camera.change - by_residual.expected, 6),
        },
        bands.ARITHMETIC,
        run.name,
    )


def formula_differs(context: Context) -> Iterator[Finding]:
    """The largest factor that the figures show, against the one that the formula r + (1 − r)·W allows."""
    run = context.run
    applied = applied_factor(run.snapshots)
    clamp, residual = run.number("max_weight_clamp"), run.number("residual_weight")
    if applied is None or clamp is None or residual is None:
        return
    factor, count, total = applied
    convex = largest_factor(clamp, residual)
    if factor <= convex * 1.001:
        return
    additive = largest_factor(clamp, residual, "additive")
    explained = form_of(run) == "additive" and abs(factor - additive) < 1e-3 * additive
    yield Finding(
        "modulation.formula-differs",
        "critical",
        text("Features were multiplied by up to {factor:.2f}, not {convex:.2f}", factor=factor, convex=convex),
        text(
            "In {count} of {total} debug blocks the largest output and the largest change are those of one feature that "
            "was multiplied by {factor:.4f}. The formula residual + (1 − residual)·W ends at {convex:.2f}{explained}",
            count=count,
            total=total,
            factor=factor,
            convex=convex,
            explained=text("; the code computes residual + W, which ends at {additive:.2f}.", additive=additive)
            if explained
            else ".",
        ),
        {
            "largest_factor": round(factor, 4),
            "formula_allows": round(convex, 4),
            "blocks": count,
            "blocks_in_all": total,
        },
        bands.ARITHMETIC,
        run.name,
    )


CHECKS: Final[tuple[Check, ...]] = (formula_differs, camera_band, residual_band, residual_sets_it)
