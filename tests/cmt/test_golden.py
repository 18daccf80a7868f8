"""Every intermediate result and every output of the original head, from its weights."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from aqr.batch import Batch, Frame
from aqr.cmt.keys import translate
from aqr.config import parse
from aqr.detector import Detector, DetectorOutput
from aqr.detector.cmt.heads import CmtTaskHeads
from aqr.detector.cmt.position import CmtPositionEmbedding, inverse, inverse_sigmoid, sine_code
from aqr.detector.coding import decode_boxes
from aqr.geometry import Pose

IMAGE_SIZE = (320, 800)
TOLERANCE = 1e-4
CENTER_TOLERANCE = 3e-4
HEADS = {"center": slice(0, 2), "height": slice(2, 3), "dim": slice(3, 6), "rot": slice(6, 8), "vel": slice(8, 10)}


class Stored(nn.Module):
    """In place of an encoder: gives features that were computed before; `shared_conv` belongs to the head."""

    def __init__(self, features: Tensor, shared_conv: nn.Module | None = None) -> None:
        super().__init__()
        self.features, self.shared_conv = features, shared_conv

    def forward(self, *_: Any) -> Tensor:
        return self.features if self.shared_conv is None else self.shared_conv(self.features)


def build(golden: Any, **aqr: Any) -> Detector:
    """A detector of CMT's style around the golden features."""
    config = parse(
        {
            "aqr": {"enabled": False, **aqr},
            "detector": {"style": "cmt", "num_query": 100, "max_detections": 100},
        }
    )
    torch.manual_seed(0)
    detector = Detector(config).eval()
    translation = translate(golden.weights, {name: value.shape for name, value in detector.state_dict().items()})
    assert set(translation.used) == set(golden.weights)
    assert all(name.startswith(("lidar_encoder.", "image_encoder.", "aqr.")) for name in translation.missing)
    detector.load_state_dict(translation.tensors, strict=False)
    features = torch.from_numpy(golden.inputs["pts_feats"])
    detector.lidar_encoder = Stored(features, detector.lidar_encoder.shared_conv)
    detector.image_encoder = Stored(torch.from_numpy(golden.inputs["img_feats"])[None])
    return detector


def batch_of(golden: Any) -> Batch:
    identity = tuple(tuple(float(i == j) for j in range(4)) for i in range(4))
    return Batch(
        points=torch.zeros(0, 5),
        point_counts=[0],
        images=torch.zeros(1, 6, 3, *IMAGE_SIZE, dtype=torch.uint8),
        lidar2img=torch.from_numpy(golden.inputs["lidar2img"])[None].float(),
        boxes=torch.zeros(0, 9),
        labels=torch.zeros(0, dtype=torch.int64),
        box_counts=[0],
        frames=[Frame("0", 0, Pose.identity(), (0.0, 0.0, 0.0), identity)],
    )


@pytest.fixture(scope="module")
def detector(golden: Any) -> Iterator[Detector]:
    with torch.no_grad():
        yield build(golden)


@pytest.fixture(scope="module")
def run(golden: Any, detector: Detector) -> tuple[dict[str, Tensor], DetectorOutput]:
    """What the steps of the first decoder layer and all layers give, recorded while the whole detector runs."""
    record: dict[str, Tensor] = {}
    first = detector.decoder.layers[0]

    def note(name: str) -> Any:
        return lambda module, inputs, output: record.__setitem__(name, output)

    def before(name: str) -> Any:
        return lambda module, inputs: record.__setitem__(name, inputs[0])

    hooks = [detector.lidar_encoder.register_forward_hook(note("shared_conv"))]
    hooks += [norm.register_forward_pre_hook(before(f"before{i}")) for i, norm in enumerate(first.norms)]
    hooks += [norm.register_forward_hook(note(f"norm{i}")) for i, norm in enumerate(first.norms)]
    hooks += [layer.register_forward_hook(note(f"layer{i}")) for i, layer in enumerate(detector.decoder.layers)]
    hooks.append(detector.decoder.register_forward_hook(note("outs_dec")))
    output = detector(batch_of(golden))
    for hook in hooks:
        hook.remove()
    return record, output


@pytest.fixture(scope="module")
def states(run: tuple[dict[str, Tensor], DetectorOutput]) -> dict[str, Tensor]:
    return run[0]


