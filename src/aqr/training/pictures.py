"""Pictures of what a trained detector makes of a sample."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from aqr import geometry
from aqr.data.loader import eval_loader
from aqr.data.samples import collate
from aqr.errors import InputError
from aqr.training.evaluation import evaluation_precision, load_detector, with_data
from aqr.training.module import autocast
from aqr.view import WeightScale, draw_sample, scene_from_batch


def view_run(
    source: str | Path,
    out: str | Path,
    samples: Sequence[int | str],
    *,
    root: str | Path | None = None,
    version: str | None = None,
    split: str | None = None,
) -> list[Path]:
    """Draw samples as the detector sees them, with its boxes and, with AQR, its weight maps and queries.

    Args:
        source: run folder, checkpoint or final.safetensors of a run.
        out: folder for the pictures, which are named after the sample tokens.
        samples: sample tokens, or numbers counted from 0 within the split.
        root: data set folder instead of the run's `data.root`.
        version: version folder instead of the run's `data.version`.
        split: split instead of the run's `data.val_split`.

    Returns:
        The pictures.

    Raises:
        InputError: where source or data cannot be used, or the split has no such sample.
    """
    detector, config = load_detector(source)
    config = with_data(config, root, version, split)
    dataset = eval_loader(config).dataset
    tokens = [dataset.index.token(row) for row in dataset.rows]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    detector = detector.to(device)
    clamp = config.aqr.renderer.max_weight_clamp if detector.aqr is None else detector.aqr.max_weight_clamp
    scale = WeightScale(1.0 if config.aqr.parameterisation == "centered" else 0.0, clamp)
    pc_range = config.detector.pc_range
    pictures = []
    for sample in samples:
        batch = collate([dataset[_number(sample, tokens, config.data.val_split)]])
        with torch.no_grad(), autocast(device, evaluation_precision(config, device)):
            output = detector(batch.to(device))
        found = detector.decode(output)[0]
        routed = output.aqr
        limits = output.reference_points.new_tensor(pc_range)
        scene = scene_from_batch(
            batch,
            0,
            detections=(found.boxes, found.labels, found.scores),
            bev_weights=None if routed is None or routed.bev_map is None else routed.bev_map[0],
            image_weights=None if routed is None or routed.image_maps is None else routed.image_maps[0],
            weight_scale=scale,
            queries=None if routed is None else geometry.denormalise(output.reference_points[0], limits),
            camera_names=config.sensors.cameras,
            pc_range=pc_range,
        )
        pictures += draw_sample(scene, out, batch.frames[0].sample_token)
    return pictures


def _number(sample: int | str, tokens: list[str], split: str) -> int:
    if isinstance(sample, str):
        if sample not in tokens:
            raise InputError(f"split {split!r} has no sample {sample!r}; give another --split or sample")
        return tokens.index(sample)
    if not 0 <= sample < len(tokens):
        raise InputError(f"split {split!r} has samples 0 to {len(tokens) - 1}, not {sample}; give another number")
    return sample
