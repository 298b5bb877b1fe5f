"""From text to Arrow: rows of a star loop as typed columns, and which type holds every row of a column.

The text of the values is copied into one compact, delimited buffer, which pyarrow's CSV reader turns into
columns; it is the fastest correctly rounding number parser at hand. Types widen in one direction only,
int64 -> float64 -> string -> binary, so the types of parts of a file can be merged in any order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv

from regroup_dask.errors import InputError
from regroup_dask.formats.relion.star_text import NEWLINE, RowTokens

TYPES = (pa.int64(), pa.float64(), pa.string(), pa.binary())
"""A column's type is an index into this, and only ever grows."""

INTEGER, FLOAT, STRING, BINARY = range(4)

_DELIMITER = 0x1F
_PARSE = csv.ParseOptions(
    delimiter=chr(_DELIMITER),
    quote_char=False,
    double_quote=False,
    escape_char=False,
    ignore_empty_lines=False,
)
_LARGEST_EXACT_DIGITS = 15
"""Whole numbers of more digits may not fit a float64 exactly; a column that has one is kept as text."""


def rows_to_table(
    tokens: RowTokens, columns: Sequence[str], types: Sequence[int], *, wanted: Sequence[str] | None = None
) -> pa.Table:
    """Convert rows to a table.

    Parameters
    ----------
    tokens : RowTokens
    columns : sequence of str
        Names of all columns of the loop.
    types : sequence of int
        Index into `TYPES` for each of them.
    wanted : sequence of str, optional
        Names of the columns to convert, in the order they shall have.

    Raises
    ------
    pyarrow.ArrowInvalid
        A value does not fit its type.
    """
    names = list(columns) if wanted is None else list(wanted)
    if not names or not len(tokens.starts):
        schema = pa.schema([(name, TYPES[types[columns.index(name)]]) for name in names])
        if names:
            return schema.empty_table()
        return pa.table({"": pa.nulls(len(tokens.starts))}).select([])
    indices = [list(columns).index(name) for name in names]
    convert = csv.ConvertOptions(
        column_types={name: TYPES[types[index]] for name, index in zip(names, indices, strict=True)},
        null_values=[],
        strings_can_be_null=False,
    )
    return _read_delimited(_delimit(tokens, indices), names, convert)


def types_of_rows(tokens: RowTokens, columns: Sequence[str], at_least: Sequence[int]) -> tuple[int, ...]:
    """Find the narrowest types, none narrower than ``at_least``, that hold all of these rows."""
    indices = list(range(len(columns)))
    delimited = _delimit(tokens, indices)
    free = csv.ConvertOptions(null_values=[], strings_can_be_null=False, timestamp_parsers=[])
    found = _read_delimited(delimited, list(columns), free)
    types = [max(_type_index(field.type), least) for field, least in zip(found.schema, at_least, strict=True)]
    return widen_for_exact_text(tokens, types)


def widen_for_exact_text(tokens: RowTokens, types: Sequence[int]) -> tuple[int, ...]:
    """Make columns text that a number would not hold: names like 0012 or 0x1f, identifiers of 17 digits."""
    widened = list(types)
    if not len(tokens.starts):
        return tuple(widened)
    text, last = tokens.text, len(tokens.text) - 1
    for index in (index for index, kind in enumerate(types) if kind in (INTEGER, FLOAT)):
        starts, stops = tokens.starts[:, index], tokens.stops[:, index]
        zeros = starts[text[starts] == ord("0")]
        second = text[np.minimum(zeros + 1, last)]
        if (((second >= ord("0")) & (second <= ord("9"))) | (second | 32 == ord("x"))).any():
            widened[index] = STRING
        long = np.flatnonzero(stops - starts > _LARGEST_EXACT_DIGITS)
        if any(text[starts[row] : stops[row]].tobytes().lstrip(b"-").isdigit() for row in long.tolist()):
            widened[index] = STRING
    return tuple(widened)


def survey_rows(
    tokens: RowTokens, columns: Sequence[str], types: Sequence[int], keep: str
) -> tuple[tuple[int, ...], np.ndarray]:
    """Widen ``types`` until they hold these rows, and return the distinct values of one column.

    Returns
    -------
    types : tuple of int
    values : i64[n] or f64[n]
        Sorted; of column ``keep``.
    """
    exact = widen_for_exact_text(tokens, types)
    try:
        table = rows_to_table(tokens, columns, exact)
    except pa.ArrowInvalid:
        exact = types_of_rows(tokens, columns, exact)
        table = rows_to_table(tokens, columns, exact)
    values = pc.unique(table.column(keep))
    if not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type)):
        raise InputError(f"_{keep} holds text, not numbers, for example {values[0].as_py()!r}")
    return exact, np.sort(values.to_numpy(zero_copy_only=False))


def _type_index(found: pa.DataType) -> int:
    if pa.types.is_integer(found):
        return INTEGER
    if pa.types.is_floating(found):
        return FLOAT
    return BINARY if pa.types.is_binary(found) else STRING


def _read_delimited(delimited: np.ndarray, names: list[str], convert: csv.ConvertOptions) -> pa.Table:
    read = csv.ReadOptions(use_threads=False, block_size=len(delimited) + 1, column_names=names)
    return csv.read_csv(
        pa.py_buffer(delimited), read_options=read, parse_options=_PARSE, convert_options=convert
    )


def _delimit(tokens: RowTokens, indices: Sequence[int]) -> np.ndarray:
    """Copy the values of some columns into one buffer with a delimiter after each, and a newline per row."""
    n_rows, n_columns = tokens.starts.shape
    if len(indices) == n_columns and list(indices) == list(range(n_columns)):
        return _delimit_all(tokens)
    starts, stops = tokens.starts[:, indices], tokens.stops[:, indices]
    quoted = np.isin(starts, tokens.quotes) if len(tokens.quotes) else None
    if quoted is not None:
        starts, stops = starts + quoted, stops - quoted
    lengths = stops - starts
    last = len(tokens.text) - 1
    parts, kept = [], []
    for column in range(len(indices)):
        offset = np.arange(int(lengths[:, column].max()) + 1)
        part = tokens.text[np.minimum(starts[:, column, None] + offset, last)]
        part[np.arange(n_rows), lengths[:, column]] = NEWLINE if column == len(indices) - 1 else _DELIMITER
        parts.append(part)
        kept.append(offset <= lengths[:, column, None])
    return np.concatenate(parts, axis=1)[np.concatenate(kept, axis=1)]


def _delimit_all(tokens: RowTokens) -> np.ndarray:
    delimited = tokens.text.copy()
    delimited[tokens.stops] = _DELIMITER
    delimited[tokens.stops[:, -1]] = NEWLINE
    kept = tokens.inside.copy()
    kept[tokens.stops] = True
    kept[tokens.quotes] = False
    return delimited[kept]
