"""Arrays as PNG pictures inside the page."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray

from regroup_dask.report.colours import rgb

OPAQUE_SHADES = 84
ALPHA_STEPS = 3


def data_uri(png: bytes) -> str:
    """A PNG as the address of a picture that needs no file."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def grey_png(image: NDArray[np.floating]) -> bytes:
    """Encode an image of 0..1 ``[rows, columns]`` in 256 greys."""
    from PIL import Image

    return _encode(Image.fromarray(_bytes(image)))


def rgb_png(image: NDArray[np.floating]) -> bytes:
    """Encode an image of 0..1 ``[rows, columns, 3]`` in at most 256 colours, which keeps it small."""
    from PIL import Image

    picture = Image.fromarray(_bytes(image))
    return _encode(picture.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE))


def colour_png(image: NDArray[np.floating], colours: NDArray[np.floating]) -> bytes:
    """Encode an image of 0..1 ``[rows, columns]`` by a table of colours, 0..1 ``[256, 3]``; NaN is transparent."""
    from PIL import Image

    index = np.clip(np.nan_to_num(image) * 254 + 1, 1, 255).round().astype(np.uint8)
    index[np.isnan(image)] = 0
    picture = Image.fromarray(index, mode="P")
    picture.putpalette(_bytes(colours).tobytes())
    picture.info["transparency"] = 0
    return _encode(picture)


def shaded_png(shade: NDArray[np.floating], alpha: NDArray[np.floating], colour: str) -> bytes:
    """Encode a shaded surface in tints of one colour.

    Parameters
    ----------
    shade
        Brightness 0..1 ``[rows, columns]``.
    alpha
        0 where there is nothing, 1 on the surface, between at its outline.
    colour
        ``#rrggbb``: dark at brightness 0, mixed with white at 1.
    """
    from PIL import Image

    per_step = OPAQUE_SHADES
    level = np.clip(np.rint(alpha * ALPHA_STEPS), 0, ALPHA_STEPS).astype(np.int64)
    tone = np.clip(np.rint(shade * (per_step - 1)), 0, per_step - 1).astype(np.int64)
    index = np.where(level == 0, 0, 1 + (level - 1) * per_step + tone).astype(np.uint8)
    palette = np.zeros((256, 3), np.uint8)
    transparency = np.zeros(256, np.uint8)
    tones = np.rint(shades_of(colour, per_step) * 255).astype(np.uint8)
    for step in range(1, ALPHA_STEPS + 1):
        entries = slice(1 + (step - 1) * per_step, 1 + step * per_step)
        palette[entries], transparency[entries] = tones, round(255 * step / ALPHA_STEPS)
    picture = Image.fromarray(index, mode="P")
    picture.putpalette(palette.tobytes())
    picture.info["transparency"] = transparency.tobytes()
    return _encode(picture)


def shades_of(colour: str, count: int) -> NDArray[np.float64]:
    """Colours 0..1 ``[count, 3]`` from nearly black over `colour` to nearly white."""
    position = np.linspace(0, 1, count)[:, None]
    middle = 0.86 * np.array(rgb(colour)) / 255 + 0.14
    dark, light = 0.16 * middle, 0.18 * middle + 0.82
    lower = dark + (middle - dark) * np.clip(position / 0.62, 0, 1)
    return lower + (light - lower) * np.clip((position - 0.62) / 0.38, 0, 1)


def _bytes(image: NDArray[np.floating]) -> NDArray[np.uint8]:
    return np.rint(np.clip(np.nan_to_num(image), 0, 1) * 255).astype(np.uint8)


def _encode(picture: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, format="PNG", optimize=True)  # type: ignore[attr-defined]
    return stream.getvalue()
