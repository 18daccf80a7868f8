import math

import torch

from aqr.detector.heads import TaskHeads, inverse_sigmoid
from aqr.detector.reference import initial_points

PC_RANGE = (-54.0, -30.0, -5.0, 54.0, 30.0, 3.0)


def test_codes_are_metres_around_the_reference_point_and_layers_have_their_own_weights() -> None:
    torch.manual_seed(0)
    heads = TaskHeads(2, 16, PC_RANGE)
    for parameter in heads.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    states, references = torch.randn(2, 3, 4, 16), torch.rand(3, 4, 3)
    logits, codes = heads(states, references)
    assert logits.shape == codes.shape == (2, 3, 4, 10)
    low, high = PC_RANGE[:3], PC_RANGE[3:]
    for layer in range(2):
        for b in range(3):
            for q in range(4):
                values = []
                for head in (heads.center, heads.height, heads.dim, heads.rot, heads.vel, heads.cls_logits):
                    x = states[layer, b, q] @ head.hidden.weight[layer] + head.hidden.bias[layer, 0]
                    x = (x - x.mean()) / (x.var(unbiased=False) + 1e-6).sqrt()
                    x = (x * head.norm_weight[layer, 0] + head.norm_bias[layer, 0]).clamp(min=0)
                    values += (x @ head.out.weight[layer] + head.out.bias[layer, 0]).tolist()
                for axis in range(3):
                    r = references[b, q, axis].item()
                    unit = 1 / (1 + math.exp(-(values[axis] + math.log(r / (1 - r)))))
                    values[axis] = low[axis] + unit * (high[axis] - low[axis])
                got = codes[layer, b, q].tolist() + logits[layer, b, q].tolist()
                torch.testing.assert_close(torch.tensor(got), torch.tensor(values), atol=1e-3, rtol=1e-4)


def test_new_heads_stay_on_the_reference_point_and_claim_no_class() -> None:
    heads = TaskHeads(2, 16, PC_RANGE)
    logits, codes = heads(torch.randn(2, 1, 5, 16), torch.full((1, 5, 3), 0.75))
    torch.testing.assert_close(codes[..., :3], torch.tensor([27.0, 15.0, 1.0]).expand(2, 1, 5, 3), atol=1.0, rtol=0)
    assert logits.sigmoid().mean() < 0.2


def test_a_reference_point_on_the_edge_is_finite() -> None:
    assert inverse_sigmoid(torch.tensor([0.0, 1.0])).isfinite().all()
    torch.testing.assert_close(inverse_sigmoid(torch.tensor([0.3])).sigmoid(), torch.tensor([0.3]))


def test_grid_points_cover_the_range_evenly() -> None:
    points = initial_points("grid", 225, (-54.0, -54.0, -5.0, 54.0, 54.0, 3.0))
    assert sorted({round(x, 4) for x in points[:, 0].tolist()}) == [round((i + 0.5) / 15, 4) for i in range(15)]
    assert len(points.unique(dim=0)) == 225
    torch.testing.assert_close(points[:, 2], torch.full((225,), 0.5))
    for count in (1, 2, 7, 150, 900):
        points = initial_points("grid", count, PC_RANGE)
        assert points.shape == (count, 3)
        assert len(points.unique(dim=0)) == count
        assert ((points > 0) & (points < 1)).all()
        nearest = (torch.cdist(points[:, :2], points[:, :2]) + 10 * torch.eye(count)).amin(1) if count > 1 else None
        assert nearest is None or nearest.min() > 0.4 / math.sqrt(count)
