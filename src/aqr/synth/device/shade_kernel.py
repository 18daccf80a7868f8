"""`aqr.synth.device.shading` and the exposure of dry pictures as one Triton kernel.

Shading by PyTorch takes some five hundred launches, and where launches are slow they cost more than the work.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Final

import torch
import triton
import triton.language as tl
from torch import Tensor

from aqr.synth.device.cast import FACES, Hits, Views
from aqr.synth.device.film import Film
from aqr.synth.device.pool import LEVELS, Moments, Pool, constant
from aqr.synth.device.shading import Light, paints
from aqr.synth.device.shadows import CELLS, Shadows
from aqr.synth.device.views import Eyes
from aqr.synth.shadows import CELL
from aqr.synth.solids import Texture

BLOCK: Final = 256
"""Pixels that one program shades."""

WARPS: Final = 8

_GROUND = tl.constexpr(int(Texture.GROUND))
_FACADE = tl.constexpr(int(Texture.FACADE))
_GLASSHOUSE = tl.constexpr(int(Texture.GLASSHOUSE))
_FOLIAGE = tl.constexpr(int(Texture.FOLIAGE))
_ROUGH = tl.constexpr(int(Texture.ROUGH))
_STRIPES = tl.constexpr(int(Texture.STRIPES))
_BANDS = tl.constexpr(int(Texture.BANDS))
_PANELS = tl.constexpr(int(Texture.PANELS))
_LAMP = tl.constexpr(int(Texture.LAMP))
_LEVELS = tl.constexpr(LEVELS)
_CELLS = tl.constexpr(CELLS)
_CELLS_PER_METRE = tl.constexpr(1 / CELL)
_FACES = tl.constexpr(FACES)
_LIGHT = tl.constexpr(Light.WIDTH)


@triton.jit
def _clamped(value, low, high):  # type: ignore[no-untyped-def]
    return tl.minimum(tl.maximum(value, low), high)


@triton.jit
def _whole(value):  # type: ignore[no-untyped-def]
    return _clamped(value, -1e6, 1e6).to(tl.int32)


@triton.jit
def _random(table, a, b, c):  # type: ignore[no-untyped-def]
    return tl.load(table + (((a * 15731) ^ (b * 7919) ^ (c * 2939)) & 8191))


@triton.jit
def _noise(table, x, y, z, per_metre):  # type: ignore[no-untyped-def]
    return _random(
        table, _whole(tl.floor(x * per_metre)), _whole(tl.floor(y * per_metre)), _whole(tl.floor(z * per_metre))
    )


@triton.jit
def _rest(value, by):  # type: ignore[no-untyped-def]
    return value - tl.floor(value / by) * by


@triton.jit
def _skyness(up):  # type: ignore[no-untyped-def]
    share = _clamped(up * 2.2, 0.0, 1.0)
    return tl.where(share > 0, tl.exp2(0.6 * tl.log2(tl.maximum(share, 1e-30))), 0.0)


@triton.jit  # type: ignore[untyped-decorator]
def _shade(  # type: ignore[no-untyped-def]
    inverse,
    code,
    columns,
    rows,
    rotation,
    origin,
    shots,
    scenes,
    lights,
    texture,
    colours,
    frames,
    normals,
    sun,
    sky,
    shadow_origin,
    ground,
    ground_start,
    ground_size,
    ground_origin,
    levels,
    hashes,
    paint_table,
    grain,
    starts,
    source_columns,
    slots,
    out,
    sharp,
    height,
    width,
    blocks,
    solids,
    all_solids,
    planes,
    BLOCK: tl.constexpr,
):
    program = tl.program_id(0)
    view = (program // blocks).to(tl.int64)
    pixel = (program % blocks) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < height * width
    row, column = pixel // width, pixel % width
    area = (height * width).to(tl.int64)

    # Where each pixel's ray ends.
    at = columns + (view * width + column) * 3
    ax, ay, az = (
        tl.load(at, mask=inside, other=0.0),
        tl.load(at + 1, mask=inside, other=0.0),
        tl.load(at + 2, mask=inside, other=0.0),
    )
    at = rows + (view * height + row) * 3
    dx, dy, dz = (
        tl.load(at, mask=inside, other=1.0),
        tl.load(at + 1, mask=inside, other=1.0),
        tl.load(at + 2, mask=inside, other=1.0),
    )
    turn = rotation + view * 9
    r00, r01, r02 = tl.load(turn), tl.load(turn + 1), tl.load(turn + 2)
    r10, r11, r12 = tl.load(turn + 3), tl.load(turn + 4), tl.load(turn + 5)
    r20, r21, r22 = tl.load(turn + 6), tl.load(turn + 7), tl.load(turn + 8)
    tx = (ax * r00 + ay * r01 + az * r02) + (dx * r00 + dy * r01 + dz * r02)
    ty = (ax * r10 + ay * r11 + az * r12) + (dx * r10 + dy * r11 + dz * r12)
    tz = (ax * r20 + ay * r21 + az * r22) + (dx * r20 + dy * r21 + dz * r22)
    length = tl.sqrt(tx * tx + ty * ty + tz * tz)
    tx, ty, tz = tx / length, ty / length, tz / length
    near = tl.load(inverse + view * area + pixel, mask=inside, other=0.0)
    reach = length / tl.maximum(near, 1e-6)
    x = tx * reach + tl.load(origin + view * 3)
    y = ty * reach + tl.load(origin + view * 3 + 1)
    z = tz * reach + tl.load(origin + view * 3 + 2)

    # What is there.
    shot, scene = tl.load(shots + view), tl.load(scenes + view)
    found = tl.load(code + view * area + pixel, mask=inside, other=-1)
    on_solid = found >= 0
    solid, face = tl.maximum(found, 0) // _FACES, tl.maximum(found, 0) % _FACES
    kind = tl.load(texture + scene * solids + solid, mask=on_solid, other=_GROUND)
    flat = kind == _GROUND
    built = inside & on_solid & (kind != _GROUND)
    painted = inside & flat

    light = lights + view * _LIGHT
    sun_x, sun_y, sun_z = tl.load(light + 12), tl.load(light + 13), tl.load(light + 14)
    extinction, wet, exposure = tl.load(light + 21), tl.load(light + 22), tl.load(light + 23)
    lamp_y, lit, noise = tl.load(light + 24), tl.load(light + 25), tl.load(light + 26)

    # Lamps.
    beam, tail, lamp = tl.zeros_like(x), tl.zeros_like(x), tl.zeros_like(x)
    if lit > 0:
        start_x, start_y = tl.load(light + 15), tl.load(light + 16)
        along_x, along_y = tl.load(light + 18), tl.load(light + 19)
        along = (x - start_x) * along_x + (y - start_y) * along_y
        aside = (x - start_x) * along_y - (y - start_y) * along_x
        distance = tl.maximum(along, 1.0)
        spread = aside / (0.38 * distance + 0.8)
        beam = tl.where(along > 0, tl.exp(-(spread * spread)) * (50 / (distance * distance + 60)), 0.0)
        spread = aside / 2.5
        tail = tl.where(along < -4.6, tl.exp(-(spread * spread)) * tl.exp(-tl.abs(along + 6.5) / 3), 0.0)
        nearest = _rest(x, 24.0) - 12.0
        across = tl.abs(y) - lamp_y
        above = 7 - z
        gap = nearest * nearest + across * across + above * above + 4
        lamp = 5.5 * tl.maximum(above, 0.0) / (gap * tl.sqrt(gap))

    # The ground.
    place_x = _clamped((x - tl.load(shadow_origin + shot * 2)) * _CELLS_PER_METRE, -1.0, _CELLS).to(tl.int32)
    place_y = _clamped((y - tl.load(shadow_origin + shot * 2 + 1)) * _CELLS_PER_METRE, -1.0, _CELLS).to(tl.int32)
    place_x = tl.minimum(tl.maximum(place_x, 0), _CELLS - 1)
    place_y = tl.minimum(tl.maximum(place_y, 0), _CELLS - 1)
    cell = (shot * _CELLS + place_y) * _CELLS + place_x
    sunny = tl.load(sun + cell, mask=painted, other=0.0)
    ground_sky = tl.load(sky + cell, mask=painted, other=0.0)
    level = (reach > 14.0).to(tl.int32) + (reach > 28.0).to(tl.int32) + (reach > 56.0).to(tl.int32)
    scale, per_metre = tl.load(levels + level), tl.load(levels + _LEVELS + level)
    depth = tl.load(levels + 2 * _LEVELS + level)
    ground_column = _whole((x - tl.load(ground_origin + scene * 2)) * scale)
    ground_row = _whole((y - tl.load(ground_origin + scene * 2 + 1)) * scale)
    which = scene * _LEVELS + level
    last_row, last_column = tl.load(ground_size + which * 2) - 1, tl.load(ground_size + which * 2 + 1) - 1
    ground_column = tl.minimum(tl.maximum(ground_column, 0).to(tl.int64), last_column)
    ground_row = tl.minimum(tl.maximum(ground_row, 0).to(tl.int64), last_row)
    packed = tl.load(
        ground + tl.load(ground_start + which) + ground_row * (last_column + 1) + ground_column, mask=painted, other=0
    )
    grit = 1 + depth * (_random(hashes, _whole(x * per_metre), _whole(y * per_metre), 0) - 0.5)
    glance = _clamped(1 + 1.6 * tz, 0.0, 1.0)
    glance = 0.35 * wet * (glance * glance * glance) * ground_sky
    dim = 1 - 0.45 * wet

    # Solids.
    body = frames + (shot * solids + solid) * 5
    cos, sin = tl.load(body + 3, mask=built, other=1.0), tl.load(body + 4, mask=built, other=0.0)
    px, py = x - tl.load(body, mask=built, other=0.0), y - tl.load(body + 1, mask=built, other=0.0)
    own_z = z - tl.load(body + 2, mask=built, other=0.0)
    own_x, own_y = cos * px + sin * py, cos * py - sin * px
    normal = normals + ((shot * solids + solid) * planes + face) * 3
    nx, ny, nz = (
        tl.load(normal, mask=built, other=0.0),
        tl.load(normal + 1, mask=built, other=0.0),
        tl.load(normal + 2, mask=built, other=1.0),
    )
    facing_x = tl.abs(cos * nx + sin * ny) > tl.abs(cos * ny - sin * nx)
    side = tl.where(facing_x, own_y, own_x)
    upright = tl.abs(nz) < 0.7

    facade = built & (kind == _FACADE)
    place = tl.where(facing_x, side + 100, side)
    u, v = place * (1 / 2.9), (own_z - 0.4) * (1 / 3.1)
    house, floor = tl.floor(u), tl.floor(v)
    ground_floor = v < 1
    u, v = u - house, v - floor
    wall = facade & upright & (own_z > 0.5)
    shop = wall & ground_floor & (u > 0.08) & (u < 0.92) & (v > 0.12) & (v < 0.8)
    pane = wall & (ground_floor == 0) & (u > 0.22) & (u < 0.78) & (v > 0.28) & (v < 0.82)
    stone = tl.where(facade, 0.90 + 0.20 * _random(hashes, _whole(place * 5), _whole(own_z * 9), 0), 1.0)
    window = pane | shop
    token = _random(hashes, _whole(house), _whole(floor), solid)
    shining = tl.where(window & (token < tl.where(shop, 0.5, 0.25)), 0.4 + token, 0.0)
    glass = built & (kind == _GLASSHOUSE) & (nz < 0.75)
    mirror = tl.where(glass, 0.16, tl.where(window, 0.14, 0.0))
    foliage, rough = kind == _FOLIAGE, kind == _ROUGH
    coarse = _noise(hashes, own_x, own_y, own_z, tl.where(foliage, 3.5, 9.0))
    fine = _noise(hashes, own_x, own_y, own_z, 11.0)
    coat = tl.where(foliage, 0.45 + 0.55 * (coarse + fine), tl.where(rough, 0.8 + 0.4 * coarse, 1.0))
    striped = (kind == _STRIPES) & (_rest(tl.floor((side + own_z) * 3.2), 2.0) > 0)
    banded = (kind == _BANDS) & (_rest(own_z, 0.42) > 0.2) & (own_z > 0.2)
    rib = tl.where((kind == _PANELS) & (_rest(side * 1.6, 1.0) < 0.14) & upright, 0.62, 1.0)
    lantern = tl.where(kind == _LAMP, 1.6, 0.0)
    solid_sky = (0.62 + 0.38 * nz) * (0.55 + 0.45 * _clamped(z * (1 / 0.7), 0.0, 1.0))
    slope = tl.maximum(nx * sun_x + ny * sun_y + nz * sun_z, 0.0)
    toward = tx * nx + ty * ny + tz * nz
    lamp_slope = _clamped(-toward, 0.15, 1.0) * lit
    up = tz - 2 * toward * nz
    mirror = mirror * tl.where(up > 0, 1.0, 0.3)

    mirrored, heaven = _skyness(up), _skyness(tz)
    clear = tl.exp(-reach * extinction)
    fogged = on_solid | (reach < 1000)
    slot = tl.load(slots + view)
    start = tl.load(starts + view * height + row, mask=inside, other=-1)
    source = tl.load(source_columns + view * width + column, mask=inside, other=-1)
    shown = inside & (start >= 0) & (source >= 0)
    speck = grain + tl.maximum(start, 0) + 3 * tl.maximum(source, 0)
    for channel in tl.static_range(3):
        own_sun, ambient = tl.load(light + channel), tl.load(light + 3 + channel)
        zenith, horizon = tl.load(light + 6 + channel), tl.load(light + 9 + channel)
        lamps = beam * tl.load(paint_table + channel) + tail * tl.load(paint_table + 3 + channel)
        lamps += lamp * tl.load(paint_table + 6 + channel)
        paint = ((packed >> (8 * channel)) & 255).to(tl.float32) / 255
        total = ambient * ground_sky + (own_sun * sun_z) * sunny + lamps * (ground_sky * lit)
        earth = paint * paint * grit * total * dim + glance * horizon

        colour = tl.load(colours + channel * all_solids + scene * solids + solid, mask=built, other=0.0) * stone
        colour = tl.where(window, tl.load(paint_table + 9 + channel) + 0.05 * token, colour)
        colour = tl.where(glass, colour * 0.05 + 0.012, colour) * coat
        colour = tl.where(striped, tl.load(paint_table + 12 + channel), colour)
        colour = tl.where(banded, tl.load(paint_table + 15 + channel), colour) * rib
        glow = (shining * tl.load(paint_table + 18 + channel) + colour * lantern) * lit
        total = ambient * solid_sky + (own_sun * 0.95) * slope + lamps * lamp_slope
        colour = colour * total + glow + mirror * (horizon + mirrored * (zenith - horizon))

        colour = tl.where(flat, earth, colour)
        colour = horizon + clear * (colour - horizon)
        colour = tl.where(fogged, colour, horizon + heaven * (zenith - horizon))
        colour = tl.sqrt(_clamped(colour * exposure, 0.0, 1.0))

        if slot < 0:
            specks = tl.load(speck + channel, mask=shown, other=0.0)
            level_8 = tl.where(shown, _clamped((colour + specks * noise) * 255, 0.0, 255.0), 0.0)
            tl.store(out + (view * 3 + channel) * area + pixel, level_8.to(tl.int32).to(tl.uint8), mask=inside)
        else:
            tl.store(sharp + (slot.to(tl.int64) * 3 + channel) * area + pixel, tl.floor(colour * 255), mask=inside)


def launch(
    pool: Pool, moments: Moments, shadows: Shadows, eyes: Eyes, views: Views, hits: Hits, light: Light, film: Film
) -> tuple[Tensor, Tensor]:
    """Shade all views and expose the dry ones.

    Returns:
        [V, 3, H, W] uint8, in which wet pictures are still empty; [R, 3, H, W] float32 whole numbers, wet pictures as
        they would be without drops and noise.
    """
    count, height, width = hits.code.shape
    device = hits.code.device
    out = torch.empty(count, 3, height, width, dtype=torch.uint8, device=device)
    sharp = torch.empty(len(film.wet), 3, height, width, device=device)
    frames = moments.frames.float()
    bodies = torch.cat([frames[..., :3], torch.cos(frames[..., 3:]), torch.sin(frames[..., 3:])], -1)
    blocks = triton.cdiv(height * width, BLOCK)
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        _shade[(count * blocks,)](
            hits.inverse,
            hits.code,
            views.columns,
            views.rows,
            eyes.rotation.float().contiguous(),
            eyes.translation.float().contiguous(),
            eyes.shot,
            moments.scene[eyes.shot],
            light.table,
            pool.texture,
            pool.colour,
            bodies,
            moments.normals.float().contiguous(),
            shadows.sun.contiguous(),
            shadows.sky.contiguous(),
            shadows.origin.float().contiguous(),
            pool.ground,
            pool.ground_start,
            pool.ground_size,
            pool.ground_origin.float().contiguous(),
            constant("ground_levels", device),
            constant("hash", device),
            paints(device),
            constant("grain", device),
            film.starts,
            film.columns,
            film.slots,
            out,
            sharp,
            height,
            width,
            blocks,
            pool.solids,
            pool.colour.shape[1],
            moments.normals.shape[2],
            BLOCK=BLOCK,
            num_warps=WARPS,
        )
    return out, sharp
