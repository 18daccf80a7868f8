"""A detector on every failing sample: detections, scores, resamples of the scenes, and what its router said."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from benchmarks.proof.batches import load, unpack
from benchmarks.proof.data import chunk_path, chunks, rows_of
from benchmarks.proof.plan import TEST, Place, conditions, name_of

from aqr.batch import Batch, Frame
from aqr.config import Config
from aqr.data.failures.catalogue import Failure
from aqr.data.index import open_index
from aqr.data.samples import frame_of
from aqr.detector import Detector
from aqr.detector.detector import DetectorOutput
from aqr.scoring import GroundTruth, Metrics, evaluate, load_ground_truth
from aqr.scoring.bootstrap import Resampled, draw_scenes, resample
from aqr.taxonomy import CLASSES
from aqr.training.denormals import flushed_denormals
from aqr.training.evaluation import evaluation_precision, in_global_frame
from aqr.training.inference import SampleDetections
from aqr.training.module import autocast

log = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]
Progress = Callable[[Failure | None, Batch, DetectorOutput, range], None]


@dataclass(frozen=True)
class Split:
    """The samples of `pilot` or `test`: where they were taken, what is there, and their batches.

    Attributes:
        place: of the experiment.
        name: pilot or test.
    """

    place: Place
    config: Config
    name: str

    @cached_property
    def _index(self) -> Any:
        return open_index(self.config.data.root, self.config.data.version)

    @cached_property
    def rows(self) -> npt.NDArray[np.int64]:
        """[S] rows of the samples in the index."""
        rows = self._index.split(self.config.data.val_split)
        return np.asarray(rows[rows_of(self._index, self.name, self.place)])

    @cached_property
    def frames(self) -> list[Frame]:
        return [frame_of(self._index, int(row)) for row in self.rows]

    @cached_property
    def truth(self) -> GroundTruth:
        return load_ground_truth(self._index, self.rows)

    @cached_property
    def _clean(self) -> list[dict[str, Any]]:
        return [load(chunk_path(self.place, self.name, None, number)) for number in range(len(self.chunks))]

    @property
    def chunks(self) -> list[range]:
        return chunks(len(self.rows), self.place.scale.chunk)

    def batches(self, condition: Failure | None, device: torch.device) -> Iterator[tuple[range, Batch]]:
        """The samples of each chunk, failing, and what they are."""
        for number, samples in enumerate(self.chunks):
            changed = {} if condition is None else load(chunk_path(self.place, self.name, condition, number))
            batch = unpack({**self._clean[number], **changed}, device)
            batch.frames = [self.frames[sample] for sample in samples]
            yield samples, batch


@dataclass(frozen=True)
class Scores:
    """Scores under K conditions.

    Attributes:
        names: of the conditions, `clean` first.
        mean_ap: [K].
        nds: [K].
        class_ap: [K, 10] in the order of `aqr.taxonomy.CLASSES`.
        resampled: [K, R] mAP of R resamples of the scenes, drawn alike for every detector; of the pilot one alone.
        resampled_nds: [K, R].
        resampled_ap: [R, 10] AP by class of the first condition, in the same resamples.
        clean: the devkit's metrics_summary.json of the first condition.
    """

    names: list[str]
    mean_ap: Floats
    nds: Floats
    class_ap: Floats
    resampled: Floats
    resampled_nds: Floats
    resampled_ap: Floats
    clean: dict[str, Any]

    def summary(self) -> dict[str, Any]:
        """mAP and NDS by condition, and AP by class, for JSON."""
        return {
            "mAP": dict(zip(self.names, self.mean_ap.round(5).tolist(), strict=True)),
            "NDS": dict(zip(self.names, self.nds.round(5).tolist(), strict=True)),
            "AP": {
                name: dict(zip(CLASSES, row.round(4).tolist(), strict=True))
                for name, row in zip(self.names, self.class_ap, strict=True)
            },
        }


@flushed_denormals()
@torch.inference_mode()
def score(
    detector: Detector,
    split: Split,
    device: torch.device,
    wanted: list[Failure | None] | None = None,
    watch: Progress | None = None,
    scorers: int = 2,
) -> Scores:
    """Detect and score under every condition.

    Args:
        detector: on `device`.
        split: samples.
        device: where to compute.
        wanted: conditions, by default all.
        watch: called with the condition, the batch, the detector's output and the samples' numbers.
        scorers: threads that score while the device detects.
    """
    wanted = conditions() if wanted is None else wanted
    detector.eval()
    precision = evaluation_precision(split.config, device)
    scenes = int(split.truth.samples.scene.max()) + 1
    draws = draw_scenes(scenes, split.place.scale.resamples if split.name == TEST else 1, seed=0)
    begin = time.perf_counter()
    with ThreadPoolExecutor(scorers) as pool:
        results: list[Future[tuple[Metrics, Resampled]]] = []
        for condition in wanted:
            found: list[SampleDetections] = []
            for samples, batch in split.batches(condition, device):
                with autocast(device, precision):
                    output = detector(batch)
                    decoded = detector.decode(output)
                if watch is not None:
                    watch(condition, batch, output, samples)
                found += [
                    SampleDetections.of(frame, detections)
                    for frame, detections in zip(batch.frames, decoded, strict=True)
                ]
            results.append(pool.submit(_score, split.truth, found, draws))
        detected = time.perf_counter()
        rows = [result.result() for result in results]
    log.info(
        "%s: %d conditions detected in %.1f s, scored %.1f s later",
        split.name,
        len(wanted),
        detected - begin,
        time.perf_counter() - detected,
    )
    return Scores(
        names=[name_of(condition) for condition in wanted],
        mean_ap=np.array([metrics.mean_ap for metrics, _ in rows]),
        nds=np.array([metrics.nds for metrics, _ in rows]),
        class_ap=np.array([metrics.ap.mean(axis=1) for metrics, _ in rows]),
        resampled=np.array([resampled.mean_ap for _, resampled in rows]),
        resampled_nds=np.array([resampled.nds for _, resampled in rows]),
        resampled_ap=rows[0][1].ap,
        clean=rows[0][0].summary(),
    )


def _score(
    truth: GroundTruth, found: list[SampleDetections], draws: npt.NDArray[np.int64]
) -> tuple[Metrics, Resampled]:
    metrics = evaluate(truth, in_global_frame(found))
    return metrics, resample(metrics, draws)
