"""Camera images: decoded at the size that is needed, resized, cropped and flipped in one step.

Pixel coordinates are continuous: pixel i covers [i, i + 1), the image covers [0, width) x [0, height). In these
coordinates a resize is a plain multiplication, a crop a subtraction and a flip `width - u`, without half-pixel terms.
nuScenes does not say whether its intrinsics count from pixel edges or centres; like the devkit they are taken as they
are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from aqr.errors import InputError

LARGEST_ZOOM: Final = 1.25
"""How far a JPEG decoded at a fraction of its size may be enlarged. Up to here the result differs from the whole image
resized by no more than the decoder's own scaling does: 45 dB on nuScenes' images, as at 1."""

PictureChange = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.uint8]]


@dataclass(frozen=True)
class ImageTransform:
    """Resize the whole image, cut out a window (black where it reaches beyond the image), flip left to right.

    Attributes:
        source: height and width of the image on disk.
        resized: height and width of the whole image after the resize.
        top: first row of the window in the resized image; negative above it.
        left: first column of the window; negative to the left of the image.
        size: height and width of the window.
        flip: whether the window is mirrored left to right.
    """

    source: tuple[int, int]
    resized: tuple[int, int]
    top: int
    left: int
    size: tuple[int, int]
    flip: bool = False

    @property
    def matrix(self) -> npt.NDArray[np.float64]:
        """[3, 3]: homogeneous pixels of the image on disk to those of the result."""
        across, down = self.resized[1] / self.source[1], self.resized[0] / self.source[0]
        matrix = np.array([[across, 0.0, -self.left], [0.0, down, -self.top], [0.0, 0.0, 1.0]])
        if self.flip:
            matrix[0] = [-across, 0.0, self.size[1] + self.left]
        return matrix


def place(
    source: tuple[int, int], size: tuple[int, int], zoom: float = 1.0, across: float = 0.5, flip: bool = False
) -> ImageTransform:
    """The window that the network sees: bottom edge kept, sky cut off.

    Args:
        source: height and width of the image on disk.
        size: height and width of the window.
        zoom: scale relative to the smallest at which the image covers the window. Below 1 the window is wider than
            the image, and the rest is black.
        across: where the window lies between left (0) and right (1) edge.
        flip: mirror the window.
    """
    scale = zoom * max(size[0] / source[0], size[1] / source[1])
    resized = (max(1, round(source[0] * scale)), max(1, round(source[1] * scale)))
    return ImageTransform(
        source, resized, top=resized[0] - size[0], left=round(across * (resized[1] - size[1])), size=size, flip=flip
    )


def read_image(
    path: Path,
    transform: ImageTransform,
    change: PictureChange | None = None,
) -> npt.NDArray[np.uint8]:
    """Decode and transform an image.

    Where less than the full resolution is needed, JPEG is decoded at 1/2, 1/4 or 1/8 of it, and enlarged by up to
    `LARGEST_ZOOM` where the size needed lies above that. The resize is bilinear and anti-aliased.

    Args:
        path: of the image.
        transform: from the image on disk to the result.
        change: makes of the whole picture [h, w, 3], at full resolution, what is transformed instead.

    Returns:
        [3, H, W] uint8 RGB.

    Raises:
        InputError: if the file is missing, no image, truncated, or of another size than the tables say.
    """
    height, width = transform.source
    tall, wide = transform.resized
    try:
        with Image.open(path) as image:
            if image.size != (width, height):
                raise InputError(
                    f"{path}: is {image.size[0]} x {image.size[1]} pixels, sample_data.json says {width} x {height}; "
                    "restore the image, for the camera's intrinsics hold for that size only"
                )
            enough = (math.ceil(wide / LARGEST_ZOOM), math.ceil(tall / LARGEST_ZOOM))
            drafted = image.draft("RGB", enough) if change is None else None
            across, down = (drafted[1][2] / wide, drafted[1][3] / tall) if drafted else (width / wide, height / tall)
            image.load()
            whole = image if image.mode == "RGB" else image.convert("RGB")
            if change is not None:
                whole = Image.fromarray(change(np.array(whole)))
            return transformed(whole, transform, across, down)
    except FileNotFoundError:
        raise InputError(
            f"{path}: the image is missing; restore it, or remove its camera from sensors.cameras"
        ) from None
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: the image cannot be decoded ({error}); restore the file") from None


def transformed(
    whole: Image.Image, transform: ImageTransform, across: float | None = None, down: float | None = None
) -> npt.NDArray[np.uint8]:
    """[3, H, W] uint8 of an RGB picture.

    Args:
        whole: the picture, possibly smaller than `transform.source`.
        transform: what to make of it.
        across: pixels of `whole` per pixel of the resized image, left to right; None for a picture of the full size.
        down: the same, top to bottom.
    """
    across = transform.source[1] / transform.resized[1] if across is None else across
    down = transform.source[0] / transform.resized[0] if down is None else down
    (tall, wide), (rows, columns) = transform.resized, transform.size
    left, right = max(0, transform.left), min(wide, transform.left + columns)
    top, bottom = max(0, transform.top), min(tall, transform.top + rows)
    result = np.zeros((rows, columns, 3), dtype=np.uint8)
    if left < right and top < bottom:
        box = (left * across, top * down, min(right * across, whole.width), min(bottom * down, whole.height))
        part = whole.resize((right - left, bottom - top), Image.Resampling.BILINEAR, box=box)
        covered = (
            slice(top - transform.top, bottom - transform.top),
            slice(left - transform.left, right - transform.left),
        )
        result[covered] = np.asarray(part)
    if transform.flip:
        result = result[:, ::-1]
    return np.ascontiguousarray(result.transpose(2, 0, 1))
