"""`aqr demo`: the whole line in a few minutes, on data it makes itself."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console

from aqr import config as configuration
from aqr.config import Config
from aqr.synth import PresetName, write_world
from aqr.training import evaluate, train, view_run
from aqr.training.console import progress_bar
from aqr.training.denormals import flushed_denormals

ASSETS: Final = Path(__file__).parent / "assets"
BASE: Final = ASSETS / "base.safetensors"
"""A detector without AQR, trained on other synthetic worlds; docs/training.md has the commands that made it."""

STEPS: Final = 40
FINE_TUNING: Final = (
    f"train.init_from={BASE}",
    f"train.steps={STEPS}",
    "train.lr=2.0e-5",
    "train.lr_peak=4.0",
    "train.warmup_fraction=0.3",
    "train.log_every=5",
    "train.stats_every=10",
    f"train.checkpoint_every={STEPS}",
    "data.bev={rotation: 0.3, scale: [0.95, 1.05], translation: 0.2, flip_x: false, flip_y: false}",
)

AQR_LR: Final = "train.lr_mult={aqr: 5, aqr.lidar_gate: 50, aqr.camera_gate: 50}"
"""AQR is new where the rest of the detector is trained, and its gates start closed."""

UNTRAINED: Final = "untrained"
START: Final = "before fine-tuning"
WITHOUT: Final = "without-aqr"
WITH: Final = "with-aqr"


@flushed_denormals()
def run_demo(out: Path, seed: int = 0) -> Path:
    """Make data, fine-tune a detector without and with AQR from the same start, score both and write a report.

    Args:
        out: folder for data/, runs/ and report/. Data are kept from one call to the next, runs and report are made
            anew.
        seed: of the world and of training.

    Returns:
        The report, HTML.

    Raises:
        InputError: where `out` cannot be used.
    """
    from aqr.analysis import analyze

    console = Console()
    begin = time.perf_counter()
    console.print(f"[1/5] a synthetic world in {out / 'data'}", highlight=False)
    write_world_with_progress(out / "data", seed=seed)

    runs = out / "runs"
    shutil.rmtree(runs, ignore_errors=True)
    settings = {name: demo_config(out / "data", seed, aqr=name == WITH) for name in (WITHOUT, WITH)}
    console.print(
        "[2/5] for comparison: a detector that has learned nothing, and the one that both start from", highlight=False
    )
    untrained = evaluate(settings[WITHOUT], show=False)
    data = settings[WITHOUT].data
    start = evaluate(BASE, root=data.root, version=data.version, split=data.val_split, out=runs / "start", show=False)
    for step, name in enumerate((WITHOUT, WITH), start=3):
        console.print(f"[{step}/5] fine-tuning {name.replace('-', ' ')}, {STEPS} steps", highlight=False)
        train(settings[name], runs / name)

    console.print("[5/5] pictures and report", highlight=False)
    pictures = view_run(runs / WITH, out / "report" / "pictures", [0, 11])
    report = analyze(
        [runs / WITH],
        baseline=runs / WITHOUT,
        out=out / "report",
        pictures=pictures,
        extra_rows={UNTRAINED: untrained, START: start},
    )
    path = out / "report" / "report.html"
    console.print(
        f"\nmAP untrained {untrained['mean_ap']:.3f}, before fine-tuning {start['mean_ap']:.3f}.", highlight=False
    )
    console.print(report.verdict, highlight=False)
    console.print(f"Report: {path}  ({(time.perf_counter() - begin) / 60:.1f} minutes)", highlight=False)
    return path


def demo_config(data: Path, seed: int, aqr: bool) -> Config:
    """Settings of one arm; the arms differ in AQR alone."""
    own: tuple[str, ...] = (f"data.root={data}", f"seed={seed}", f"aqr.enabled={str(aqr).lower()}")
    if aqr:
        own += (AQR_LR,)
    return configuration.load(ASSETS / "small.yaml", (*FINE_TUNING, *own))


def write_world_with_progress(
    out: Path,
    *,
    seed: int,
    preset: PresetName = "tiny",
    scenes: int | None = None,
    version: str | None = None,
    workers: int | None = None,
    device: str = "cpu",
    weather: Sequence[str] = (),
) -> None:
    """`aqr.synth.write_world` with a progress bar on a terminal."""
    with progress_bar(Console(stderr=True)) as bar:
        task = bar.add_task("keyframes", total=None)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        write_world(
            out,
            scenes=scenes,
            seed=seed,
            preset=preset,
            version=version,
            workers=workers,
            device=device,
            weather=weather,
            progress=show,
        )
