"""A few hundred of the mutations of `tests.benchmarks.mutations`, always the same."""

import signal

import pytest

from tests.benchmarks.mutations import run_mutations, too_slow


def test_damaged_and_hostile_files_are_refused_or_answered(tmp_path):
    before = signal.signal(signal.SIGALRM, too_slow)
    try:
        outcomes = list(run_mutations(300, 1, tmp_path / "files"))
    finally:
        signal.signal(signal.SIGALRM, before)
    wrong = [outcome for outcome in outcomes if outcome[2] not in ("answered", "read", "refused")]
    assert not wrong, wrong[0]
    assert {"answered", "refused"} <= {outcome for _, _, outcome in outcomes}


def test_the_file_names_of_a_group_lead_nowhere(tmp_path):
    """A group that names files outside its folder opens none of them."""
    from regroup_dask.errors import InputError
    from regroup_dask.formats.particles import open_particles

    (tmp_path / "inner").mkdir()
    (tmp_path / "secret.cs").write_bytes(b"")
    (tmp_path / "inner" / "link.cs").symlink_to(tmp_path / "secret.cs")
    for name in ("../secret.cs", str(tmp_path / "secret.cs"), "link.cs", ".", "a\0b"):
        text = f"group: {{type: particle}}\nresults: {{blob: {{metafile: {('>' + name)!r}}}}}\n"
        (tmp_path / "inner" / "a.csg").write_text(text)
        with pytest.raises(InputError, match=r"outside|NUL|not there"):
            open_particles(tmp_path / "inner" / "a.csg")