def close(got: Tensor, expected: np.ndarray, tolerance: float = TOLERANCE) -> None:
    torch.testing.assert_close(got, torch.from_numpy(np.asarray(expected)).to(got), atol=tolerance, rtol=0)


def test_the_shared_convolution(golden: Any, states: dict[str, Tensor]) -> None:
    close(states["shared_conv"][..., ::4, ::4], golden.outputs["mid.shared_conv.s4"])
    close(states["shared_conv"].mean(1), golden.outputs["mid.shared_conv.chan_mean"])


def test_positions_of_bev_cells(golden: Any, detector: Detector) -> None:
    bev = detector.position.bev
    centres = (torch.arange(64) + 0.5) / 64
    code = sine_code(torch.stack(torch.meshgrid(centres, centres, indexing="xy"), -1), 256)
    close(code[::4, ::4], golden.outputs["mid.bev_pos_sine.s4"])
    embedding = bev.grid((64, 64))
    close(embedding[::4, ::4], golden.outputs["mid.bev_pos_embed.s4"])
    close(embedding.mean(-1), golden.outputs["mid.bev_pos_embed.chan_mean"])


def test_positions_of_image_cells(golden: Any, detector: Detector) -> None:
    ray = detector.position.ray
    img2lidar = inverse(torch.from_numpy(golden.inputs["lidar2img"]))[None]
    pixels = ray.pixels((20, 50), IMAGE_SIZE)
    coordinates = ray.coordinates(pixels.expand(1, 6, -1, -1), img2lidar).view(6, 20, 50, -1)
    close(coordinates[:, ::4, ::5], golden.outputs["mid.rv_pos_coords.s4_5"])
    embedding = ray.grid((20, 50), IMAGE_SIZE, img2lidar)[0]
    close(embedding[:, ::4, ::5], golden.outputs["mid.rv_pos_embed.s4_5"])
    close(embedding.mean(-1), golden.outputs["mid.rv_pos_embed.chan_mean"])


def test_positions_of_queries(golden: Any, detector: Detector) -> None:
    position = detector.position
    assert isinstance(position, CmtPositionEmbedding)
    lidar2img = torch.from_numpy(golden.inputs["lidar2img"])[None]
    points = inverse_sigmoid(detector.reference_points).sigmoid()[None]
    close(sine_code(points[..., :2], 256), golden.outputs["mid.query_ref_sine"])
    on_bev = position.bev(points[..., :2])
    close(on_bev, golden.outputs["mid.bev_query_embeds"])
    pixels, visible = position.project(points, lidar2img, IMAGE_SIZE)
    expected = torch.from_numpy(golden.outputs["mid.query_visible"])
    assert torch.equal(visible, expected)
    assert expected.sum(1).flatten().bincount(minlength=3).tolist() == [1, 87, 12]
    coordinates = position.ray.coordinates(pixels, inverse(lidar2img))
    close(coordinates[expected], golden.outputs["mid.query_rv_coords"][expected.numpy()])
    whole = position(detector.reference_points[None], lidar2img, IMAGE_SIZE)
    close(whole - on_bev, golden.outputs["mid.rv_query_embeds"])
    close(whole, golden.outputs["mid.query_embeds"])


def test_the_first_decoder_layer_step_by_step(golden: Any, states: dict[str, Tensor]) -> None:
    steps = {"attn0": "before0", "attn1": "before1", "ffn": "before2", "norm0": "norm0", "norm1": "norm1"}
    for name, ours in {**steps, "norm2": "norm2"}.items():
        close(states[ours].transpose(0, 1), golden.outputs[f"mid.layer0.{name}"])


def test_every_decoder_layer(golden: Any, states: dict[str, Tensor]) -> None:
    layers = torch.stack([states[f"layer{i}"].transpose(0, 1) for i in range(6)])
    close(layers, golden.outputs["mid.layer_out"])
    close(states["outs_dec"], golden.outputs["mid.outs_dec"])


def test_every_head_after_every_layer(golden: Any, detector: Detector, states: dict[str, Tensor]) -> None:
    heads = detector.heads
    assert isinstance(heads, CmtTaskHeads)
    logits, channels = heads.channels(states["outs_dec"], detector.reference_points[None])
    close(logits, golden.outputs["cls_logits"])
    for name, part in HEADS.items():
        close(channels[..., part], golden.outputs[name], CENTER_TOLERANCE if name == "center" else TOLERANCE)
    raw = heads.read(states["outs_dec"].flatten(1, 2)).view(6, 1, 100, -1)
    close(raw[..., :2], golden.outputs["mid.raw_center"])
    close(raw[..., 2:3], golden.outputs["mid.raw_height"])


