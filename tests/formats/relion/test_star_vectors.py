import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from regroup_dask.formats.relion import star_vectors


@njit
def _look(buffer, position):
    return star_vectors.look(star_vectors.address_of(buffer), np.uint64(len(buffer)), np.uint64(position))


@njit
def _number(buffer, position, n_digits):
    return star_vectors.digits_value(star_vectors.address_of(buffer), np.uint64(position), np.uint64(n_digits))


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=200), st.data())
def test_masks_say_what_each_byte_is(text, data):
    position = data.draw(st.integers(0, len(text) - 1))
    spaces, digits, newlines = _look(np.frombuffer(text, np.uint8), position)
    window = (text[position:] + b"\n" * 64)[:64]
    assert spaces == sum(1 << place for place, byte in enumerate(window) if byte <= 32)
    assert digits == sum(1 << place for place, byte in enumerate(window) if byte in b"0123456789")
    assert newlines == sum(1 << place for place, byte in enumerate(window) if byte == 10)


@settings(deadline=None)
@given(st.text("0123456789", max_size=8), st.integers(0, 9))
def test_eight_digits_at_once(digits, before):
    text = b"\xff" * before + digits.encode() + b" -.x9\xff\xff\xff"
    assert _number(np.frombuffer(text, np.uint8), before, len(digits)) == int(digits or "0")
