"""How strongly features are changed, by which formula, and what sets it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from aqr.analysis.findings import bands
from aqr.analysis.findings.finding import Check, Context, Finding
from aqr.analysis.forecast import anchors_of
from aqr.analysis.formula import applied_factor, form_of, is_gated, largest_factor
from aqr.analysis.language import Message, text

_NEAR_ZERO: Final = 0.2
"""A map below this on average is near 0 on most cells."""


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
    shown = text("{change} %", change=f"{100 * change:.1f}" if change >= 0.001 else f"{100 * change:.2g}")
    gated = is_gated(run)
    if run.text("parameterisation") == "centered" or gated:
        yield Finding(
            "modulation.strength",
            "info",
            text("Image features change by {shown}", shown=shown),
            text(
                "At forward {forward}, {over}. The band of 25–30 % was found with maps that are 0 where no "
                "query is and without a gate, so it is not applied to this run.",
                forward=last.forward,
                over=_over(last.ranks),
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
            "relative_change of the image features at forward {forward}, {over}{spread}.",
            forward=last.forward,
            over=_over(last.ranks),
            spread=text(", standard deviation between ranks {std:.2f} points", std=100 * spread)
            if spread is not None
            else "",
        ),
        evidence,
        bands.SEED,
        run.name,
    )


def _over(ranks: int) -> Message:
    return text("on the only rank") if ranks == 1 else text("mean over {ranks} ranks", ranks=ranks)


def in_attention(context: Context) -> Iterator[Finding]:
    """Weights that act in attention leave features as they are."""
    if context.run.in_attention and context.run.uses_aqr:
        yield Finding(
            "modulation.attention",
            "info",
            text("The weights act in attention, features stay as they are"),
            text(
                "With aqr.target: attention nothing is rendered or modulated, so nothing is said of maps, of the "
                "strength of a modulation or of other clamps and residuals."
            ),
            {"target": "attention"},
            bands.DEFINITION,
            context.run.name,
        )


def residual_band(context: Context) -> Iterator[Finding]:
    residual = context.run.number("residual_weight")
    if residual is None or context.run.uses_aqr is False or residual >= bands.RESIDUAL[0]:
        return
    if context.run.text("parameterisation") == "centered" or is_gated(context.run):
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
    if camera is None or camera.mean is None or camera.spread is None or camera.mean > _NEAR_ZERO:
        return
    if camera.parameterisation == "centered" or camera.gated or camera.pooling != "element_wise":
        return
    weight = 1.0 if form_of(run) == "additive" else 1 - camera.residual
    lower = max(1.0, camera.clamp - 0.5)
    other = min(camera.residual + 0.1, 1.0)
    by_clamp = weight * camera.lost(lower)
    by_residual = camera.change - camera.forecast(camera.clamp, other).expected
    yield Finding(
        "modulation.set-by-residual",
        "info",
        text("The residual sets the strength of the modulation, the clamp hardly moves it"),
        text(
            "The image map is {mean:.3f} on average, so most cells are near 0, where the change is 1 − residual. A "
            "clamp of {lower:g} instead of {clamp:g} takes at most {by_clamp:.1f} points off the {change:.1f} %, a "
            "residual of {other:g} instead of {residual:g} about {by_residual:.1f}.",
            mean=camera.mean,
            lower=lower,
            clamp=camera.clamp,
            by_clamp=100 * by_clamp,
            change=100 * camera.change,
            other=other,
            residual=camera.residual,
            by_residual=100 * by_residual,
        ),
        {
            "relative_change": round(camera.change, 6),
            "map_mean": round(camera.mean, 6),
            "clamp_effect_at_most": round(by_clamp, 6),
            "residual_effect": round(by_residual, 6),
        },
        bands.ARITHMETIC,
        run.name,
    )


def bev_zeros(context: Context) -> Iterator[Finding]:
    """A small BEV figure beside an empty map: features that are 0 count as unchanged."""
    run = context.run
    bev = anchors_of(run).get("bev")
    gated = is_gated(run)
    if bev is None or bev.mean is None or gated or bev.parameterisation == "centered":
        return
    kept = 1 - bev.residual
    least = abs(bev.mean - kept) if form_of(run) == "additive" else kept * abs(1 - bev.mean)
    if least <= 0 or bev.change >= 0.6 * least:
        return
    share = bev.change / least
    yield Finding(
        "modulation.bev-zeros",
        "info",
        text("BEV features are mostly 0, which is why their change looks small"),
        text(
            "The BEV map is {mean:.3f} on average, so a feature that is not 0 changes by {least:.0f} % or more on "
            "average; {change:.1f} % over all means that at most about {share:.0f} % of them are not 0 (taking the "
            "map to be the same there).",
            mean=bev.mean,
            least=100 * least,
            change=100 * bev.change,
            share=100 * share,
        ),
        {
            "relative_change": round(bev.change, 6),
            "change_of_nonzero_at_least": round(least, 6),
            "nonzero_share_at_most": round(share, 6),
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
            "In {count} of {total} debug blocks the largest output and the largest change are those of one feature, "
            "multiplied by {factor:.4f}. The formula residual + (1 − residual)·W ends at {convex:.2f}{explained}",
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


CHECKS: Final[tuple[Check, ...]] = (
    formula_differs,
    camera_band,
    in_attention,
    residual_band,
    residual_sets_it,
    bev_zeros,
)
