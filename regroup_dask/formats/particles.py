"""Particle files of any known format, opened and written; `particle_source` says what a source of particles is.

Each format is a side of its own (``formats.cryosparc``, ``formats.relion``, ``formats.parquet_particles``),
and its module of outputs offers the same three functions, so that a task need not know which it serves::

    create_outputs(source, plan, counts, folder) -> OutputFiles             # driver: headers, files sized
    write_fragment(source, fragment, table, assignment, plan, outputs, counts_before)   # task per fragment
    finish_outputs(source, plan, outputs, counts, maps) -> tuple[str, ...]  # driver: groups, models; paths

``folder`` is the whole output folder; a side makes its own part of it (``cryosparc/``, ``relion/``,
``particles/`` and ``remaining/``), and writes only paths relative to its files, because the folder may be
renamed when complete. ``counts`` is i64[n_fragments, K + 1]: rows of each fragment per superclass, the last
column the remaining ones. ``counts_before`` is i64[K + 1]: the sum over the fragments before this one, hence
where its rows begin in each file. `write_fragment` gets ``table = fragment.read()`` with all columns, writes
nothing but its own rows, and may run twice.
"""

from __future__ import annotations

import glob
import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from regroup_dask.errors import InputError
from regroup_dask.formats import storage
from regroup_dask.formats.particle_source import ParticleFragment, ParticleKind, ParticleSource
from regroup_dask.formats.pieces import RunPieces, in_this_process
from regroup_dask.formats.regroup_plan import (
    Assignment,
    ClassPose,
    MovePoses,
    OutputFiles,
    RegroupPlan,
    SuperclassMaps,
    assigned_order,
)

__all__ = [
    "Assignment",
    "ClassPose",
    "MovePoses",
    "OutputFiles",
    "ParticleFragment",
    "ParticleSource",
    "RegroupPlan",
    "SuperclassMaps",
    "assigned_order",
    "open_particles",
    "output_functions",
    "particle_kind",
]

MAGIC_CRYOSPARC = (b"\x93NUMPY", b"\x95CSDAT", b"\x94CSDAT")


def open_particles(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    passthrough: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
    class_prefix: str = "auto",
    fragment_rows: int | None = None,
    scratch: str | os.PathLike[str] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    run: RunPieces = in_this_process,
) -> ParticleSource:
    """Open particle files of any of the known formats, told apart by what is in them.

    Parameters
    ----------
    source : path or sequence of paths
        CryoSPARC ``.cs`` (both encodings) or a ``.csg`` group, RELION ``.star``, parquet files or a folder
        of them, cryoDRGN's ``labels.pkl``; globs are expanded. Several files of one kind are read as one table.
    passthrough : path or sequence of paths
        CryoSPARC passthrough files, in any row order.
    class_prefix : str
        CryoSPARC: which alignment slots hold the class posteriors: ``alignments_class3D_``,
        ``alignments_class_``, ``alignments3D_multi`` or ``auto``.
    fragment_rows : int, optional
        Rows of a fragment; by default as many as take about 64 MB in the file.
    scratch : path, optional
        Folder for indices and converted copies, seen by all workers; by default a temporary one.
    storage_options : dict, optional
        For URLs, as fsspec's file systems take them; used by this process from now on.
    run : RunPieces
        Runs the work of opening, piece by piece: by default in this process; `tasks.particles.on_cluster` has it done
        by workers.

    Raises
    ------
    InputError
        A file is missing or of no known kind, kinds are mixed, or the format's own demands are not met.
    """
    if storage_options is not None:
        storage.use_storage_options(storage_options)
    paths = _expand(source, "particles")
    passthrough_paths = _expand(passthrough, "passthrough") if passthrough else ()
    kinds = {path: particle_kind(path) for path in paths}
    kind = kinds[paths[0]]
    other = next((path for path in paths if kinds[path] != kind), None)
    if other is not None:
        raise InputError(
            f"particle files of different kinds cannot be read together: {paths[0]} is {kind}, {other} is {kinds[other]}"
        )
    if passthrough_paths and kind != "cryosparc":
        raise InputError(f"passthrough files belong to CryoSPARC particles, but {paths[0]} is {kind}: leave them away")
    if fragment_rows is not None and fragment_rows < 1:
        raise InputError(f"a fragment needs at least 1 row, not {fragment_rows}")
    scratch_folder = None if scratch is None else str(scratch)
    if kind == "cryosparc":
        from regroup_dask.formats.cryosparc.particles import open_cryosparc_particles

        return open_cryosparc_particles(
            paths,
            passthrough=passthrough_paths,
            class_prefix=class_prefix,
            fragment_rows=fragment_rows,
            scratch=scratch_folder,
            run=run,
        )
    if kind == "relion":
        from regroup_dask.formats.relion.particles import open_relion_particles

        return open_relion_particles(paths, fragment_rows=fragment_rows, scratch=scratch_folder, run=run)
    from regroup_dask.formats.parquet_particles import open_parquet_particles

    if any(path.endswith(".pkl") for path in paths):
        from regroup_dask.formats.cryodrgn import open_labels

        return open_labels(paths, fragment_rows=fragment_rows, scratch=scratch_folder)
    return open_parquet_particles(paths, fragment_rows=fragment_rows, scratch=scratch_folder, run=run)


def output_functions(
    kind: ParticleKind,
) -> tuple[Callable[..., OutputFiles], Callable[..., None], Callable[..., tuple[str, ...]]]:
    """Return (create_outputs, write_fragment, finish_outputs) of a format's own side."""
    module = {
        "cryosparc": "regroup_dask.formats.cryosparc.outputs",
        "relion": "regroup_dask.formats.relion.outputs",
        "parquet": "regroup_dask.formats.parquet_particles",
    }[kind]
    side = importlib.import_module(module)
    return side.create_outputs, side.write_fragment, side.finish_outputs


def particle_kind(path: str) -> ParticleKind:
    """Tell which format a particle file has, by its first bytes, and for text by its content.

    Raises
    ------
    InputError
        The file cannot be read or is of no known kind.
    """
    if storage.is_folder(path):
        if any(name.endswith(".parquet") for name in storage.files_below(path)):
            return "parquet"
        raise InputError(f"{path} is a folder without parquet files: give particle files, or run it as a job folder")
    try:
        with storage.open_reading(path, buffering=65536) as stream:
            start = stream.read(65536)
    except OSError as error:
        raise InputError(f"cannot read the particle file {path}: {error.strerror}") from None
    if start.startswith(MAGIC_CRYOSPARC) or path.endswith(".csg"):
        return "cryosparc"
    if start.startswith(b"PAR1") or path.endswith(".pkl"):
        return "parquet"
    if path.endswith(".star") or any(line.startswith(b"data_") for line in start.splitlines()):
        return "relion"
    raise InputError(f"{path} is no particle file known here: expected a CryoSPARC .cs or .csg, a RELION .star or a parquet file")


def _expand(source: Any, what: str) -> tuple[str, ...]:
    """Expand globs (sorted) and make paths absolute; the order of a list is kept."""
    given = [source] if isinstance(source, str | os.PathLike) else list(source)
    paths: list[str] = []
    for item in given:
        text = storage.given(item)
        found = storage.matching(text) if glob.has_magic(text) and not storage.exists(text) else [text]
        if not found:
            raise InputError(f"no {what} file matches {text}")
        paths += [storage.absolute(path) for path in found]
    if not paths:
        raise InputError(f"no {what} files were given")
    missing = next((path for path in paths if not storage.exists(path)), None)
    if missing is not None:
        raise InputError(f"the {what} file {missing} does not exist")
    return tuple(paths)
