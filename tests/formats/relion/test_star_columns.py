import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regroup_dask.errors import InputError
from regroup_dask.formats.relion.star_columns import BINARY, FLOAT, INTEGER, STRING, read_rows, survey_rows
from regroup_dask.formats.relion.star_text import Chunk


def types_of(*values):
    """The type of a column of these values."""
    return survey_rows(b"".join(value + b"\n" for value in values), [INTEGER], 0, path="x.star", first_line=1).types


def table_of(values, kind, wanted=None):
    """The values as a table of one column."""
    chunk = Chunk(b"".join(value + b"\n" for value in values), 0, 1)
    return read_rows(iter([chunk]), ["x"], [kind], n_rows=len(values), path="x.star", wanted=wanted).table


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (b"12", INTEGER),
        (b"-7", INTEGER),
        (b"0", INTEGER),
        (b"123456789012345", INTEGER),
        (b"1234567890123456", STRING),
        (b"0012", STRING),
        (b"0x1f", STRING),
        (b"0.5", FLOAT),
        (b"-.5", FLOAT),
        (b"5.", FLOAT),
        (b"1e5", FLOAT),
        (b"1.5E-05", FLOAT),
        (b"-nan", FLOAT),
        (b"inf", FLOAT),
        (b"Infinity", FLOAT),
        (b"1e", STRING),
        (b".", STRING),
        (b"-", STRING),
        (b"1_000", STRING),
        (b"1.2.3", STRING),
        (b"nano", STRING),
        (b'""', STRING),
        ("é".encode(), STRING),
        (b"\xff", BINARY),
    ],
)
def test_type_of_a_value(text, kind):
    assert types_of(text) == (kind,)
    assert types_of(b"1", text, b"2") == (kind,)


@settings(deadline=None)
@given(st.lists(st.one_of(st.floats(), st.floats(-1e6, 1e6).map(lambda x: round(x, 6))), min_size=1, max_size=20))
def test_numbers_are_read_to_the_last_bit(values):
    texts = [repr(value).encode() for value in values]
    table = table_of(texts, FLOAT)
    np.testing.assert_array_equal(table.column(0).to_numpy(), values)


@settings(deadline=None)
@given(st.lists(st.from_regex(rb"-?[0-9]{1,12}\.[0-9]{0,12}(e[-+]?[0-9]{1,3})?", fullmatch=True), min_size=1))
def test_numbers_in_any_notation(texts):
    table = table_of(texts, FLOAT)
    np.testing.assert_array_equal(table.column(0).to_numpy(), [float(text) for text in texts])


def test_texts_lose_their_quotes_only():
    table = table_of([b'"two words"', b"it's", "é".encode()], STRING)
    assert table.column(0).to_pylist() == ["two words", "it's", "é"]
    assert table_of([b"\xff"], BINARY).column(0).to_pylist() == [b"\xff"]


@pytest.mark.parametrize(("text", "kind"), [(b"1.5", INTEGER), (b"x", FLOAT), (b"1_0", FLOAT), (b"\xff", STRING)])
def test_a_value_that_does_not_fit(text, kind):
    with pytest.raises(InputError, match=r"changed since it was opened.*(no number|not UTF-8)"):
        table_of([text], kind)


def test_no_rows_and_no_columns():
    assert table_of([], FLOAT).schema == pa.schema([("x", pa.float64())])
    assert table_of([b"1", b"2"], FLOAT, wanted=[]).num_columns == 0
