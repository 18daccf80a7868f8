"""Ground that things cover over time, and whether two of them ever share some."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]


class Footprints:
    """Ground that is taken, quadrilateral by quadrilateral, each at the same T times."""

    def __init__(self) -> None:
        self._quads: list[Floats] = []
        self._reach: list[Floats] = []

    def take(self, quad: Floats) -> None:
        """Cover [T, 4, 2] corners from now on."""
        self._quads.append(quad)
        self._reach.append(_reach(quad))

    def free(self, quad: Floats) -> bool:
        """Whether [T, 4, 2] corners touch nothing that is taken, at any time."""
        reach, others = _reach(quad), np.array(self._reach).reshape(-1, 2, 2)
        near = np.flatnonzero(((others[:, 0] <= reach[1]) & (reach[0] <= others[:, 1])).all(axis=1))
        return not len(near) or not _touches(quad, np.stack([self._quads[n] for n in near]))


def footprint(samples: Floats, length: float, width: float) -> Floats:
    """[T, 4, 2] corners, seen from above, of a box at [T, 4] x, y, z, yaw."""
    cos, sin = np.cos(samples[:, 3, None]), np.sin(samples[:, 3, None])
    along = np.array([1, 1, -1, -1]) * length / 2
    across = np.array([1, -1, -1, 1]) * width / 2
    return np.stack(
        [samples[:, 0, None] + cos * along - sin * across, samples[:, 1, None] + sin * along + cos * across], axis=-1
    )


def _reach(quad: Floats) -> Floats:
    """[2, 2] least and greatest x, y over all times."""
    return np.stack([quad.min(axis=(0, 1)), quad.max(axis=(0, 1))])


def _touches(one: Floats, others: Floats) -> bool:
    """Separating-axis test of [T, 4, 2] against [N, T, 4, 2]: does any pair overlap at any time?"""
    apart = np.zeros(others.shape[:2], dtype=bool)
    single = np.broadcast_to(one, others.shape)
    for quad in (single, others):
        for k in (0, 1):
            axis = quad[:, :, k + 1] - quad[:, :, k]
            a = np.einsum("ntci,nti->ntc", single, axis)
            b = np.einsum("ntci,nti->ntc", others, axis)
            apart |= (a.max(-1) < b.min(-1)) | (b.max(-1) < a.min(-1))
    return bool((~apart).any())
