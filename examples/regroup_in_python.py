"""The Python interface, from maps to superclasses, on the demo's job.

    python examples/regroup_in_python.py [FOLDER]

Makes a small CryoSPARC job with a known truth, compares its class maps, looks at the groups for several numbers of
superclasses, and writes the output folder for one of them.
"""

import sys
import tempfile
from pathlib import Path

import regroup_dask as rd
from regroup_dask.demo import JOB_NAME, MINIMUM_CLASS_SIZE, simulate_job


def main(folder: Path) -> None:
    simulate_job(folder / "demo")
    job = folder / "demo" / JOB_NAME

    volumes = rd.open_volumes(str(job / "*_volume.mrc"))
    print(volumes)

    particles = rd.open_particles(
        next(path for path in sorted(job.glob("*_particles.cs")) if "passthrough" not in path.name)
    )
    print(f"{particles.count_rows()} particles, classes {particles.class_ids}")
    print(particles.head(3, columns=["uid"]).to_pandas())

    pairs = rd.compare(volumes, align=True, maximum_shift_angstrom=25)
    print(pairs["similarity"].round(2).to_pandas())
    for n_superclasses in (3, 4, 5):
        groups = rd.group(pairs, n_superclasses)
        print(n_superclasses, groups["superclass"].values, "stability", groups["stability"].values.round(2))

    result = rd.regroup(
        volumes,
        particles,
        n_superclasses=4,
        align=True,
        minimum_class_size=MINIMUM_CLASS_SIZE,
        output=folder / "regrouped",
    )
    print(result.superclasses.to_pandas())
    print(f"Look at {result.output / 'report.html'}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp(prefix="regroup_example_")))
