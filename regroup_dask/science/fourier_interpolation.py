"""Reading an oversampled spectrum at rotated frequencies: the inner loop of everything that moves a map.

Trilinear interpolation; the real-space window that it amounts to was divided out when the spectrum was
sampled (`fourier.sampled_spectrum`). Work goes in chunks that stay in the nearest cache, in three loops: where
each value lies and its weights (arithmetic, vectorized over values); the four rows of two nodes each that it
lies between, each row one load of four numbers (`_weighted_rows`); the last of the three interpolations.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

CHUNK = 128


def _sum_rows(
    typing_context: Any,
    nodes: types.Array,
    row_0: types.Integer,
    row_1: types.Integer,
    row_2: types.Integer,
    row_3: types.Integer,
    weight_0: types.Float,
    weight_1: types.Float,
    weight_2: types.Float,
    weight_3: types.Float,
    weight_left: types.Float,
    weight_right: types.Float,
    out: types.Array,
    place: types.Integer,
) -> Any:
    """Put into out[place:place + 2] the weighted sum over four rows of two complex nodes each.

    ``out = sum over r of weight_r (left nodes[row_r:row_r + 2] + right nodes[row_r + 2:row_r + 4])``, float32. Nodes are
    float32, or uint16 that hold the upper half of a float32 (`shortened`). Compilers do not find by themselves that a
    row is one load.
    """
    signature = types.void(
        nodes,
        *(row_0, row_1, row_2, row_3),
        *(weight_0, weight_1, weight_2, weight_3),
        *(weight_left, weight_right),
        out,
        place,
    )

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        four, two = ir.VectorType(ir.FloatType(), 4), ir.VectorType(ir.FloatType(), 2)
        number = ir.IntType(32)
        short = signature.args[0].dtype == types.uint16

        def picked(first: Any, second: Any, lanes: list[int]) -> Any:
            mask = ir.Constant(ir.VectorType(number, len(lanes)), lanes)
            return builder.shuffle_vector(first, second, mask)

        def spread(value: Any, vector: ir.VectorType) -> Any:
            nothing = ir.Constant(vector, ir.Undefined)
            return picked(builder.insert_element(nothing, value, number(0)), nothing, [0] * vector.count)

        def place_in(array: int, index: Any, vector: ir.VectorType) -> Any:
            data = context.make_array(signature.args[array])(context, builder, arguments[array]).data
            return builder.bitcast(builder.gep(data, [index]), vector.as_pointer())

        total = None
        for row, weight in zip(arguments[1:5], arguments[5:9], strict=True):
            if short:
                stored = builder.load(place_in(0, row, ir.VectorType(ir.IntType(16), 4)), align=2)
                wide = ir.VectorType(number, 4)
                values = builder.bitcast(builder.shl(builder.zext(stored, wide), ir.Constant(wide, [16] * 4)), four)
            else:
                values = builder.load(place_in(0, row, four), align=4)
            product = builder.fmul(spread(weight, four), values, flags=("fast",))
            total = product if total is None else builder.fadd(total, product, flags=("fast",))
        left, right = picked(total, total, [0, 1]), picked(total, total, [2, 3])
        left = builder.fmul(spread(arguments[9], two), left, flags=("fast",))
        right = builder.fmul(spread(arguments[10], two), right, flags=("fast",))
        builder.store(builder.fadd(left, right, flags=("fast",)), place_in(11, arguments[12], two), align=4)
        return context.get_dummy_value()

    return signature, generate


_weighted_rows: Any = intrinsic(_sum_rows)


def shortened(values: np.ndarray) -> np.ndarray:
    """Round complex64 values to 8 significant bits (bfloat16): half the memory to bring near, which is what takes time.

    Returns
    -------
    numpy.ndarray
        uint16 (..., 2), the upper halves of the real and imaginary float32.
    """
    bits = np.ascontiguousarray(values, dtype=np.complex64).view(np.uint32).reshape(*values.shape, 2)
    return ((bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


@njit(cache=True, fastmath=True, nogil=True)
def interpolate_rotated(
    cube: np.ndarray,
    reach: int,
    frequency: np.ndarray,
    first: int,
    last: int,
    rotation: np.ndarray,
    oversampling: float,
    hand: float,
    values: np.ndarray,
) -> None:
    """Fill values[:, first:last] with the spectrum at ``R^T k``, conjugated when hand is -1.

    Parameters
    ----------
    cube : numpy.ndarray
        float32 or uint16 (`shortened`), flat: real and imaginary parts of nodes (2 reach + 1, 2 reach + 1, reach + 1),
        order z, y, x.
    frequency : numpy.ndarray
        float32 (3, c), kx, ky, kz.
    rotation : numpy.ndarray
        float64 (3, 3).
    oversampling : float
        nodes per unit of frequency.
    values : numpy.ndarray
        float32 (2, c), out.
    """
    one, two = np.float32(1.0), np.uint64(2)
    step_y = np.int32(2 * (reach + 1))
    step_z = np.int32(2 * (reach + 1) * (2 * reach + 1))
    next_y, next_z = np.uint64(step_y), np.uint64(step_z)
    r00, r01, r02 = (
        np.float32(rotation[0, 0] * oversampling),
        np.float32(rotation[1, 0] * oversampling),
        np.float32(rotation[2, 0] * oversampling),
    )
    r10, r11, r12 = (
        np.float32(rotation[0, 1] * oversampling),
        np.float32(rotation[1, 1] * oversampling),
        np.float32(rotation[2, 1] * oversampling),
    )
    r20, r21, r22 = (
        np.float32(rotation[0, 2] * oversampling),
        np.float32(rotation[1, 2] * oversampling),
        np.float32(rotation[2, 2] * oversampling),
    )
    centre = np.float32(reach)
    hand32 = np.float32(hand)
    corner = np.empty(CHUNK, dtype=np.int32)
    scratch = np.empty((9, CHUNK), dtype=np.float32)  # one piece of memory: to ask for several takes its time
    weights, sign, found = scratch[:6], scratch[6], scratch[7:].reshape(2 * CHUNK)
    for chunk in range(first, last, CHUNK):
        # an index that cannot be negative is what lets these loops run on vectors
        start, count = np.uint64(chunk), np.uint64(min(CHUNK, last - chunk))
        for j in range(count):
            kx = frequency[0, start + j]
            ky = frequency[1, start + j]
            kz = frequency[2, start + j]
            x = r00 * kx + r01 * ky + r02 * kz
            y = r10 * kx + r11 * ky + r12 * kz
            z = r20 * kx + r21 * ky + r22 * kz
            half = one if x >= 0 else -one
            x *= half
            y = y * half + centre
            z = z * half + centre
            ix = np.int32(x)
            iy = np.int32(y)
            iz = np.int32(z)
            ax = x - np.float32(ix)
            ay = y - np.float32(iy)
            az = z - np.float32(iz)
            corner[j] = iz * step_z + iy * step_y + np.int32(2) * ix
            weights[0, j] = (one - az) * (one - ay)
            weights[1, j] = (one - az) * ay
            weights[2, j] = az * (one - ay)
            weights[3, j] = az * ay
            weights[4, j] = one - ax
            weights[5, j] = ax
            sign[j] = half * hand32
        for j in range(count):
            a = np.uint64(corner[j])
            b = a + next_z
            _weighted_rows(
                cube,
                a,
                a + next_y,
                b,
                b + next_y,
                weights[0, j],
                weights[1, j],
                weights[2, j],
                weights[3, j],
                weights[4, j],
                weights[5, j],
                found,
                two * j,
            )
        for j in range(count):
            values[0, start + j] = found[two * j]
            values[1, start + j] = sign[j] * found[two * j + np.uint64(1)]


# Taylor coefficients of sine and cosine, for arguments up to pi / 2; the error is below 6e-8
_S3, _S5, _S7, _S9, _S11 = (np.float32(v) for v in (-1 / 6, 1 / 120, -1 / 5040, 1 / 362880, -1 / 39916800))
_C2, _C4, _C6, _C8, _C10, _C12 = (
    np.float32(v) for v in (-1 / 2, 1 / 24, -1 / 720, 1 / 40320, -1 / 3628800, 1 / 479001600)
)
_ONE, _TWO, _HALF, _PI = np.float32(1.0), np.float32(2.0), np.float32(0.5), np.float32(math.pi)


@njit(cache=True, fastmath=True, nogil=True)
def shift_values(
    values: np.ndarray, frequency: np.ndarray, first: int, last: int, shift: np.ndarray, box: float
) -> None:
    """Multiply values[:, first:last] by ``exp(-2 pi i k.t / box)`` in place.

    Sine and cosine are polynomials of half the angle, brought into one turn: nothing but arithmetic, so that
    the loop runs on vectors.
    """
    tx = np.float32(-shift[0] / box)
    ty = np.float32(-shift[1] / box)
    tz = np.float32(-shift[2] / box)
    for i in range(first, last):
        turn = tx * frequency[0, i] + ty * frequency[1, i] + tz * frequency[2, i]
        half = _PI * (turn - np.floor(turn + _HALF))
        q = half * half
        sine = half * (_ONE + q * (_S3 + q * (_S5 + q * (_S7 + q * (_S9 + q * _S11)))))
        cosine = _ONE + q * (_C2 + q * (_C4 + q * (_C6 + q * (_C8 + q * (_C10 + q * _C12)))))
        c = cosine * cosine - sine * sine
        s = _TWO * sine * cosine
        real = values[0, i]
        imag = values[1, i]
        values[0, i] = real * c - imag * s
        values[1, i] = real * s + imag * c
