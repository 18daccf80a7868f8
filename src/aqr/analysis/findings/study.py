"""What a study says: where the optimum is, how sure that is, and how it compares with A, B and C."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from aqr.analysis.findings import bands
from aqr.analysis.findings.finding import Finding
from aqr.analysis.language import Listing, Message, text
from aqr.analysis.studied import Studied, Versus
from aqr.analysis.surface import Surface

BOOTSTRAP: Final[Message] = text("quadratic response surface, residual bootstrap over trials, 95 %")
_FEW: Final = 20
"""Trials below which the devices of this page are weak."""


def study_findings(studied: Studied) -> Iterator[Finding]:
    """Every finding about a study."""
    yield from _trials(studied)
    for objective, surface in studied.surfaces.items():
        if surface is None:
            yield _too_few(studied, objective)
            continue
        yield _optimum(studied, objective, surface)
        if surface.explains:
            if not surface.extrapolated:
                yield from _edges(studied, objective, surface)
            yield _importance(studied, objective, surface)
        if studied.versus[objective] and not surface.extrapolated:
            yield _against(studied, objective, surface)


def study_verdict(studied: Studied) -> tuple[Message, Message, Message]:
    """Three sentences: what was found, how sure it is, what to do next."""
    study = studied.study
    objective = study.objectives[0]
    surface = studied.surfaces[objective]
    if not study.complete:
        nothing = text("Study {name} has no complete trial.", name=study.name)
        return nothing, text("Nothing can be said of the settings."), text("Let the sweep run on.")
    if len(study.objectives) > 1:
        found = text(
            "Of {count} complete trials {front} are beaten by no other in {objectives} at once.",
            count=len(study.complete),
            front=len(study.best),
            objectives=" + ".join(study.objectives),
        )
    else:
        best = study.trial(study.best[0])
        found = text(
            "The best of {count} complete trials is number {number} with {objective} {value:.4f} ({settings}).",
            count=len(study.complete),
            number=best.number,
            objective=objective,
            value=best.values[objective],
            settings=shown_settings(best.params),
        )
    return found, _sureness(objective, surface), _next(studied, surface)


def shown_settings(settings: Mapping[str, Any]) -> str:
    """Settings by the last part of their key."""
    return ", ".join(f"{key.rpartition('.')[2]} {_shown(value)}" for key, value in settings.items())


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _sureness(objective: str, surface: Surface | None) -> Message:
    if surface is None:
        return text("There are too few trials to tell the settings from chance.")
    if not surface.explains:
        return text(
            "The settings searched do not explain {objective}: trials differ by chance, about {noise:.4f} from one to "
            "the next.",
            objective=objective,
            noise=surface.noise,
        )
    if surface.extrapolated:
        return text(
            "Where {objective} is highest is extrapolated: the fitted surface has its peak at {settings}, beyond what "
            "the trials show.",
            objective=objective,
            settings=shown_settings(surface.optimum),
        )
    return text(
        "{objective} is highest near {settings}; {share:.0f} % of its variation can be predicted from the settings.",
        objective=objective,
        settings=shown_settings(surface.optimum),
        share=100 * (surface.explained or 0.0),
    )


def _next(studied: Studied, surface: Surface | None) -> Message:
    if surface is None:
        return text("Next, run more trials.")
    if not surface.explains:
        return text("Next, keep the defaults, or repeat one setting with several seeds to learn the spread.")
    if surface.extrapolated:
        return text("Next, run trials there, or train the best trial with several seeds beside the defaults.")
    if surface.edges:
        return text(
            "Next, widen the range of {names}, at whose end the optimum lies.",
            names=", ".join(key.rpartition(".")[2] for key in surface.edges),
        )
    return text("Next, train the optimum with several seeds, longer, beside the defaults.")


def _trials(studied: Studied) -> Iterator[Finding]:
    study = studied.study
    failed = study.failed
    said = [trial.error for trial in failed if trial.error is not None]
    if failed:
        yield Finding(
            "study.failed-trials",
            "warning",
            text("Trials that could not be trained: {count}", count=len(failed)),
            text("The first says: {reason}", reason=said[0])
            if said
            else text(
                "Numbers {numbers}; none of them left a message. What is said here rests on the others.",
                numbers=", ".join(str(trial.number) for trial in failed),
            ),
            {"trials": [trial.number for trial in failed]},
            bands.ARITHMETIC,
            study.name,
        )
    under_way = [trial.number for trial in study.trials if trial.state in ("running", "waiting")]
    if under_way:
        yield Finding(
            "study.unfinished",
            "info",
            text("The study is not finished"),
            text("{count} trials are running or waiting; what is said here may change.", count=len(under_way)),
            {"trials": under_way},
            bands.ARITHMETIC,
            study.name,
        )
    gate = study.setting("aqr.modulator.gate")
    if gate and any(studied.versus.values()):
        yield Finding(
            "study.gated",
            "info",
            text("The trials have a gate, which A, B and C do not have"),
            text(
                "What is said of A, B and C holds for their clamp and residual behind the gate; search with "
                "aqr.modulator.gate=false to compare with the settings themselves."
            ),
            {"gate": True},
            bands.DEFINITION,
            study.name,
        )


def _too_few(studied: Studied, objective: str) -> Finding:
    count = len(studied.study.complete)
    return Finding(
        "study.too-few-trials",
        "warning",
        text("Too few trials for a response surface of {objective}", objective=objective),
        text("{count} trials are complete, over {axes} settings.", count=count, axes=len(studied.study.axes)),
        {"objective": objective, "complete": count},
        BOOTSTRAP,
        studied.study.name,
    )


def _optimum(studied: Studied, objective: str, surface: Surface) -> Finding:
    tells = surface.explains
    evidence = {
        "objective": objective,
        "optimum": dict(surface.optimum),
        "intervals": {key: dict(w) if isinstance(w, Mapping) else list(w) for key, w in surface.intervals.items()},
        "value": surface.value,
        "best_trial": surface.best,
        "extrapolated": surface.extrapolated,
        "value_interval": None if surface.value_interval is None else list(surface.value_interval),
        "noise": surface.noise,
        "explained": surface.explained,
        "trials": surface.trials,
    }
    few = text(", and there are only {count} of them", count=surface.trials) if surface.trials < _FEW else ""
    if surface.value_interval is None:
        detail = text(
            "Its highest place, {value:.4f} at {settings}, is extrapolated: it lies beyond what the trials show, whose "
            "best is {best:.4f}, so no interval and no advantage is given. Single trials scatter around the surface by "
            "{noise:.4f}{few}.",
            value=surface.value,
            settings=shown_settings(surface.optimum),
            best=surface.best,
            noise=surface.noise,
            few=few,
        )
    else:
        detail = text(
            "95 % of the resampled surfaces have their highest place at {places}. Its height is {value:.4f} ({low:.4f} "
            "to {high:.4f}); single trials scatter around the surface by {noise:.4f}{few}.",
            places=Listing(tuple(_place(key, surface) for key in surface.optimum)),
            value=surface.value,
            low=surface.value_interval[0],
            high=surface.value_interval[1],
            noise=surface.noise,
            few=few,
        )
    if not tells:
        return Finding(
            "study.no-signal",
            "warning",
            text("The settings searched do not explain {objective}", objective=objective),
            text(
                "A trial is predicted from the others no better than by their mean (leave-one-out R² {explained}). "
                "{detail}",
                explained=f"{surface.explained:.2f}" if surface.explained is not None else "–",
                detail=detail,
            ),
            evidence,
            BOOTSTRAP,
            studied.study.name,
        )
    if surface.extrapolated:
        return Finding(
            "study.optimum-extrapolated",
            "warning",
            text("Where {objective} is highest is extrapolated", objective=objective),
            text("{detail} Leave-one-out R² is {explained:.2f}.", detail=detail, explained=surface.explained or 0.0),
            evidence,
            BOOTSTRAP,
            studied.study.name,
        )
    return Finding(
        "study.optimum",
        "info",
        text("{objective} is highest near {settings}", objective=objective, settings=shown_settings(surface.optimum)),
        text("{detail} Leave-one-out R² is {explained:.2f}.", detail=detail, explained=surface.explained or 0.0),
        evidence,
        BOOTSTRAP,
        studied.study.name,
    )


def _place(key: str, surface: Surface) -> Message:
    where = surface.intervals[key]
    name = key.rpartition(".")[2]
    if isinstance(where, Mapping):
        choice = max(where, key=lambda one: where[one])
        return text("{name} {choice} ({share:.0f} %)", name=name, choice=choice, share=100 * where[choice])
    return text("{name} {low:.4g} to {high:.4g}", name=name, low=where[0], high=where[1])


def _edges(studied: Studied, objective: str, surface: Surface) -> Iterator[Finding]:
    if surface.edges:
        yield Finding(
            "study.optimum-at-edge",
            "warning",
            text("The optimum of {objective} lies at the end of a range", objective=objective),
            text(
                "{names}: beyond it, scores may be higher still; widen the range.",
                names=", ".join(key.rpartition(".")[2] for key in surface.edges),
            ),
            {"objective": objective, "edges": list(surface.edges)},
            BOOTSTRAP,
            studied.study.name,
        )


def _importance(studied: Studied, objective: str, surface: Surface) -> Finding:
    ordered = sorted(surface.importance.items(), key=lambda pair: -pair[1])
    return Finding(
        "study.importance",
        "info",
        text("{name} matters most for {objective}", name=ordered[0][0].rpartition(".")[2], objective=objective),
        text(
            "Share of the surface's variation over the searched region that each setting accounts for alone: {shares}.",
            shares=", ".join(f"{key.rpartition('.')[2]} {100 * share:.0f} %" for key, share in ordered),
        ),
        {"objective": objective, "importance": dict(surface.importance)},
        BOOTSTRAP,
        studied.study.name,
    )


def _against(studied: Studied, objective: str, surface: Surface) -> Finding:
    versus = studied.versus[objective]
    sure = [one for one in versus if one.interval is not None and one.interval[0] > 0]
    inside = [one for one in versus if one.inside]
    if not inside:
        title = text("A, B and C lie outside the searched region")
    elif len(sure) == len(inside) and surface.explains:
        title = text("The optimum beats {names} in {objective}", names=_names(inside), objective=objective)
    else:
        title = text(
            "The optimum is not clearly better than {names} in {objective}",
            names=_names([one for one in inside if one not in sure] or inside),
            objective=objective,
        )
    return Finding(
        "study.against-presets",
        "info",
        title,
        text(
            "Advantage of the optimum, other settings alike: {listed}.",
            listed=Listing(tuple(_advantage(one) for one in versus)),
        ),
        {
            "objective": objective,
            "versus": {one.name: None if one.interval is None else [one.advantage, *one.interval] for one in versus},
        },
        BOOTSTRAP,
        studied.study.name,
    )


def _names(versus: list[Versus]) -> str:
    return ", ".join(one.name for one in versus)


def _advantage(one: Versus) -> Message:
    clamp, residual = one.settings.values()
    if one.interval is None or one.advantage is None:
        return text(
            "{name} (clamp {clamp:g}, residual {residual:g}) not searched",
            name=one.name,
            clamp=clamp,
            residual=residual,
        )
    return text(
        "{name} (clamp {clamp:g}, residual {residual:g}) {advantage:+.4f} ({low:+.4f} to {high:+.4f})",
        name=one.name,
        clamp=clamp,
        residual=residual,
        advantage=one.advantage,
        low=one.interval[0],
        high=one.interval[1],
    )
