"""``regroup-dask align``: one map superposed onto another."""

from __future__ import annotations

import json
import math
from typing import Any

import click

from regroup_dask.cli.options import storage_options
from regroup_dask.cli.teaching import TeachingCommand
from regroup_dask.errors import InputError
from regroup_dask.formats import storage


@click.command(
    "align",
    cls=TeachingCommand,
    examples=(
        ("regroup-dask align class_03.mrc class_00.mrc -o class_03_on_00.mrc", "write the moved map"),
        ("regroup-dask align class_03.mrc class_00.mrc --json", "only the pose, for a program to read"),
    ),
    short_help="Superpose one map onto another, over all rotations.",
)
@click.argument("moving", type=click.Path())
@click.argument("reference", type=click.Path())
@click.option("-o", "--output", type=click.Path(), metavar="ALIGNED.mrc", help="Write the moved map.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.option("--maximum-shift", "maximum_shift_angstrom", type=float, default=20.0, show_default=True, metavar="A",
              help="Maximum shift (A) between the two maps.")
@click.option("--hand", type=click.Choice(["off", "detect"]), default="detect", show_default=True,
              help="Try the opposite hand too.")
@click.option("--voxel-size", "voxel_size_angstrom", type=float, metavar="A",
              help="Voxel size, where the headers do not say it.")
@click.option("--overwrite", is_flag=True, help="Replace ALIGNED.mrc if it exists.")
@storage_options
def command(
    moving: str,
    reference: str,
    output: str | None,
    as_json: bool,
    maximum_shift_angstrom: float,
    hand: str,
    voxel_size_angstrom: float | None,
    overwrite: bool,
) -> None:
    """Find the rotation and shift that superpose MOVING onto REFERENCE.

    Box and voxel size may differ. The pose is x_reference = R x_moving + t, about voxel n // 2 of each map; with the
    opposite hand x_moving is inverted first. A hand that cannot be told is kept.

    The correlation is that of the two maps at the pose. The confidence is how far the pose stands above the best one
    that differs from it by 10 degrees or more, in standard deviations of what unrelated maps score by chance: above 6
    nothing else comes near; below 3 the two could as well change places, as the equal poses of a symmetric map do.
    """
    from regroup_dask.formats.mrc_writer import write_mrc
    from regroup_dask.single_pair import align_maps, move_onto, read_given

    if not 0 <= maximum_shift_angstrom < math.inf:
        raise InputError(f"--maximum-shift is {maximum_shift_angstrom} A: it is a finite number, 0 or more.")
    target = None if output is None else storage.location(output)
    if target is not None and target.exists() and not overwrite:
        raise InputError(f"{target} exists: give another name, or --overwrite.")
    if target is not None and not target.parent.is_dir():
        raise InputError(f"The folder {target.parent} of {target.name} does not exist: make it first.")
    first = read_given(moving, voxel_size_angstrom=voxel_size_angstrom)
    second = read_given(reference, voxel_size_angstrom=voxel_size_angstrom)
    found = align_maps(first, second, maximum_shift_angstrom=maximum_shift_angstrom, hand=hand, same_contrast=True)
    if target is not None:
        write_mrc(target, move_onto(first, second, found), voxel_size_angstrom=second.voxel_size_angstrom)
    values = _values(moving, reference, output, found)
    if as_json:
        click.echo(json.dumps(values, indent=1))
    else:
        _show(values)


def _values(moving: str, reference: str, output: str | None, found: Any) -> dict[str, Any]:
    from scipy.spatial.transform import Rotation

    rotation = Rotation.from_matrix(found.rotation)
    vector = rotation.as_rotvec()
    angle = math.sqrt(float(vector @ vector))
    # RELION's matrix of a pose maps the volume to the view, hence the transpose.
    euler = _relion_euler(found.rotation)
    return {
        "moving": moving,
        "reference": reference,
        "rotation_matrix": found.rotation.tolist(),
        "rotation_quaternion": rotation.as_quat(canonical=True).tolist(),
        "rotation_axis": (vector / angle).tolist() if angle > 0 else [0.0, 0.0, 1.0],
        "rotation_degrees": math.degrees(angle),
        "relion_euler_degrees": dict(zip(("rot", "tilt", "psi"), euler, strict=True)),
        "shift_angstrom": found.shift_angstrom.tolist(),
        "mirrored": found.mirrored,
        "hand_told": found.hand_told,
        "correlation": found.correlation,
        "correlation_other_hand": None if math.isnan(found.correlation_other_hand) else found.correlation_other_hand,
        "confidence": None if math.isnan(found.confidence) else found.confidence,
        "working_voxel_size_angstrom": found.working_voxel_size_angstrom,
        "aligned": output,
        "notes": list(found.notes),
    }


def _relion_euler(rotation: Any) -> tuple[float, float, float]:
    """Euler angles (rot, tilt, psi) of ``Rz(rot) Ry(tilt) Rz(psi)``, degrees, tilt in 0..180."""
    tilt = math.atan2(math.hypot(rotation[0, 2], rotation[1, 2]), rotation[2, 2])
    if math.hypot(rotation[0, 2], rotation[1, 2]) < 1e-9:
        sign = 1.0 if rotation[2, 2] > 0 else -1.0
        return math.degrees(math.atan2(sign * rotation[1, 0], sign * rotation[0, 0])), math.degrees(tilt), 0.0
    return (
        math.degrees(math.atan2(rotation[1, 2], rotation[0, 2])),
        math.degrees(tilt),
        math.degrees(math.atan2(rotation[2, 1], -rotation[2, 0])),
    )


def _show(values: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column()
    for number, row in enumerate(values["rotation_matrix"]):
        table.add_row("rotation matrix" if number == 0 else "", "  ".join(f"{value: .6f}" for value in row))
    axis = ", ".join(f"{value:.4f}" for value in values["rotation_axis"])
    table.add_row("rotation", f"{values['rotation_degrees']:.3f} degrees about ({axis})")
    euler = values["relion_euler_degrees"]
    table.add_row("RELION Euler angles", f"rot {euler['rot']:.3f}, tilt {euler['tilt']:.3f}, psi {euler['psi']:.3f}")
    table.add_row("shift (x, y, z)", ", ".join(f"{value:.3f}" for value in values["shift_angstrom"]) + " A")
    hand = "opposite: MOVING is inverted first" if values["mirrored"] else "same"
    table.add_row("hand", "kept: it cannot be told" if values["hand_told"] is False else hand)
    table.add_row("correlation", f"{values['correlation']:.4f}")
    if values["correlation_other_hand"] is not None:
        table.add_row("other hand", f"{values['correlation_other_hand']:.4f}")
    if values["confidence"] is not None:
        table.add_row("confidence", f"{values['confidence']:.2f} standard deviations above the next pose")
    table.add_row("compared at", f"{values['working_voxel_size_angstrom']:.2f} A per voxel")
    if values["aligned"]:
        table.add_row("written", values["aligned"])
    Console().print(table, highlight=False)
    for note in values["notes"]:
        click.echo(f"Note: {note}")
