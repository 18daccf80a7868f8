"""How far mAP and NDS, and differences between two runs, would move with other scenes.

Samples of one scene are near copies of one another, so scenes are what is drawn: a resample holds as many scenes as
the split, drawn with replacement, and a scene drawn k times counts k times (percentile bootstrap, Efron & Tibshirani
1993, chapter 13). Two runs are compared on the same draws, so that what is hard for both cancels.

A match never depends on another sample. A resample therefore only weighs detections and objects anew: per class,
counts of true and false positives by scene and score are laid down once, and all resamples are one matrix product
away from their curves. Curves are followed at every true positive up to `KNOTS` of them and at as many evenly spread
ones beyond; what that costs on the split itself is taken off every resample.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from aqr.scoring.boxes import Bools, Floats, Ints
from aqr.scoring.curves import ERRORS, FIRST_RECALL, MIN_PRECISION, RECALLS
from aqr.scoring.matching import THRESHOLDS
from aqr.scoring.metrics import DEVKIT_ORDER, ERROR_THRESHOLD, ClassMatches, Hits, Metrics, detection_score
from aqr.taxonomy import CLASSES, LABEL_OF

KNOTS: Final = 50
LEVEL: Final = 0.95
"""Share of resamples that an interval holds."""

_ROWS_AT_ONCE: Final = 64
_RECALLS: Final = RECALLS[FIRST_RECALL:]


@dataclass(frozen=True)
class Resampled:
    """Metrics of R resamples.

    Attributes:
        ap: [R, 10] AP per class, in the order of `aqr.taxonomy.CLASSES`.
        errors: [R, 10, 5] true-positive errors per class, NaN where a class has no such error.
    """

    ap: Floats
    errors: Floats

    @property
    def mean_ap(self) -> Floats:
        """[R] mAP."""
        return np.asarray(self.ap.mean(axis=1))

    @property
    def mean_errors(self) -> Floats:
        """[R, 5] mean of each error over the classes that have it."""
        return np.asarray(np.nanmean(self.errors, axis=1))

    @property
    def nds(self) -> Floats:
        """[R] nuScenes detection score."""
        return detection_score(self.mean_ap, self.mean_errors)

    def figures(self) -> dict[str, Floats]:
        """[R] each: `mean_ap`, `nd_score`, the mean errors and the AP of the classes under their names."""
        return {
            "mean_ap": self.mean_ap,
            "nd_score": self.nds,
            **{name: self.mean_errors[:, column] for column, name in enumerate(ERRORS)},
            **{name: self.ap[:, LABEL_OF[name]] for name in DEVKIT_ORDER},
        }


@dataclass(frozen=True)
class Interval:
    """A figure and the ends of its interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, resamples: Floats) -> Interval:
        """From what all scenes give and what R resamples give: the middle `LEVEL` of them."""
        low, high = np.quantile(resamples, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return cls(float(value), float(low), float(high))


def intervals(metrics: Metrics, resamples: int, seed: int = 0) -> dict[str, Any]:
    """Intervals of every figure of one run, ready for JSON.

    Returns:
        `level`, `resamples`, `seed`, and `value`, `low` and `high` under `mean_ap`, `nd_score`, `tp_errors` by error
        and `mean_dist_aps` by class.
    """
    drawn = resample(metrics, draw_scenes(_scene_count(metrics), resamples, seed))
    return _stated(_whole(metrics).figures(), drawn.figures(), resamples, seed)


def difference(metrics: Metrics, baseline: Metrics, resamples: int, seed: int = 0) -> dict[str, Any]:
    """Intervals of run minus baseline, both scored on the same split, ready for JSON.

    Returns:
        as `intervals`, of the differences. An interval that leaves out 0 is a difference that other scenes like
        these would show too.

    Raises:
        ValueError: if the two were not scored against the same samples.
    """
    if metrics.ground_truth.samples.tokens != baseline.ground_truth.samples.tokens:
        raise ValueError("two runs can be compared on the same samples only")
    draws = draw_scenes(_scene_count(metrics), resamples, seed)
    return _stated(
        _minus(_whole(metrics).figures(), _whole(baseline).figures()),
        _minus(resample(metrics, draws).figures(), resample(baseline, draws).figures()),
        resamples,
        seed,
    )


def draw_scenes(scenes: int, resamples: int, seed: int) -> Ints:
    """How often each scene stands in each resample.

    Args:
        scenes: number of scenes.
        resamples: R.
        seed: of the draw.

    Returns:
        [R, scenes] int64, each row summing to `scenes`.
    """
    return np.random.default_rng(seed).multinomial(scenes, np.full(scenes, 1 / scenes), size=resamples)


def resample(metrics: Metrics, draws: Ints) -> Resampled:
    """The metrics of resamples.

    Args:
        metrics: of the split.
        draws: [R, scenes] from `draw_scenes`.
    """
    # The first row is the split itself: what following few knots costs there is taken off everywhere.
    weights = np.vstack([np.ones(draws.shape[1]), draws])
    ap = np.zeros((len(weights), len(CLASSES)))
    errors = np.ones((len(weights), len(CLASSES), len(ERRORS)))
    for label, matches in enumerate(metrics.matches):
        scenes = _Scenes(
            metrics.ground_truth.samples.scene[metrics.predictions.sample[matches.detection]],
            metrics.ground_truth.samples.scene[metrics.ground_truth.sample[matches.objects]],
            draws.shape[1],
        )
        for threshold, hits in enumerate(matches.hits):
            if len(hits.at) == 0:
                continue
            blocks = _Blocks.of(matches, hits, scenes)
            sums = _Sums.of(matches, hits, scenes) if threshold == ERROR_THRESHOLD else None
            for begin in range(0, len(weights), _ROWS_AT_ONCE):
                rows = slice(begin, begin + _ROWS_AT_ONCE)
                knots = _follow(blocks, weights[rows])
                ap[rows, label] += _average_precision(knots) / len(THRESHOLDS)
                if sums is not None:
                    errors[rows, label] = _mean_errors(sums, knots, blocks.score, weights[rows])
    ap += metrics.ap.mean(axis=1) - ap[0]
    errors += metrics.errors - errors[0]
    return Resampled(ap[1:], errors[1:])


def _scene_count(metrics: Metrics) -> int:
    return int(metrics.ground_truth.samples.scene.max()) + 1


def _minus(ours: dict[str, Floats], theirs: dict[str, Floats]) -> dict[str, Floats]:
    return {name: value - theirs[name] for name, value in ours.items()}


def _whole(metrics: Metrics) -> Resampled:
    """The split itself, as one resample."""
    return Resampled(metrics.ap.mean(axis=1)[None], metrics.errors[None])


def _stated(figures: dict[str, Floats], drawn: dict[str, Floats], resamples: int, seed: int) -> dict[str, Any]:
    intervals = {name: asdict(Interval.of(value[0], drawn[name])) for name, value in figures.items()}
    return {
        "level": LEVEL,
        "resamples": resamples,
        "seed": seed,
        "mean_ap": intervals["mean_ap"],
        "nd_score": intervals["nd_score"],
        "tp_errors": {name: intervals[name] for name in ERRORS},
        "mean_dist_aps": {name: intervals[name] for name in DEVKIT_ORDER},
    }


@dataclass(frozen=True)
class _Scenes:
    """Scenes of the detections [D] and of the objects [G] of a class, and the number of all scenes."""

    detection: Ints
    object: Ints
    count: int


@dataclass(frozen=True)
class _Blocks:
    """Detections of a class at one threshold, divided into B blocks that end with a true positive, and the rest.

    Attributes:
        hits: [scenes, B + 1] true positives up to the end of each block.
        misses: [scenes, B + 1] false positives.
        last: [B] scene of the true positive at the end of each block.
        score: [2 B + 1] of the detection before that, of that, …, and of the last detection.
        objects: [scenes].
    """

    hits: Floats
    misses: Floats
    last: Ints
    score: Floats
    objects: Ints

    @classmethod
    def of(cls, matches: ClassMatches, hits: Hits, scenes: _Scenes) -> _Blocks:
        last = hits.at[_ends(len(hits.at))]
        number = np.searchsorted(last, np.arange(len(matches.score)), side="left")
        found = _cumulated(scenes.detection[hits.at], number[hits.at], scenes.count, len(last) + 1)
        detected = _cumulated(scenes.detection, number, scenes.count, len(last) + 1)
        before_and_at = matches.score[np.stack([np.maximum(last - 1, 0), last], axis=1)]
        return cls(
            found,
            detected - found,
            scenes.detection[last],
            np.append(before_and_at, matches.score[-1]),
            np.bincount(scenes.object, minlength=scenes.count),
        )


@dataclass(frozen=True)
class _Sums:
    """Errors of the true positives, summed up to the end of each of B blocks.

    Attributes:
        drawn: [scenes, B] true positives.
        known: per error [scenes, B] those whose error is known.
        total: per error [scenes, B] the sum over these.
        rising: [B] score at the end of each block, in reverse.
    """

    drawn: Floats
    known: tuple[Floats, ...]
    total: tuple[Floats, ...]
    rising: Floats

    @classmethod
    def of(cls, matches: ClassMatches, hits: Hits, scenes: _Scenes) -> _Sums:
        ends = _ends(len(hits.at))
        number = np.searchsorted(ends, np.arange(len(hits.at)), side="left")
        scene = scenes.detection[hits.at]
        known = ~np.isnan(hits.errors)
        return cls(
            _cumulated(scene, number, scenes.count, len(ends)),
            tuple(_cumulated(scene[k], number[k], scenes.count, len(ends)) for k in known),
            tuple(
                _cumulated(scene[k], number[k], scenes.count, len(ends), values[k])
                for k, values in zip(known, hits.errors, strict=True)
            ),
            matches.score[hits.at[ends]][::-1],
        )


@dataclass(frozen=True)
class _Knots:
    """Curves of R resamples at one threshold, known at K knots, and where the 90 recalls that count lie between them.

    Attributes:
        hits: [R · K] true positives up to and with each knot, ascending in each row, whole numbers.
        misses: [R · K] false positives.
        left: [R, 90] the last knot whose recall is not above each recall, as a place in `hits`.
        right: [R, 90] the knot after it.
        column: [R, 90] the left one's number in its row.
        share: [R, 90] of the way from left to right.
        reached: [R, 90] whether the recall is reached.
    """

    hits: Floats
    misses: Floats
    left: Ints
    right: Ints
    column: Ints
    share: Floats
    reached: Bools


def _follow(blocks: _Blocks, weights: Floats) -> _Knots:
    """Knots: just before the last true positive of each block, at it, and after everything."""
    hits, misses = np.empty((2, len(weights), len(blocks.score)))
    found, wrong = weights @ blocks.hits, weights @ blocks.misses
    hits[:, 1::2], hits[:, -1] = found[:, :-1], found[:, -1]
    np.subtract(found[:, :-1], weights[:, blocks.last], out=hits[:, 0:-1:2])
    misses[:, 0:-1:2] = misses[:, 1::2] = wrong[:, :-1]
    misses[:, -1] = wrong[:, -1]

    rows, knots = hits.shape
    objects = np.maximum(weights @ blocks.objects, 1)[:, None]
    # The largest whole number whose recall is not above each recall; so all rows can be searched at once, exactly.
    most = np.floor(_RECALLS * objects)
    most += (most + 1) / objects <= _RECALLS
    most -= most / objects > _RECALLS
    row = np.arange(rows)[:, None]
    apart = (hits[:, -1].max() + objects.max() + 1) * row
    flat, first = hits.reshape(-1), knots * row
    left = np.searchsorted((hits + apart).reshape(-1), (most + apart).reshape(-1), side="right").reshape(rows, -1) - 1
    left = np.maximum(left, first)
    right = np.minimum(left + 1, first + knots - 1)
    start, end = flat.take(left) / objects, flat.take(right) / objects
    share = np.divide(_RECALLS - start, end - start, out=np.zeros_like(start), where=end > start)
    reached = (hits[:, -1:] / objects >= _RECALLS) & (hits[:, -1:] > 0)
    return _Knots(flat, misses.reshape(-1), left, right, left - first, np.maximum(share, 0), reached)


def _average_precision(knots: _Knots) -> Floats:
    """[R] average precision.

    Up to a true positive, from just before it, recall rises in as many steps as its scene was drawn times, and
    precision is h / (h + misses) with each of the h = 1, 2, … true positives. Between blocks it runs straight.
    """
    straight = knots.column % 2 == 1
    first, misses = knots.hits.take(knots.left), knots.misses.take(knots.right)
    way = knots.share * (knots.hits.take(knots.right) - first)
    done = np.where(straight, 0, np.floor(way))
    low = first + done
    high = np.where(straight, knots.hits.take(knots.right), low + 1)
    before = np.where(straight, knots.misses.take(knots.left), misses)
    start = np.divide(low, low + before, out=np.ones_like(low), where=low + before > 0)
    end = np.divide(high, high + misses, out=np.ones_like(high), where=high + misses > 0)
    precision = start + np.where(straight, knots.share, way - done) * (end - start)
    above = np.where(knots.reached, np.maximum(precision - MIN_PRECISION, 0), 0)
    return np.asarray(above.mean(axis=1) / (1 - MIN_PRECISION))


def _mean_errors(sums: _Sums, knots: _Knots, score: Floats, weights: Floats) -> Floats:
    """[R, 5] mean errors above the minimum recall."""
    after = np.minimum(knots.column + 1, len(score) - 1)
    confidence = score.take(knots.column)
    confidence += knots.share * (score.take(after) - confidence)
    rising = sums.rising
    place = np.searchsorted(rising, confidence, side="right") - 1
    low, high = np.maximum(place, 0), np.clip(place + 1, 0, len(rising) - 1)
    below, gap = rising.take(low), rising.take(high) - rising.take(low)
    share = np.divide(confidence - below, gap, out=np.zeros_like(confidence), where=(gap > 0) & (place >= 0))

    # Up to the last recall whose confidence is not 0.
    counts = np.logical_or.accumulate((knots.reached & (confidence > 0))[:, ::-1], axis=1)[:, ::-1]
    number = counts.sum(axis=1)
    # Blocks whose scenes were not drawn do not exist; before the first that was, the first one's value holds.
    first = np.argmax(weights @ sums.drawn > 0, axis=1)[:, None]
    row = len(rising) * np.arange(len(weights))[:, None]
    exists = row + np.maximum(np.arange(len(rising)), first)[:, ::-1]
    low, high = exists.reshape(-1).take(row + low), exists.reshape(-1).take(row + high)
    result = np.ones((len(weights), len(ERRORS)))
    for column, (known, values) in enumerate(zip(sums.known, sums.total, strict=True)):
        total, count = weights @ values, weights @ known
        mean = np.divide(total, count, out=np.zeros_like(total), where=count > 0)
        mean[count[:, -1] == 0] = 1
        start, end = mean.take(low), mean.take(high)
        sampled = np.where(counts, start + share * (end - start), 0).sum(axis=1)
        np.divide(sampled, number, out=result[:, column], where=number > 0)
    return result


def _ends(count: int) -> Ints:
    """The last of the true positives of each block: every one of them, or `KNOTS` evenly spread."""
    blocks = min(count, KNOTS)
    return np.asarray(np.arange(1, blocks + 1) * count // blocks - 1)


def _cumulated(scene: Ints, block: Ints, scenes: int, blocks: int, values: Floats | None = None) -> Floats:
    """[scenes, blocks] sums of values (default: ones) by scene, up to each block."""
    flat = np.bincount(scene * blocks + block, values, scenes * blocks).reshape(scenes, blocks)
    return np.asarray(np.cumsum(flat, axis=1, dtype=np.float64))
