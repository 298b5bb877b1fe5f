"""The two pictures of a report that the README shows, drawn by the report's own figure functions.

    python -m examples.pictures [OUT] [--to examples/pictures]

OUT is the output folder of a run; without it the demo is made and run first, in a temporary folder. The same OUT gives
the same bytes. No browser is needed.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import regroup_dask as rd
from regroup_dask.demo import MINIMUM_CLASS_SIZE, N_SUPERCLASSES, simulate_job
from regroup_dask.report import plot_similarity, plot_superclasses
from regroup_dask.report.common_frame import in_one_frame
from regroup_dask.report.output_contents import read_output
from regroup_dask.report.superclass_views import superclass_maps

LARGEST_BYTES = 100_000


def demo(folder: Path) -> Path:
    """Make the demo's job and regroup it in this process."""
    simulate_job(folder)
    rd.regroup(
        rd.open_volumes(str(folder / "J42" / "*_volume.mrc")),
        sorted(map(str, (folder / "J42").glob("*_particles.cs")))[0],
        n_superclasses=N_SUPERCLASSES,
        minimum_class_size=MINIMUM_CLASS_SIZE,
        align=True,
        output=folder / "OUT",
    )
    return folder / "OUT"


def draw(output: Path, target: Path) -> list[Path]:
    """Write the pictures of a run; returns their paths."""
    contents = read_output(output)
    assert contents.volumes is not None
    assert contents.pairs is not None
    target.mkdir(parents=True, exist_ok=True)
    maps = superclass_maps(contents.volumes, None, contents.groups)
    assert maps is not None
    turned, _ = in_one_frame(maps, contents.pairs, contents.groups)
    figures = {
        "superclasses.png": (plot_superclasses(turned, contents.groups), 72),
        "similarity.png": (plot_similarity(contents.pairs, contents.groups), 80),
    }
    written = []
    for name, (figure, dots_per_inch) in figures.items():
        path = target / name
        figure.savefig(path, dpi=dots_per_inch, facecolor="white", metadata={"Software": None})
        if path.stat().st_size >= LARGEST_BYTES:
            _shrink(path)
        if path.stat().st_size >= LARGEST_BYTES:
            raise ValueError(f"{path} has {path.stat().st_size} bytes: it shall be below {LARGEST_BYTES}")
        written.append(path)
    return written


def _shrink(path: Path) -> None:
    """Save a picture again with 128 colours."""
    from PIL import Image

    with Image.open(path) as image:
        image.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", nargs="?", type=Path, metavar="OUT")
    parser.add_argument("--to", type=Path, default=Path(__file__).parent / "pictures", metavar="DIR")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        output = given.output or demo(Path(folder))
        for path in draw(output, given.to):
            print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
