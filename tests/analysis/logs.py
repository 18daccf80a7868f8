"""A small log in the format of the real ones, and runs from plain numbers."""

from pathlib import Path

import numpy as np

from aqr.analysis.run import Run, Series, Setting, Snapshot, Training

LOSSES = ("loss_cls", "loss_bbox", "d0.loss_cls", "d0.loss_bbox", "dn_loss_cls", "dn_loss_bbox")


def train_line(epoch: int, inner: int, length: int, seed: int = 0, lr: float = 1e-5, grad: str = "") -> str:
    """A line of an mmcv 1.x text log."""
    rng = np.random.default_rng([seed, epoch, inner])
    losses = {name: round(float(rng.uniform(0.05, 0.9)), 4) for name in LOSSES}
    fields = "".join(f", {name}: {value:.4f}" for name, value in losses.items())
    return (
        f"2025-10-12 20:07:35,134 - mmdet - INFO - Epoch [{epoch}][{inner}/{length}]\tlr: {lr:.3e}, eta: 2:38:16, "
        f"time: {rng.uniform(0.5, 2):.3f}, data_time: 0.168, memory: {22000 + inner}{fields}, "
        f"loss: {sum(losses.values()):.4f}, grad_norm: {grad or f'{rng.uniform(30, 60):.4f}'}\n"
    )


def debug_block(forward: int, seed: int, queries: int = 1290, clamp: float = 2.5) -> str:
    """An AQR debug block of one rank."""
    rng = np.random.default_rng([forward, seed])
    u = rng.uniform
    return f"""
🔍 AQR Debug Info (Forward #{forward}):
   FeatureModulator_output_shape: torch.Size([24, 256, 20, 50])
   FeatureModulator_output_stats:
     mean: {u(0.007, 0.009):.6f}
     std: {u(0.08, 0.1):.6f}
     min: {-u(2, 3):.6f}
     max: {u(2, 3):.6f}
   lidar_weights_stats:
     mean: {u(0.65, 0.75):.6f}
     std: {u(0.14, 0.18):.6f}
     min: {u(0.05, 0.1):.6f}
     max: {u(0.97, 0.99):.6f}
     shape: [4, {queries}]
   camera_weights_stats:
     mean: {u(0.76, 0.83):.6f}
     std: {u(0.14, 0.18):.6f}
     min: {u(0.05, 0.1):.6f}
     max: {u(0.97, 0.99):.6f}
     shape: [4, {queries}]
   weight_map_bev_stats:
     mean: {u(0.04, 0.05):.6f}
     std: {u(0.09, 0.1):.6f}
     min: 0.000000
     max: {clamp:.6f}
     shape: [4, 128, 128]
   weight_map_pers_stats:
     mean: {u(0.14, 0.16):.6f}
     std: {u(0.30, 0.35):.6f}
     min: 0.000000
     max: {clamp:.6f}
     shape: [4, 6, 20, 50]
   modulation_effect_bev:
     mean_change: -{u(0.017, 0.02):.6f}
     std_change: {u(0.08, 0.09):.6f}
     max_change: {u(2, 4):.6f}
     relative_change: {u(0.09, 0.11):.6f}
   modulation_effect_pers:
     mean_change: -{u(0.003, 0.005):.6f}
     std_change: {u(0.04, 0.05):.6f}
     max_change: {u(1.5, 1.9):.6f}
     relative_change: {u(0.34, 0.37):.6f}
"""


TABLE = """mAP: 0.6397
mATE: 0.3373
mASE: 0.2500
mAOE: 0.3259
mAVE: 0.2731
mAAE: 0.1876
NDS: 0.6825
Eval time: 145.5s

Per-class results:
Object Class\tAP\tATE\tASE\tAOE\tAVE\tAAE
car\t0.851\t0.190\t0.147\t0.081\t0.301\t0.198
traffic_cone\t0.692\t0.208\t0.310\tnan\tnan\tnan
"""
VAL = (
    "2025-10-12 22:26:31,046 - mmdet - INFO - Epoch(val) [1][753]\tpts_bbox_NuScenes/car_AP_dist_0.5: 0.7508, "
    "pts_bbox_NuScenes/car_AP_dist_1.0: 0.8579, pts_bbox_NuScenes/car_AP_dist_2.0: 0.8894, "
    "pts_bbox_NuScenes/car_AP_dist_4.0: 0.9067, pts_bbox_NuScenes/car_trans_err: 0.1897, "
    "pts_bbox_NuScenes/traffic_cone_orient_err: nan, pts_bbox_NuScenes/mATE: 0.3373, "
    "pts_bbox_NuScenes/NDS: 0.6825, pts_bbox_NuScenes/mAP: 0.6397\n"
)


def small_log() -> str:
    """Four training lines, two snapshots of three ranks, one evaluation, and chatter in between."""
    lines = ["/site-packages/torch/launch.py:163: DeprecationWarning: use 'warning' instead\n"]
    for number, inner in enumerate((50, 100, 150, 200)):
        lines.append(train_line(1, inner, 204, grad="nan" if inner == 50 else ""))
        if number % 2:
            lines += [debug_block(inner, rank, queries=1270 + 10 * rank) for rank in range(3)]
    lines += ["2025-10-12 22:12:37,839 - mmdet - INFO - Saving checkpoint at 1 epochs\n"]
    lines += ["[>>>>] 10/6019, elapsed: 2s, ETA: 1s\r", "[>>>>] 6019/6019, elapsed: 9s, ETA: 0s\r", TABLE, VAL]
    return "".join(lines)


def build_run(
    name: str = "run",
    *,
    series: dict[str, tuple[list[int], list[float]]] | None = None,
    snapshots: list[dict[str, dict[str, list[float]]]] | None = None,
    queries: list[int] | None = None,
    settings: dict[str, str | int | float | bool] | None = None,
    planned: int | None = None,
    **more: object,
) -> Run:
    """A run; snapshots stand at forward 1000, 2000, … with one value per rank."""
    return Run(
        name=name,
        source=Path(name),
        kind="mmcv text log",
        settings={key: Setting(value, "config") for key, value in (settings or {}).items()},
        training=Training(
            {key: Series(np.array(at), np.array(values, dtype=float)) for key, (at, values) in (series or {}).items()},
            planned,
        ),
        snapshots=tuple(
            Snapshot(
                forward=1000 * (number + 1),
                ranks=max(len(values) for stats in groups.values() for values in stats.values()),
                pooled=False,
                samples={
                    group: {key: np.array(values, dtype=float) for key, values in stats.items()}
                    for group, stats in groups.items()
                },
                queries=tuple(queries or ()),
            )
            for number, groups in enumerate(snapshots or [])
        ),
        **more,  # type: ignore[arg-type]
    )
