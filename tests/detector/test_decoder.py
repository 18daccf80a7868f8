import math

import torch
from torch.nn import functional as F

from aqr.detector.attention import Attention
from aqr.detector.decoder import Decoder
from aqr.detector.position import BevEmbedding


def attend_slowly(
    attention: Attention, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor
):
    """Head by head and query by query."""
    q, k, v = attention.query(query), attention.key(key), attention.value(value)
    out = torch.zeros_like(q)
    width = q.shape[-1] // attention.heads
    for b in range(q.shape[0]):
        for head in range(attention.heads):
            part = slice(head * width, (head + 1) * width)
            for i in range(q.shape[1]):
                logits = (k[b, :, part] @ q[b, i, part]) / math.sqrt(width)
                weights = torch.where(mask[b, 0, i], logits, -torch.inf).softmax(0)
                out[b, i, part] = weights @ v[b, :, part]
    return attention.out(out)


def test_attention_equals_a_loop() -> None:
    torch.manual_seed(0)
    attention = Attention(16, 4)
    query, key, value = torch.randn(2, 5, 16), torch.randn(2, 9, 16), torch.randn(2, 9, 16)
    mask = torch.rand(2, 1, 5, 9) > 0.4
    mask[..., 0] = True
    expected = attend_slowly(attention, query, key, value, mask)
    torch.testing.assert_close(attention(query, key, value, mask), expected, atol=1e-5, rtol=1e-5)
    everywhere = attend_slowly(attention, query, key, value, torch.ones_like(mask))
    torch.testing.assert_close(attention(query, key, value), everywhere, atol=1e-5, rtol=1e-5)


def test_new_queries_look_around_their_own_place() -> None:
    """Most of the weight of every head lies within 10 m of the reference point, where chance gives it 3 %."""
    torch.manual_seed(0)
    size = 64
    for dim, heads in [(64, 4), (256, 8)]:
        embed, attention = BevEmbedding(dim, heads), Attention(dim, heads, local=True)
        keys = embed.grid((size, size)).flatten(0, 1)
        cell = 108 / size
        at = torch.tensor([[0.5, 0.5], [0.2, 0.7], [0.05, 0.95]])
        q = attention.query(embed(at)).view(len(at), heads, -1).transpose(0, 1)
        k = attention.key(keys).view(size * size, heads, -1).transpose(0, 1)
        weights = (q @ k.mT / math.sqrt(dim / heads)).softmax(-1).mean(0)
        rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
        for place, weight in zip(at, weights, strict=True):
            distance = torch.hypot((columns + 0.5) * cell - 108 * place[0], (rows + 0.5) * cell - 108 * place[1])
            assert weight[(distance < 10).flatten()].sum() > 0.5


def test_layers_follow_the_post_norm_recipe() -> None:
    torch.manual_seed(0)
    decoder = Decoder(16, 4, 32, 3, dropout=0.0)
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    start, position, tokens = torch.randn(2, 6, 16), torch.randn(2, 6, 16), torch.randn(2, 11, 16)
    values = torch.randn(2, 11, 16)
    out = decoder(start, position, tokens, values)
    assert out.shape == (3, 2, 6, 16)

    def norm(x: torch.Tensor, layer: torch.nn.LayerNorm) -> torch.Tensor:
        mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
        return (x - mean) / (variance + 1e-5).sqrt() * layer.weight + layer.bias

    x = start
    for i, layer in enumerate(decoder.layers):
        free = torch.ones(2, 1, 6, 6, dtype=torch.bool)
        x = norm(x + attend_slowly(layer.self_attention, x + position, x + position, x, free), layer.norms[0])
        free = torch.ones(2, 1, 6, 11, dtype=torch.bool)
        x = norm(x + attend_slowly(layer.cross_attention, x + position, tokens, values, free), layer.norms[1])
        first, _, second = layer.feedforward
        x = norm(x + second(F.relu(first(x))), layer.norms[2])
        torch.testing.assert_close(out[i], norm(x, decoder.post_norm), atol=1e-4, rtol=1e-4)
