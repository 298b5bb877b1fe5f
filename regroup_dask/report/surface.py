"""Views of an isosurface, drawn in NumPy: no display, no graphics card.

Orthographic rays along an axis of the box. A map is interpolated in its planes by uniform cubic B-splines (two matrix
products per plane, which smooth it by half a voxel), so that the first crossing of the threshold along a ray, its
depth and its gradient are sums of few terms.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Direction = Literal["front", "right", "top"]
DIRECTIONS: tuple[Direction, ...] = ("front", "right", "top")
DIRECTION_WORDS: dict[Direction, str] = {
    "front": "from +z",
    "right": "from +x",
    "top": "from +y",
}

TOP_SHARE = 0.002
THRESHOLD_SHARE = 0.25
THRESHOLD_SIGMAS = 3.5
DUST_SHARE = 0.05


class View(NamedTuple):
    """A drawn surface: brightness and coverage, 0..1 ``[rows, columns]``."""

    shade: NDArray[np.float32]
    alpha: NDArray[np.float32]


def surface_threshold(density: NDArray[np.floating]) -> float:
    """Density at which a map is drawn: the same rule for every map.

    A quarter of the way from the level of the solvent (the median) to the mean of the densest 0.2 % of the box, but
    at least 3.5 standard deviations of the solvent above its level.

    Parameters
    ----------
    density
        Map ``[z, y, x]``.
    """
    values = np.asarray(density, np.float32).ravel()
    level = float(np.median(values))
    below = level - values[values < level]
    # The lower half of the histogram is solvent; its spread is mirrored, so that the particle does not count.
    sigma = 1.4826 * float(np.median(below)) if below.size else 0.0
    count = max(1, round(TOP_SHARE * values.size))
    top = float(np.partition(values, values.size - count)[-count:].mean())
    return max(level + THRESHOLD_SHARE * (top - level), level + THRESHOLD_SIGMAS * sigma)


def without_dust(density: NDArray[np.floating], threshold: float) -> NDArray[np.float32]:
    """Lower everything that belongs to no piece of at least 5 % of the largest below the threshold."""
    volume = np.asarray(density, np.float32)
    labels, count = ndimage.label(volume > threshold)
    if count <= 1:
        return volume
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    small = sizes < DUST_SHARE * sizes.max()
    small[0] = False
    dust = ndimage.binary_dilation(small[labels], iterations=1) & ~np.isin(labels, np.flatnonzero(~small)[1:])
    return np.where(dust, np.minimum(volume, threshold - abs(threshold) * 0.2), volume).astype(np.float32)


def surface_view(
    density: NDArray[np.floating],
    *,
    threshold: float,
    direction: Direction,
    half_width: float,
    pixels: int,
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> View:
    """Draw the isosurface of a map as seen along an axis.

    Parameters
    ----------
    density
        Map ``[z, y, x]``, a cube.
    threshold
        Density of the surface.
    direction
        ``front``: the viewer is at +z, x to the right, y up. ``right``: the viewer is at +x, y up. ``top``: the
        viewer is at +y, x to the right.
    half_width
        Half the width of the picture in voxels.
    pixels
        Width and height of the picture.
    centre
        What is in the middle of the picture: (z, y, x) in voxels from the origin voxel ``n // 2``.

    Returns
    -------
    View
    """
    planes, row_sign, column_sign = _towards_viewer(np.asarray(density, np.float32), direction)
    solid = np.flatnonzero((planes > threshold).any(axis=(1, 2)))
    if not solid.size:
        return View(np.zeros((pixels, pixels), np.float32), np.zeros((pixels, pixels), np.float32))
    planes = planes[max(0, solid[0] - 3) : solid[-1] + 4]
    planes = ndimage.convolve1d(planes, [1 / 6, 4 / 6, 1 / 6], axis=0, mode="nearest")
    size = planes.shape[1]
    vertical, horizontal = _picture_axes(direction)
    rows = _spline_matrix(size, pixels, half_width, row_sign, centre[vertical])
    columns = _spline_matrix(size, pixels, half_width, column_sign, centre[horizontal])
    stack = np.matmul(np.matmul(rows, planes), columns.T)
    scale = 2 * half_width / pixels
    return _shade(stack, threshold, scale, half_width)


def as_seen(volume: NDArray[np.float32], direction: Direction) -> NDArray[np.float32]:
    """Turn a map so that axis 0 leads away from the viewer, axis 1 runs down the picture and axis 2 to the right."""
    planes, row_sign, column_sign = _towards_viewer(volume, direction)
    return planes[:, ::row_sign, ::column_sign]


def _towards_viewer(volume: NDArray[np.float32], direction: Direction) -> tuple[NDArray[np.float32], int, int]:
    """Planes ``[depth, vertical, horizontal]``, nearest first, and whether rows and columns run up or down the axes."""
    if direction == "front":
        return volume[::-1], -1, 1
    if direction == "top":
        return volume.transpose(1, 0, 2)[::-1], 1, 1
    return volume.transpose(2, 1, 0)[::-1], -1, -1


def _picture_axes(direction: Direction) -> tuple[int, int]:
    """Axes of ``[z, y, x]`` that run down and to the right in the picture."""
    return {"front": (1, 2), "top": (0, 2), "right": (1, 0)}[direction]


def _spline_matrix(size: int, pixels: int, half_width: float, sign: int, centre: float) -> NDArray[np.float32]:
    """Weights of the uniform cubic B-spline, float32 ``[pixels, size]``."""
    offset = ((np.arange(pixels) + 0.5) / pixels * 2 - 1) * half_width * sign
    distance = np.abs(size // 2 + centre + offset[:, None] - np.arange(size)[None, :])
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.clip(2 - distance, 0, None) ** 3 / 6
    return np.where(distance < 1, near, far).astype(np.float32)


def _shade(stack: NDArray[np.float32], threshold: float, scale: float, half_width: float) -> View:
    """Shade the first crossing of the threshold along axis 0 of ``[depth, row, column]``; `scale` voxels a pixel."""
    depth_count, height, width = stack.shape
    above = stack > threshold
    hit: NDArray[np.bool_] = np.asarray(above.any(axis=0))
    first = np.argmax(above, axis=0)
    row, column = np.nonzero(hit)
    at = first[row, column]
    before = np.maximum(at - 1, 0)
    inside, outside = stack[at, row, column], stack[before, row, column]
    step = np.where(at > 0, (threshold - outside) / np.where(inside > outside, inside - outside, 1), 0.0)
    step = np.clip(np.where(inside > outside, step, 0.0), 0, 1)
    depth = np.full((height, width), float(depth_count), np.float32)
    depth[row, column] = np.where(at > 0, before + step, 0.0)

    up, down = np.maximum(row - 1, 0), np.minimum(row + 1, height - 1)
    left, right = np.maximum(column - 1, 0), np.minimum(column + 1, width - 1)

    def between(rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.floating]:
        return stack[before, rows, columns] * (1 - step) + stack[at, rows, columns] * step

    gradient_row = (between(down, column) - between(up, column)) / (2 * scale)
    gradient_column = (between(row, right) - between(row, left)) / (2 * scale)
    further = np.minimum(at + 1, depth_count - 1)
    gradient_depth = (stack[further, row, column] - outside) / np.maximum(further - before, 1)
    length = np.sqrt(gradient_row**2 + gradient_column**2 + gradient_depth**2) + 1e-12
    # The surface faces away from where the density rises; towards the viewer is negative depth.
    normal_up, normal_right = gradient_row / length, -gradient_column / length
    normal_near = gradient_depth / length
    key = np.clip(-0.42 * normal_right + 0.52 * normal_up + 0.745 * normal_near, 0, 1)
    fill = np.clip(0.6 * normal_right - 0.2 * normal_up + 0.5 * normal_near, 0, 1)
    gloss = np.clip(-0.22 * normal_right + 0.28 * normal_up + 0.935 * normal_near, 0, 1) ** 24
    light = 0.14 + 0.62 * key + 0.16 * fill + 0.16 * gloss

    shade = np.zeros((height, width), np.float32)
    shade[row, column] = light
    shade *= _hollows(depth, hit, scale, half_width)
    return View(np.clip(shade, 0, 1), _coverage(stack, hit, threshold))


def _hollows(depth: NDArray[np.float32], hit: NDArray[np.bool_], scale: float, half_width: float) -> NDArray[np.float32]:
    """Darken what lies behind its surroundings, and what is far away: 0..1."""
    nearest, furthest = depth[hit].min(), depth[hit].max()
    filled = np.where(hit, depth, furthest)
    dark = np.zeros_like(filled)
    for radius in (0.04, 0.11):
        behind = filled - ndimage.gaussian_filter(filled, radius * half_width / scale, mode="nearest")
        dark += np.clip(behind / (0.16 * half_width), 0, 1)
    fog = (filled - nearest) / max(2 * half_width, float(furthest - nearest), 1e-6)
    return ((1 - 0.34 * np.clip(dark, 0, 1.6)) * (1 - 0.28 * fog)).astype(np.float32)


def _coverage(stack: NDArray[np.float32], hit: NDArray[np.bool_], threshold: float) -> NDArray[np.float32]:
    """How much of a pixel the outline covers, from how far the ray's largest density is from the threshold."""
    largest = stack.max(axis=0)
    slope = np.hypot(*np.gradient(largest))
    inside = np.clip(0.5 + (largest - threshold) / np.maximum(slope, 1e-12), 0, 1)
    return np.where(ndimage.binary_erosion(hit, iterations=2), 1.0, np.where(hit, np.maximum(inside, 0.34), 0.0)).astype(
        np.float32
    )
