"""Between NumPy records and Arrow tables, bit for bit.

Strings ``S`` become Arrow strings (binary where their bytes are not UTF-8), vectors become nested fixed-size
lists, numbers keep their type; the record type itself goes along in the schema's metadata so that what is
written has the field order, widths and byte order that was read.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping

import numpy as np
import pyarrow as pa

from regroup_dask.formats.cryosparc.record_kernels import bytes_of_records, pack_text, spread_text, text_offsets

METADATA_KEY = b"cryosparc_numpy_descr"


def arrow_schema(dtype: np.dtype, *, binary: Collection[str] = ()) -> pa.Schema:
    """Describe a record type as an Arrow schema; columns named in ``binary`` hold text that is not UTF-8."""
    fields = [pa.field(name, _arrow_type(dtype[name], name in binary), nullable=False) for name in dtype.names or ()]
    return pa.schema(fields, metadata={METADATA_KEY: json.dumps(dtype.descr).encode()})


def record_dtype(schema: pa.Schema) -> np.dtype:
    """Return the record type that `arrow_schema` was given."""
    descr = json.loads(schema.metadata[METADATA_KEY])
    return np.dtype([(name, kind, *map(tuple, shape)) for name, kind, *shape in descr])


def to_arrow(columns: Mapping[str, np.ndarray], schema: pa.Schema) -> pa.Table:
    """Build a table of some columns of a schema, in the order of the mapping."""
    fields = [schema.field(name) for name in columns]
    arrays = [_to_array(columns[field.name], field.type) for field in fields]
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields, metadata=schema.metadata))


def column_values(table: pa.Table, name: str) -> np.ndarray:
    """Return a numeric column as an array [n, ...], vectors along the last axes."""
    return _values(table.column(name))


def fill_records(records: np.ndarray, table: pa.Table) -> None:
    """Write the columns of a table into the fields of the same names."""
    for name in records.dtype.names or ():
        column = table.column(name)
        if records.dtype[name].kind == "S":
            records[name] = _fixed_strings(column, records.dtype[name])
        else:
            records[name] = _values(column)


def _arrow_type(dtype: np.dtype, binary: bool) -> pa.DataType:
    if dtype.kind == "S":
        return pa.binary() if binary else pa.string()
    kind = pa.from_numpy_dtype(dtype.base.newbyteorder("="))
    for extent in reversed(dtype.shape):
        kind = pa.list_(kind, extent)
    return kind


def _to_array(values: np.ndarray, kind: pa.DataType) -> pa.Array:
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        # NumPy pads with NUL and takes trailing ones away again, so the text ends with its last other byte.
        fixed = bytes_of_records(values)
        offsets = np.empty(len(values) + 1, dtype=np.int32)
        text_offsets(fixed, offsets)
        text = np.empty(offsets[-1], np.uint8)
        pack_text(fixed, offsets, text)
        return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(offsets), pa.py_buffer(text)])
    native = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("="))
    array = pa.array(native.reshape(-1))
    kinds = []
    while pa.types.is_fixed_size_list(kind):
        kinds.append(kind)
        kind = kind.value_type
    for nested in reversed(kinds):
        array = pa.FixedSizeListArray.from_arrays(array, type=nested)
    return array


def _values(column: pa.ChunkedArray) -> np.ndarray:
    array = _one_array(column)
    shape = [len(array)]
    while pa.types.is_fixed_size_list(array.type):
        shape.append(array.type.list_size)
        array = array.flatten()
    return array.to_numpy(zero_copy_only=False).reshape(shape)


def _fixed_strings(column: pa.ChunkedArray, dtype: np.dtype) -> np.ndarray:
    array = _one_array(column)
    _, offset_buffer, text_buffer = array.buffers()
    n = len(array)
    if n == 0:
        return np.empty(0, dtype)
    offsets = np.frombuffer(offset_buffer, np.int32)[array.offset : array.offset + n + 1]
    lengths = np.diff(offsets)
    if lengths.max() > dtype.itemsize:
        raise ValueError(f"a text of {lengths.max()} bytes does not fit into {dtype.itemsize}")
    result = np.empty((n, dtype.itemsize), np.uint8)
    spread_text(np.frombuffer(text_buffer or b"", np.uint8), offsets, result)
    return result.reshape(-1).view(dtype)


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    chunks = column.chunks
    if len(chunks) == 1:
        return chunks[0]
    return pa.concat_arrays(chunks) if chunks else pa.array([], column.type)
