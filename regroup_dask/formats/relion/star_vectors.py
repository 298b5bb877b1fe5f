"""Sixty-four bytes of star text looked at by one instruction each: bits that say which are spaces, digits, newlines.

A value ends where the first bit of a mask is set, which is one more instruction, so that no byte is looked at by itself
(G. Langdale and D. Lemire, Parsing gigabytes of JSON per second, 2019, from where the eight digits at once are too).
Processors without such instructions get code that does the same.

The loops hold text by its address (`address_of`): for an array that goes from function to function the compiler counts
references, for every value of every row, which takes longer than reading it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic as numba_intrinsic

intrinsic: Any = numba_intrinsic
"""Without the types of a function that is called with the context of the compiler in front, as these are not."""

WINDOW = np.uint64(64)
_NONE = np.uint64(0)
_ONE = np.uint64(1)
_EIGHT = np.uint64(8)
_BYTE, _WORD = ir.IntType(8), ir.IntType(64)
_BYTES = ir.VectorType(_BYTE, 64)
_BITS = ir.VectorType(ir.IntType(1), 64)


_ADDRESS = types.CPointer(types.uint8)


def _pointer(builder: Any, arguments: Any, kind: ir.Type) -> Any:
    return builder.bitcast(builder.gep(arguments[0], [arguments[1]]), kind.as_pointer())


@intrinsic
def address_of(typing_context, text):  # type: ignore[no-untyped-def]
    """Address of the bytes of an array, to be indexed like it; the array has to live as long."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return context.make_array(signature.args[0])(context, builder, arguments[0]).data

    return _ADDRESS(text), generate


@intrinsic
def copy_bytes(typing_context, source, start, n_bytes, target, place):  # type: ignore[no-untyped-def]
    """Copy bytes from an address and position (u64) to another."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        source, start, n_bytes, target, place = arguments
        cgutils.raw_memcpy(builder, builder.gep(target, [place]), builder.gep(source, [start]), n_bytes, 1)
        return context.get_dummy_value()

    return types.void(source, start, n_bytes, target, place), generate


@intrinsic
def _look(typing_context, text, position):  # type: ignore[no-untyped-def]
    """Masks of the 64 bytes from a position on: white space, digits, newlines. All of them are read."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        data = builder.load(_pointer(builder, arguments, _BYTES), align=1)

        def every(byte: int) -> ir.Constant:
            return ir.Constant(_BYTES, [byte] * 64)

        spaces = builder.icmp_unsigned("<=", data, every(32))
        digits = builder.icmp_unsigned("<", builder.sub(data, every(ord("0"))), every(10))
        newlines = builder.icmp_unsigned("==", data, every(10))
        masks = [builder.bitcast(bits, _WORD) for bits in (spaces, digits, newlines)]
        return context.make_tuple(builder, signature.return_type, masks)

    return types.UniTuple(types.uint64, 3)(text, position), generate


@intrinsic
def load_eight(typing_context, text, position):  # type: ignore[no-untyped-def]
    """Eight bytes as one number, the first lowest."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.load(_pointer(builder, arguments, _WORD), align=1)

    return types.uint64(text, position), generate


@intrinsic
def first_bit(typing_context, mask):  # type: ignore[no-untyped-def]
    """Number of the lowest bit that is set; 64 where none is."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.uint64(mask), generate


@njit(cache=True, nogil=True, inline="always")
def look(text, end, position):  # type: ignore[no-untyped-def]
    """Return masks of the 64 bytes from a position (u64) on: white space, digits, newlines, which are beyond the end."""
    if position + WINDOW <= end:
        return _look(text, position)
    return _look_at_end(text, end, position)


@njit(cache=True, nogil=True)
def _look_at_end(text, end, position):  # type: ignore[no-untyped-def]
    spaces, digits, newlines = _NONE, _NONE, _NONE
    for place in range(WINDOW):
        byte = text[position + place] if position + place < end else np.uint8(10)
        bit = _ONE << place
        if byte <= 32:
            spaces |= bit
        if 48 <= byte <= 57:
            digits |= bit
        if byte == 10:
            newlines |= bit
    return spaces, digits, newlines


@njit(cache=True, nogil=True, inline="always")
def digits_value(text, position, n_digits):  # type: ignore[no-untyped-def]
    """Return the number that at most eight digits make; eight bytes are read."""
    value = load_eight(text, position) - np.uint64(0x3030303030303030)
    # All digits are shifted out in two steps: 64 at once would shift by none.
    value = (value << (np.uint64(32) - (n_digits << np.uint64(2)))) << (np.uint64(32) - (n_digits << np.uint64(2)))
    value = (value * np.uint64(10) + (value >> _EIGHT)) & np.uint64(0x00FF00FF00FF00FF)
    value = (value * np.uint64(100) + (value >> np.uint64(16))) & np.uint64(0x0000FFFF0000FFFF)
    return (value * np.uint64(10000) + (value >> np.uint64(32))) & np.uint64(0xFFFFFFFF)
