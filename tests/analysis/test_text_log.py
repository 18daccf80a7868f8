"""Text logs: real ones against a reader that walks line by line, and every way in which logs are damaged."""

import gzip
import re
from pathlib import Path

import numpy as np
import pytest
from tests.analysis.logs import TABLE, VAL, debug_block, small_log, train_line

from aqr.analysis import read_run
from aqr.analysis.run import Run
from aqr.errors import InputError


def read(folder: Path, text: str | bytes, name: str = "some.log") -> Run:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_run(path)


def obvious_series(path: Path) -> dict[str, list[tuple[int, float]]]:
    """Every field of every training line, one at a time."""
    names = {"time": "step_time_s", "data_time": "data_time_s", "memory": "memory_mb"}
    found: dict[str, list[tuple[int, float]]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        match = re.search(r"Epoch \[1\]\[(\d+)/4004\]\t(.*)", line)
        for part in match[2].split(", ") if match else []:
            name, value = part.split(": ")
            if name != "eta":
                found.setdefault(names.get(name, name), []).append((int(match[1]), float(value)))
    return found


@pytest.mark.parametrize("which", ["aqr_log", "no_aqr_log"])
def test_every_field_of_the_real_logs(which: str, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(which)
    expected = obvious_series(path)
    series = read_run(path).training.series
    assert series.keys() == expected.keys()
    assert len(series) == 30
    for name, pairs in expected.items():
        np.testing.assert_array_equal(series[name].iteration, [at for at, _ in pairs])
        np.testing.assert_array_equal(series[name].value, [value for _, value in pairs])


def test_every_value_of_the_real_blocks(aqr_log: Path) -> None:
    text = aqr_log.read_text(encoding="utf-8")
    run = read_run(aqr_log)
    for group, header in (("lidar_weights", "lidar_weights_stats"), ("modulation_pers", "modulation_effect_pers")):
        for statistic in run.snapshots[0].samples[group]:
            pattern = (
                rf"Forward #(\d+)(?:(?!Forward #).)*?{header}:(?:\n     \w+: [^\n]*)*?\n     {statistic}: ([-\d.]+)"
            )
            expected = [(int(at), float(value)) for at, value in re.findall(pattern, text, re.DOTALL)]
            assert len(expected) == 32
            for snapshot in run.snapshots:
                own = sorted(value for at, value in expected if at == snapshot.forward)
                assert sorted(snapshot.values(group, statistic).tolist()) == own


def test_small_log(tmp_path: Path) -> None:
    run = read(tmp_path, small_log())
    assert run.kind == "mmcv text log"
    assert run.training.series["loss"].iteration.tolist() == [50, 100, 150, 200]
    assert run.training.nonfinite_grad_iterations == (50,)
    assert run.training.iterations == 204
    assert [(one.forward, one.ranks, one.queries) for one in run.snapshots] == [
        (100, 3, (1270, 1280, 1290)),
        (200, 3, (1270, 1280, 1290)),
    ]
    assert len(run.evaluations) == 1
    assert run.evaluation is not None
    assert run.evaluation.figures["mAP"] == 0.6397
    assert run.evaluation.per_class["car"].ap_by_distance["0.5"] == 0.7508
    assert np.isnan(run.evaluation.per_class["traffic_cone"].figures["AOE"])
    assert run.evaluation.iteration == 204
    assert run.notes == ()


def same(run: Run, other: Run) -> bool:
    """Whether two runs say the same."""
    if run.training.series.keys() != other.training.series.keys():
        return False
    for name, series in run.training.series.items():
        if not np.array_equal(series.value, other.training.series[name].value, equal_nan=True):
            return False
    for one, two in zip(run.snapshots, other.snapshots, strict=True):
        for group, stats in one.samples.items():
            for name, values in stats.items():
                if sorted(values.tolist()) != sorted(two.samples[group][name].tolist()):
                    return False
    figures = [one.figures for one in run.evaluations], [one.figures for one in other.evaluations]
    return figures[0] == figures[1]


@pytest.mark.parametrize(
    "encode",
    [
        pytest.param(lambda text: gzip.compress(text.encode()), id="gzip"),
        pytest.param(lambda text: b"".join(map(gzip.compress, text.encode().partition(b"Epoch"))), id="three gzips"),
        pytest.param(lambda text: text.encode("utf-16"), id="utf-16"),
        pytest.param(lambda text: text.replace("\n", "\r\n").encode(), id="windows"),
        pytest.param(lambda text: text.encode().replace("🔍".encode(), b"\xff\xfe?"), id="broken characters"),
        pytest.param(lambda text: ("注意：\n" + text).encode("gb18030", "replace"), id="another encoding"),
    ],
)  # fmt: skip
def test_encodings(tmp_path: Path, encode: object) -> None:
    plain = read(tmp_path, small_log())
    assert same(read(tmp_path, encode(small_log()), "other.log"), plain)  # type: ignore[operator]


def test_folder_with_a_log_in_it(tmp_path: Path) -> None:
    (tmp_path / "work" / "20251012").mkdir(parents=True)
    (tmp_path / "work" / "20251012" / "a.log").write_text(small_log(), encoding="utf-8")
    (tmp_path / "work" / "notes.txt").write_text("nothing of use\n")
    (tmp_path / "work" / "results.json").write_text('{"meta": {}, "results": {}}')
    assert len(read_run(tmp_path).snapshots) == 2


def test_blocks_in_any_order_and_interrupted(tmp_path: Path) -> None:
    blocks = [debug_block(1000, rank) for rank in range(4)]
    straight = read(tmp_path, "".join(blocks))
    lines = blocks[2].split("\n")
    noisy = "\n".join(
        [*lines[:9], "UserWarning: floor_divide is deprecated", train_line(1, 50, 99).strip(), *lines[9:]]
    )
    other = read(tmp_path, blocks[3] + noisy + blocks[0] + blocks[1], "other.log")
    for group, stats in straight.snapshots[0].samples.items():
        for name, values in stats.items():
            assert sorted(values.tolist()) == sorted(other.snapshots[0].samples[group][name].tolist())
    assert other.snapshots[0].ranks == 4
    assert other.notes == ()


def test_ranks_that_cut_into_each_other_give_no_wrong_value(tmp_path: Path) -> None:
    first, second = (debug_block(1000, rank).strip("\n").split("\n") for rank in range(2))
    mixed = [line for pair in zip(first, second, strict=True) for line in pair]
    whole = [debug_block(1000, rank) for rank in range(2, 5)]
    run = read(tmp_path, "".join(whole) + "\n".join(mixed) + "\n")
    assert run.snapshots[0].ranks == 3
    assert any("mixed up between ranks" in str(note) for note in run.notes)
    alone = read(tmp_path, "".join(whole), "other.log")
    for group, stats in alone.snapshots[0].samples.items():
        for name, values in stats.items():
            assert run.snapshots[0].samples[group][name].tolist() == values.tolist()


def test_ranks_are_told_apart_where_the_launcher_names_them(tmp_path: Path) -> None:
    parts = [[f"[rank{rank}]: {line}" for line in debug_block(1000, rank).split("\n")] for rank in range(3)]
    mixed = "\n".join(line for lines in zip(*parts, strict=True) for line in lines) + "\n"
    run = read(tmp_path, mixed)
    plain = read(tmp_path, "".join(debug_block(1000, rank) for rank in range(3)), "other.log")
    assert run.snapshots[0].ranks == 3
    assert same(run, plain)


def test_cut_off_in_a_number(tmp_path: Path) -> None:
    text = train_line(1, 50, 99) + train_line(1, 99, 99)
    cut = text[: text.rindex("loss: ") + len("loss: 1.2")]
    run = read(tmp_path, cut)
    assert run.training.series["loss"].iteration.tolist() == [50]
    assert run.training.series["dn_loss_bbox"].iteration.tolist() == [50, 99]
    assert any("middle of a line" in str(note) for note in run.notes)


def test_line_that_breaks_off_in_the_middle_of_the_log(tmp_path: Path) -> None:
    lines = [train_line(1, at, 999) for at in (50, 100, 150)]
    broken = train_line(1, 200, 999)
    broken = broken[: broken.index("loss_bbox: ") + len("loss_bbox: 0.1")] + "\n"
    run = read(tmp_path, "".join([*lines[:2], broken, lines[2].replace("[150", "[250")]))
    assert run.training.series["loss_cls"].iteration.tolist() == [50, 100, 200, 250]
    assert run.training.series["loss_bbox"].iteration.tolist() == [50, 100, 250]
    assert any("break off" in str(note) for note in run.notes)


def test_resumed_run_in_one_log(tmp_path: Path) -> None:
    first = [train_line(1, at, 999, seed=1) for at in (50, 100, 150)]
    again = [train_line(1, at, 999, seed=2) for at in (100, 150, 200)]
    blocks = debug_block(100, 1), debug_block(100, 2)
    run = read(tmp_path, "".join([*first[:2], blocks[0], first[2], *again[:1], blocks[1], *again[1:]]))
    alone = read(tmp_path, "".join([first[0], *again]), "other.log")
    assert run.training.series["loss"].iteration.tolist() == [50, 100, 150, 200]
    np.testing.assert_array_equal(run.training.series["loss"].value, alone.training.series["loss"].value)
    assert run.snapshots[0].ranks == 1
    assert any("starts again 1 times" in str(note) for note in run.notes)


def test_epochs_become_global_iterations(tmp_path: Path) -> None:
    run = read(tmp_path, train_line(1, 50, 120) + train_line(1, 100, 120) + train_line(2, 50, 120))
    assert run.training.series["loss"].iteration.tolist() == [50, 100, 170]
    assert run.training.epoch_length == 120


def test_iteration_based_runner(tmp_path: Path) -> None:
    line = train_line(1, 50, 80000).replace("Epoch [1][50/80000]", "Iter [50/80000]")
    run = read(tmp_path, line)
    assert run.training.planned == 80000
    assert run.training.series["loss"].iteration.tolist() == [50]


def test_several_evaluations(tmp_path: Path) -> None:
    second = TABLE.replace("0.6397", "0.7000"), VAL.replace("0.6397", "0.7000").replace("(val) [1]", "(val) [2]")
    text = [train_line(1, 100, 120), TABLE, VAL, train_line(2, 100, 120), *second]
    run = read(tmp_path, "".join(text))
    assert [(one.iteration, one.figures["mAP"]) for one in run.evaluations] == [(120, 0.6397), (240, 0.7)]


MMENGINE = """2023/05/01 10:00:00 - mmengine - INFO -
model = dict(
    aqr=dict(renderer=dict(max_weight_clamp=2.2), modulator=dict(residual_weight=0.68, enable_aqr=True)))
2023/05/01 12:00:00 - mmengine - INFO - Epoch(train)  [1][  50/4004]  base_lr: 1.0000e-04 lr: 2.0000e-05  eta: 1 day, 2:38:16  time: 0.5123  data_time: 0.0101  memory: 21587  grad_norm: 35.1000  loss: 13.3500  loss_cls: 0.1000
2023/05/01 12:01:00 - mmengine - INFO - Epoch(train)  [1][ 100/4004]  base_lr: 1.0000e-04 lr: 2.1000e-05  eta: 23:38:16  time: 0.5124  data_time: 0.0102  memory: 21588  grad_norm: nan  loss: 12.3500  loss_cls: 0.0900
2023/05/01 13:00:00 - mmengine - INFO - Epoch(val) [1][ 50/753]    eta: 0:01:00  time: 0.1000  data_time: 0.0100  memory: 5000
2023/05/01 13:10:00 - mmengine - INFO - Epoch(val) [1][753/753]    NuScenes metric/pred_instances_3d_NuScenes/car_AP_dist_0.5: 0.7508  NuScenes metric/pred_instances_3d_NuScenes/car_trans_err: 0.1897  NuScenes metric/pred_instances_3d_NuScenes/NDS: 0.6825  NuScenes metric/pred_instances_3d_NuScenes/mAP: 0.6397  data_time: 0.0100  time: 0.2000
"""  # noqa: E501


def test_mmengine(tmp_path: Path) -> None:
    run = read(tmp_path, MMENGINE)
    assert run.kind == "mmengine text log"
    series = run.training.series
    assert series["loss"].value.tolist() == [13.35, 12.35]
    assert series["lr"].value.tolist() == [2e-5, 2.1e-5]
    assert series["step_time_s"].value.tolist() == [0.5123, 0.5124]
    assert run.training.nonfinite_grad_iterations == (100,)
    assert run.evaluation is not None
    assert run.evaluation.figures == {"mAP": 0.6397, "NDS": 0.6825}
    assert run.evaluation.iteration == 4004
    assert (run.number("max_weight_clamp"), run.number("residual_weight"), run.uses_aqr) == (2.2, 0.68, True)


def test_setting_printed_with_two_values_is_none(tmp_path: Path) -> None:
    run = read(tmp_path, "a = dict(max_weight_clamp=2.0)\nb = dict(max_weight_clamp=2.5)\n" + train_line(1, 50, 99))
    assert "max_weight_clamp" not in run.settings
    assert any("2.0, 2.5" in str(note) for note in run.notes)


def test_name_that_contradicts_the_figures(tmp_path: Path) -> None:
    run = read(tmp_path, "".join(debug_block(at, 1) for at in (1, 2, 3)), "clamp2.0_residual0.65.log")
    assert run.number("max_weight_clamp") == 2.5
    assert run.number("residual_weight") == 0.65
    assert any("max_weight_clamp = 2.0" in str(note) for note in run.notes)


def test_experiment_name_says_nothing_about_aqr(tmp_path: Path) -> None:
    text = "2025 - mmdet - INFO - Exp name: cmt_aqr_voxel0100.py\n" + train_line(1, 50, 99)
    assert read(tmp_path, text, "run.log").uses_aqr is None


@pytest.mark.parametrize("content", [b"", b"hello\n", b"\x00" * 100, b"Epoch [1][50/\n", b"{}\n", b"[]\n{}\n"])
def test_what_is_no_log(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.log").write_bytes(content)
    with pytest.raises(InputError, match=r"x\.log: holds no training lines"):
        read_run(tmp_path / "x.log")
    with pytest.raises(InputError):
        read_run(tmp_path)


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.log: is not there"):
        read_run(tmp_path / "nowhere.log")
