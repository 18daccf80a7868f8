"""CMT's detector outside its head, written down once more as functions over a checkpoint's tensors by their own names.

Nothing here is shared with aqr: layouts and arithmetic follow the public descriptions of ResNet, VoVNet, FPN, SECOND
and mmdetection3d. Sparse convolutions are dense ones with a mask.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

State = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]

VOV_BLOCKS = {2: (1, 128, 256), 3: (3, 160, 512), 4: (9, 192, 768), 5: (3, 224, 1024)}
SPARSE_STAGES = [
    ([16, 16, 32], [0, 0, 1]),
    ([32, 32, 64], [0, 0, 1]),
    ([64, 64, 128], [0, 0, (0, 1, 1)]),
    ([128] * 2, [0] * 2),
]


def norm_layout(name: str, channels: int) -> Shapes:
    shapes: Shapes = {f"{name}.{t}": (channels,) for t in ("weight", "bias", "running_mean", "running_var")}
    return {**shapes, f"{name}.num_batches_tracked": ()}


def resnet_layout() -> Shapes:
    shapes: Shapes = {"img_backbone.conv1.weight": (64, 3, 7, 7), **norm_layout("img_backbone.bn1", 64)}
    inputs = 64
    for stage, (blocks, width) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512)), 1):
        for block in range(blocks):
            name = f"img_backbone.layer{stage}.{block}"
            for i, shape in enumerate(((width, inputs, 1, 1), (width, width, 3, 3), (4 * width, width, 1, 1)), 1):
                shapes[f"{name}.conv{i}.weight"] = shape
                shapes |= norm_layout(f"{name}.bn{i}", shape[0])
            if block == 0:
                shapes[f"{name}.downsample.0.weight"] = (4 * width, inputs, 1, 1)
                shapes |= norm_layout(f"{name}.downsample.1", 4 * width)
            inputs = 4 * width
    return shapes | neck_layout((1024, 2048))


def vovnet_layout() -> Shapes:
    shapes: Shapes = {}
    inputs = 3
    for i, width in enumerate((64, 64, 128), 1):
        shapes[f"img_backbone.stem.stem_{i}/conv.weight"] = (width, inputs, 3, 3)
        shapes |= norm_layout(f"img_backbone.stem.stem_{i}/norm", width)
        inputs = width
    for stage, (blocks, width, outputs) in VOV_BLOCKS.items():
        for block in range(1, blocks + 1):
            name = f"OSA{stage}_{block}"
            start = f"img_backbone.stage{stage}.{name}"
            for layer in range(5):
                key = f"{start}.layers.{layer}.{name}_{layer}"
                shapes[f"{key}/conv.weight"] = (width, inputs if layer == 0 else width, 3, 3)
                shapes |= norm_layout(f"{key}/norm", width)
            shapes[f"{start}.concat.{name}_concat/conv.weight"] = (outputs, inputs + 5 * width, 1, 1)
            shapes |= norm_layout(f"{start}.concat.{name}_concat/norm", outputs)
            shapes[f"{start}.ese.fc.weight"] = (outputs, outputs, 1, 1)
            shapes[f"{start}.ese.fc.bias"] = (outputs,)
            inputs = outputs
    return shapes | neck_layout((768, 1024))


def neck_layout(channels: tuple[int, int]) -> Shapes:
    shapes: Shapes = {}
    for i, width in enumerate(channels):
        shapes |= {
            f"img_neck.lateral_convs.{i}.conv.weight": (256, width, 1, 1),
            f"img_neck.lateral_convs.{i}.conv.bias": (256,),
        }
    return shapes | {"img_neck.fpn_convs.0.conv.weight": (256, 256, 3, 3), "img_neck.fpn_convs.0.conv.bias": (256,)}


def lidar_layout(spconv: int = 2) -> Shapes:
    def sparse(outputs: int, kernel: tuple[int, ...], inputs: int) -> tuple[int, ...]:
        return (outputs, *kernel, inputs) if spconv == 2 else (*kernel, inputs, outputs)

    cube = (3, 3, 3)
    shapes: Shapes = {"pts_middle_encoder.conv_input.0.weight": sparse(16, cube, 5)}
    shapes |= norm_layout("pts_middle_encoder.conv_input.1", 16)
    inputs = 16
    for stage, (widths, _) in enumerate(SPARSE_STAGES, 1):
        for i, width in enumerate(widths):
            name = f"pts_middle_encoder.encoder_layers.encoder_layer{stage}.{i}"
            if i == 2:
                shapes[f"{name}.0.weight"] = sparse(width, cube, inputs)
                shapes |= norm_layout(f"{name}.1", width)
            else:
                for j in (1, 2):
                    shapes[f"{name}.conv{j}.weight"] = sparse(width, cube, width)
                    shapes |= norm_layout(f"{name}.bn{j}", width)
            inputs = width
    shapes["pts_middle_encoder.conv_out.0.weight"] = sparse(128, (3, 1, 1), 128)
    shapes |= norm_layout("pts_middle_encoder.conv_out.1", 128)
    inputs = 256
    for stage, width in enumerate((128, 256)):
        for layer in range(6):
            shapes[f"pts_backbone.blocks.{stage}.{3 * layer}.weight"] = (width, inputs, 3, 3)
            shapes |= norm_layout(f"pts_backbone.blocks.{stage}.{3 * layer + 1}", width)
            inputs = width
    shapes["pts_neck.deblocks.0.0.weight"] = (256, 128, 1, 1)
    shapes["pts_neck.deblocks.1.0.weight"] = (256, 256, 2, 2)
    return shapes | norm_layout("pts_neck.deblocks.0.1", 256) | norm_layout("pts_neck.deblocks.1.1", 256)


def head_layout(queries: int, layers: int = 6) -> Shapes:
    head = "pts_bbox_head."
    shapes: Shapes = {
        head + "reference_points.weight": (queries, 3),
        head + "shared_conv.conv.weight": (256, 512, 3, 3),
        **norm_layout(head + "shared_conv.bn", 256),
        head + "bev_embedding.0.weight": (256, 512),
        head + "bev_embedding.2.weight": (256, 256),
        head + "rv_embedding.0.weight": (1024, 192),
        head + "rv_embedding.2.weight": (256, 1024),
        head + "bev_embedding.0.bias": (256,),
        head + "bev_embedding.2.bias": (256,),
        head + "rv_embedding.0.bias": (1024,),
        head + "rv_embedding.2.bias": (256,),
    }
    for layer in range(layers):
        name = f"{head}transformer.decoder.layers.{layer}."
        for kind in (0, 1):
            shapes[f"{name}attentions.{kind}.attn.in_proj_weight"] = (768, 256)
            shapes[f"{name}attentions.{kind}.attn.in_proj_bias"] = (768,)
            shapes[f"{name}attentions.{kind}.attn.out_proj.weight"] = (256, 256)
            shapes[f"{name}attentions.{kind}.attn.out_proj.bias"] = (256,)
        shapes[f"{name}ffns.0.layers.0.0.weight"], shapes[f"{name}ffns.0.layers.0.0.bias"] = (1024, 256), (1024,)
        shapes[f"{name}ffns.0.layers.1.weight"], shapes[f"{name}ffns.0.layers.1.bias"] = (256, 1024), (256,)
        for i in range(3):
            shapes[f"{name}norms.{i}.weight"] = shapes[f"{name}norms.{i}.bias"] = (256,)
    shapes[head + "transformer.decoder.post_norm.weight"] = shapes[head + "transformer.decoder.post_norm.bias"] = (256,)
    for task, width in (("center", 2), ("height", 1), ("dim", 3), ("rot", 2), ("vel", 2), ("cls_logits", 10)):
        name = f"{head}task_heads.0.{task}"
        shapes[f"{name}.0.weight"] = (64 * layers, 256, 1)
        shapes[f"{name}.1.weight"] = shapes[f"{name}.1.bias"] = (64 * layers,)
        shapes[f"{name}.3.weight"], shapes[f"{name}.3.bias"] = (width * layers, 64, 1), (width * layers,)
    return shapes


def random_state(shapes: Shapes, seed: int = 0) -> State:
    """Weights of a size that keeps activations alive, norms that differ from the identity."""
    source = torch.Generator().manual_seed(seed)
    state: State = {}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(7)
        elif name.endswith("running_var"):
            state[name] = 0.5 + torch.rand(shape, generator=source)
        elif len(shape) == 1:
            state[name] = (1.0 if name.endswith("weight") else 0.0) + 0.2 * torch.randn(shape, generator=source)
        else:
            inputs = torch.Size(shape).numel() / max(shape[0], shape[-1])
            state[name] = torch.randn(shape, generator=source) * (2 / inputs) ** 0.5
    return state


def norm(state: State, name: str, x: Tensor, eps: float = 1e-5) -> Tensor:
    shape = (1, -1) + (1,) * (x.dim() - 2)
    mean, var, gain, bias = (
        state[f"{name}.{t}"].view(shape) for t in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (var + eps).sqrt() * gain + bias


def resnet(state: State, x: Tensor, caffe: bool) -> list[Tensor]:
    s = {name.removeprefix("img_backbone."): value for name, value in state.items()}
    x = norm(s, "bn1", F.conv2d(x, s["conv1.weight"], stride=2, padding=3)).relu()
    x = F.max_pool2d(x, 3, 2, 1)
    out = []
    for stage, blocks in enumerate((3, 4, 6, 3), 1):
        for block in range(blocks):
            p, stride = f"layer{stage}.{block}.", 2 if stage > 1 and block == 0 else 1
            kept = x
            if block == 0:
                kept = norm(s, p + "downsample.1", F.conv2d(x, s[p + "downsample.0.weight"], stride=stride))
            strides = (stride, 1) if caffe else (1, stride)
            x = norm(s, p + "bn1", F.conv2d(x, s[p + "conv1.weight"], stride=strides[0])).relu()
            x = norm(s, p + "bn2", F.conv2d(x, s[p + "conv2.weight"], stride=strides[1], padding=1)).relu()
            x = (norm(s, p + "bn3", F.conv2d(x, s[p + "conv3.weight"])) + kept).relu()
        out.append(x)
    return out[2:]


def vovnet(state: State, x: Tensor) -> list[Tensor]:
    s = {name.removeprefix("img_backbone."): value for name, value in state.items()}

    def unit(key: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = s[key + "/conv.weight"]
        return norm(s, key + "/norm", F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)).relu()

    for i, stride in ((1, 2), (2, 1), (3, 2)):
        x = unit(f"stem.stem_{i}", x, stride)
    out = []
    for stage, (blocks, _, _) in VOV_BLOCKS.items():
        if stage > 2:
            x = F.max_pool2d(x, kernel_size=3, stride=2, ceil_mode=True)
        for block in range(1, blocks + 1):
            name = f"OSA{stage}_{block}"
            chain = [x]
            for layer in range(5):
                chain.append(unit(f"stage{stage}.{name}.layers.{layer}.{name}_{layer}", chain[-1]))
            y = unit(f"stage{stage}.{name}.concat.{name}_concat", torch.cat(chain, 1))
            gate = F.conv2d(
                y.mean((2, 3))[..., None, None],
                s[f"stage{stage}.{name}.ese.fc.weight"],
                s[f"stage{stage}.{name}.ese.fc.bias"],
            )
            y = y * (F.relu6(gate + 3) / 6)
            x = y + x if block > 1 else y
        out.append(x)
    return out[2:]


def neck(state: State, levels: list[Tensor]) -> Tensor:
    fine, coarse = (
        F.conv2d(x, state[f"img_neck.lateral_convs.{i}.conv.weight"], state[f"img_neck.lateral_convs.{i}.conv.bias"])
        for i, x in enumerate(levels)
    )
    rows, columns = (torch.arange(n) * c // n for n, c in zip(fine.shape[2:], coarse.shape[2:], strict=True))
    fine = fine + coarse[:, :, rows][..., columns]
    return F.conv2d(fine, state["img_neck.fpn_convs.0.conv.weight"], state["img_neck.fpn_convs.0.conv.bias"], padding=1)


def middle(state: State, dense: Tensor, occupied: Tensor) -> Tensor:
    """The sparse encoder on a dense grid [B, 5, D, H, W] and its mask [B, 1, D, H, W]."""

    def convolve(x: Tensor, key: str, **how: object) -> Tensor:
        return F.conv3d(x, state[key].permute(0, 4, 1, 2, 3), **how)

    def same(x: Tensor, key: str) -> Tensor:
        return convolve(x, key, padding=1) * mask

    def normed(x: Tensor, key: str) -> Tensor:
        return norm(state, key, x, eps=1e-3) * mask

    def down(x: Tensor, key: str, size: tuple[int, ...], **how: object) -> tuple[Tensor, Tensor]:
        reached = (F.conv3d(mask, torch.ones(1, 1, *size), **how) > 0).float()
        return convolve(x, key, **how), reached

    mask, p = occupied.float(), "pts_middle_encoder."
    x = normed(same(dense * mask, p + "conv_input.0.weight"), p + "conv_input.1").relu()
    for stage, (widths, paddings) in enumerate(SPARSE_STAGES, 1):
        for i, padding in enumerate(paddings[: len(widths)]):
            key = f"{p}encoder_layers.encoder_layer{stage}.{i}."
            if i == 2:
                x, mask = down(x, key + "0.weight", (3, 3, 3), stride=2, padding=padding)
                x = normed(x, key + "1").relu()
            else:
                y = normed(same(x, key + "conv1.weight"), key + "bn1").relu()
                x = (normed(same(y, key + "conv2.weight"), key + "bn2") + x).relu()
    x, mask = down(x, p + "conv_out.0.weight", (3, 1, 1), stride=(2, 1, 1))
    x = normed(x, p + "conv_out.1").relu()
    return x.reshape(x.shape[0], -1, *x.shape[3:])


def second(state: State, x: Tensor) -> Tensor:
    out = []
    for stage, stride in enumerate((1, 2)):
        for layer in range(6):
            key = f"pts_backbone.blocks.{stage}.{3 * layer}"
            x = F.conv2d(x, state[f"{key}.weight"], stride=stride if layer == 0 else 1, padding=1)
            x = norm(state, f"pts_backbone.blocks.{stage}.{3 * layer + 1}", x, eps=1e-3).relu()
        out.append(x)
    fine = F.conv2d(out[0], state["pts_neck.deblocks.0.0.weight"])
    coarse = F.conv_transpose2d(out[1], state["pts_neck.deblocks.1.0.weight"], stride=2)
    return torch.cat(
        [
            norm(state, "pts_neck.deblocks.0.1", fine, 1e-3).relu(),
            norm(state, "pts_neck.deblocks.1.1", coarse, 1e-3).relu(),
        ],
        1,
    )