def assert_same_boxes(golden: Any, detector: Detector, output: DetectorOutput) -> None:
    """Box for box, matched by query and class, because neighbouring scores lie closer than rounding errors."""
    (found,) = detector.decode(output)
    ours = list(zip(found.query_index.tolist(), found.labels.tolist(), strict=True))
    theirs = list(zip(golden.decoded["query_index"].tolist(), golden.decoded["labels"].tolist(), strict=True))
    assert len(ours) == 75
    assert set(ours) == set(theirs)
    order = [theirs.index(pair) for pair in ours]
    boxes = torch.from_numpy(golden.decoded["boxes"])[order]
    close(found.scores, golden.decoded["scores"][order])
    close(found.boxes[:, :2], boxes[:, :2].numpy(), CENTER_TOLERANCE)
    close(found.boxes[:, 2], boxes[:, 2].numpy())
    torch.testing.assert_close(found.boxes[:, 3:6], boxes[:, 3:6], atol=0, rtol=TOLERANCE)
    turn = (found.boxes[:, 6] - boxes[:, 6] + torch.pi) % (2 * torch.pi) - torch.pi
    assert turn.abs().max() < TOLERANCE
    close(found.boxes[:, 7:], boxes[:, 7:].numpy())
    bottom = found.boxes[:, 2] - found.boxes[:, 5] / 2
    close(bottom, golden.decoded["boxes_bottom_center"][order][:, 2], 2 * TOLERANCE)


def test_the_decoded_boxes(golden: Any, detector: Detector, run: tuple[dict[str, Tensor], DetectorOutput]) -> None:
    assert_same_boxes(golden, detector, run[1])


GATED = [
    {},
    {"preset": "A", "modulator": {"gate": True}},
    {"preset": "B", "modulator": {"gate": True}},
    {"preset": "C", "modulator": {"gate": True}},
    {"parameterisation": "centered", "modulator": {"gate": False}},
]


@pytest.mark.parametrize("settings", GATED, ids=str)
def test_aqr_on_top_changes_nothing_at_step_zero(golden: Any, settings: dict[str, Any]) -> None:
    with torch.no_grad():
        detector = build(golden, **{"enabled": True, **settings})
        output = detector(batch_of(golden))
        assert output.aqr is not None
        assert output.aqr.camera_weights.isfinite().all()
        logits, channels = output.queries.logits, output.queries.codes
        close(logits, golden.outputs["cls_logits"])
        close(channels[..., :2], golden.outputs["center"], CENTER_TOLERANCE)
        assert_same_boxes(golden, detector, output)


def test_aqr_without_a_gate_does_change_the_outputs(golden: Any) -> None:
    with torch.no_grad():
        output = build(golden, enabled=True, preset="A")(batch_of(golden))
    moved = output.queries.logits - torch.from_numpy(golden.outputs["cls_logits"])
    assert moved.abs().max() > 100 * TOLERANCE


def test_boxes_as_mmdet3d_wrote_them_before_its_version_one() -> None:
    """Width before length, and an angle of -yaw - pi/2: the same box either way."""
    torch.manual_seed(0)
    newer = CmtTaskHeads(2, 16, (-54.0, -54.0, -5.0, 54.0, 54.0, 3.0), "mmdet3d-1")
    older = CmtTaskHeads(2, 16, (-54.0, -54.0, -5.0, 54.0, 54.0, 3.0), "mmdet3d-0")
    older.load_state_dict(newer.state_dict())
    states, points = torch.randn(2, 1, 7, 16), torch.rand(1, 7, 3)
    as_newer, as_older = (decode_boxes(heads(states, points)[1]) for heads in (newer, older))
    torch.testing.assert_close(as_older[..., [0, 1, 2, 4, 3, 5, 7, 8]], as_newer[..., [0, 1, 2, 3, 4, 5, 7, 8]])
    turn = as_older[..., 6] - (-as_newer[..., 6] - torch.pi / 2)
    assert (turn.sin().abs() + (turn.cos() - 1).abs()).max() < 1e-5
