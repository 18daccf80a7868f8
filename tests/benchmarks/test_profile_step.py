"""What is said of a profile: busy time, gaps and kinds of kernels, and the sections made of it."""

import sys
from pathlib import Path

import pytest
import torch
from benchmarks.profile_step import KINDS, Profile, Span, by_kind, main, sections, summed, written


def test_overlapping_kernels_are_busy_once_and_gaps_lie_between_them() -> None:
    spans = [Span("b", 150.0, 400.0), Span("a", 0.0, 100.0), Span("a", 200.0, 300.0), Span("c", 1400.0, 1500.0)]
    found = summed(spans, runs=2, most=2, wall_ms=[3.0])
    assert found.busy_ms == pytest.approx((100 + 250 + 100) / 2 / 1e3)
    assert found.gaps_us == [1000, 50]
    assert found.launches == 2
    assert found.kernels == [(125.0, 0.5, "b"), (100.0, 1.0, "a")]
    assert found.rest_ms == pytest.approx(0.05)
    assert sum(found.kinds_ms.values()) == pytest.approx(0.55 / 2, abs=0.02)
    assert summed([], runs=1, most=5).busy_ms == 0


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("cudnn_generated_fort_native_sdpa_sm90_flash_bprop_wgmma_f16_knob_26", "attention, backward"),
        ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_7", "attention, forward"),
        ("sm90_xmma_dgrad_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc", "convolutions"),
        ("_ZN17cutlass__5x_cudnn6KernelINS_4conv6kernel23ImplicitGemmConvolution", "convolutions"),
        ("void cutlass__5x_cudnn::Kernel<cutlass_tensorop_bf16_s16816fprop_optimized_bf16>", "convolutions"),
        ("triton_red_fused_add_native_batch_norm_backward_79", "batch norms and what is fused with them"),
        ("_token_gradients", "kernels written for AQR"),
        ("nvjet_sm90_tst_64x128_64x8_2x1_v_bz_splitK_NTN", "matrix products"),
        ("void at::native::multi_tensor_apply_kernel<FusedOptimizer>", "optimizer and clipping"),
        ("triton_poi_fused_cat_transpose_view_20", "other compiled kernels"),
        ("Memset (Device)", "copies, fills and all else"),
    ],
)
def test_kernels_are_known_by_their_names(name: str, kind: str) -> None:
    assert by_kind([(1.0, name)]) == {kind: 1.0}
    assert kind in dict(KINDS)


def of(*wall_ms: float) -> Profile:
    return Profile(list(wall_ms), 40.0, 9.0, [], {}, [], 0.0)


def test_times_become_sections_of_the_bench(tmp_path: Path) -> None:
    profiles = {"step without AQR": of(46.0, 47.0, 48.0), "step with AQR": of(48.5, 49.0, 51.0)}
    made = sections(profiles, "On a quiet host.")
    assert list(made) == ["step_graphs"]
    rows = {row.what: row for row in made["step_graphs"].rows}
    step = rows["training step with AQR, compiled, with CUDA graphs"]
    assert (step.value, step.low, step.high, step.runs, step.reached) == (49.0, 48.5, 51.0, 3, True)
    assert rows["AQR's share of the step, from the two steps"].value == pytest.approx(100 * 2 / 47)
    assert rows["AQR alone over the training step with it, compiled, with CUDA graphs"].value is None
    assert made["step_graphs"].remarks[0].startswith("3 runs each")
    assert made["step_graphs"].remarks[0].endswith("On a quiet host.")
    found = written(tmp_path / "profile.json", {"device": "a GPU"}, profiles, "")
    assert found["sections"]["step_graphs"]["rows"][2]["reached"]
    assert found["profiles"]["step with AQR"]["wall_ms"] == [48.5, 49.0, 51.0]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize(
    ("arguments", "reason"),
    [(["--only", "speed"], "there is no 'speed'"), (["--runs", "0"], "at least one"), ([], "there is no GPU here")],
)
def test_without_a_gpu_it_says_so(
    arguments: list[str], reason: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["profile_step.py", "out.json", *arguments])
    with pytest.raises(SystemExit):
        main()
    assert reason in capsys.readouterr().err
