"""Camera failures, on a decoded picture [H, W, 3] uint8 before it is resized, cropped and flipped.

They happen in the camera, hence before anything that we do with its picture: the blocks of a JPEG, dirt on the lens
and noise are then the same whatever size a network sees. Lengths are in image widths, areas in shares of the image.
The same draws serve every severity.
"""

from __future__ import annotations

import io
import math
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.signal import fftconvolve

Picture = npt.NDArray[np.uint8]

_LEVELS: Final = np.arange(256, dtype=np.float32) / 255


def black(picture: Picture) -> Picture:
    """A camera that delivers nothing, read as zeros (MultiCorrupt, nuScenes-R)."""
    return np.zeros_like(picture)


DIRT: Final = (46.0, 38.0, 28.0)
_OCTAVES: Final = ((3, 1.0), (7, 0.6), (17, 0.3), (43, 0.12))
"""Cells across the image and weight of each layer of the dirt's noise."""
_EDGE: Final = 0.15
"""Width of the transition from clear to covered, in standard deviations of the noise."""


def occlude(picture: Picture, share: float, random: np.random.Generator) -> Picture:
    """Dirt on the lens, out of focus at its edges (nuScenes-R, "occlusion of camera lens").

    Args:
        picture: [H, W, 3].
        share: of the image that is covered more than half.
        random: source of shape and shade; a larger share covers what a smaller one covers.
    """
    height, width = picture.shape[:2]
    field = np.zeros((height, width), dtype=np.float32)
    for across, weight in _OCTAVES:
        down = max(2, round(across * height / width))
        cells = random.standard_normal((down, across + 1), dtype=np.float32)
        field += weight * np.asarray(Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC))
    edge = _EDGE * float(field.std())
    cover = ((field - np.quantile(field, 1 - share)) / edge + 0.5).clip(0, 1)[..., None]
    shade = 1 + 0.2 * random.standard_normal((height // 4 + 1, width // 4 + 1), dtype=np.float32)
    grain = np.asarray(Image.fromarray(shade).resize((width, height), Image.Resampling.BICUBIC))[..., None]
    dirt = np.array(DIRT, dtype=np.float32) * grain
    return np.asarray(np.round(picture + (dirt - picture) * cover).clip(0, 255), dtype=np.uint8)


def darken(picture: Picture, white: float, random: np.random.Generator) -> Picture:
    """Night, and the noise of a sensor that amplifies what little there is (MultiCorrupt's "dark").

    A level v in [0, 1] becomes `white`·v², with shot noise of variance v/photons and read noise.

    Args:
        picture: [H, W, 3].
        white: what white becomes; 0.6, 0.4, 0.3 come with MultiCorrupt's photons and read noise.
        random: source of the noise.
    """
    photons = float(np.interp(white, (0.3, 0.4, 0.6), (50, 120, 250)))
    read = float(np.interp(white, (0.3, 0.4, 0.6), (0.026, 0.018, 0.008)))
    level = white * _LEVELS**2
    spread = np.sqrt(level / photons + read**2)
    noise = random.standard_normal(picture.shape, dtype=np.float32)
    return np.asarray(np.round((level[picture] + spread[picture] * noise) * 255).clip(0, 255), dtype=np.uint8)


def overexpose(picture: Picture, stops: float) -> Picture:
    """Exposed 2^stops times too long: linear light is multiplied and cut off at white."""
    table = np.round(np.minimum(_LEVELS**2.2 * 2**stops, 1) ** (1 / 2.2) * 255).astype(np.uint8)
    return np.asarray(table[picture])


def motion_blur(picture: Picture, length: float, random: np.random.Generator) -> Picture:
    """The mean along a straight line through each pixel, at most 45° from level as in MultiCorrupt.

    Args:
        picture: [H, W, 3].
        length: of the line, image widths.
        random: source of the direction.
    """
    pixels = length * picture.shape[1]
    angle = random.uniform(-np.pi / 4, np.pi / 4)
    reach = math.ceil(pixels / 2) + 1
    along = np.linspace(-pixels / 2, pixels / 2, 8 * reach)
    corner = np.array([np.sin(angle), np.cos(angle)])[:, None] * along + reach
    row, column = np.floor(corner).astype(int)
    down, across = corner - np.floor(corner)
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), dtype=np.float32)
    np.add.at(kernel, (row, column), (1 - down) * (1 - across))
    np.add.at(kernel, (row, column + 1), (1 - down) * across)
    np.add.at(kernel, (row + 1, column), down * (1 - across))
    np.add.at(kernel, (row + 1, column + 1), down * across)
    padded = np.pad(picture, ((reach, reach), (reach, reach), (0, 0)), mode="edge").astype(np.float32)
    blurred = fftconvolve(padded, (kernel / kernel.sum())[..., None], mode="valid", axes=(0, 1))
    return np.asarray(np.round(blurred).clip(0, 255), dtype=np.uint8)


def compress(picture: Picture, quality: int) -> Picture:
    """Through JPEG at a quality of 1 to 95 (ImageNet-C)."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    return np.array(Image.open(file))
