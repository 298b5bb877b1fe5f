import bz2
import contextlib
import gzip
import warnings

import mrcfile
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from regroup_dask.errors import InputError
from regroup_dask.formats import mrc
from regroup_dask.formats.slabs import slab_ranges
from tests.formats.mrc_files import density, write_with_mrcfile


def values_of(path):
    return mrc.read_checked(mrc.open_data(mrc.read_header(path)), str(path))


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.float32, np.uint16, np.float16])
def test_every_mode_that_holds_density_is_read(tmp_path, dtype):
    values = np.random.default_rng(1).integers(0, 100, (9, 9, 9)).astype(dtype)
    path = write_with_mrcfile(tmp_path / "map.mrc", values)
    read = values_of(path)
    assert read.dtype == np.float32
    assert read.flags.c_contiguous
    np.testing.assert_array_equal(read, values.astype(np.float32))


def test_complex_mode_is_refused(tmp_path):
    path = write_with_mrcfile(tmp_path / "map.mrc", np.ones((9, 9, 9), np.complex64))
    with pytest.raises(InputError, match="mode 4"):
        mrc.read_header(path)


def test_big_endian_is_read(tmp_path):
    values = density()
    path = tmp_path / "map.mrc"
    with mrcfile.new(path) as file:
        file.set_data(values)
        file.voxel_size = 3.0
    header = mrc.read_header(path)
    raw = np.fromfile(path, dtype=np.uint8)
    from mrcfile.dtypes import HEADER_DTYPE

    swapped = np.frombuffer(raw[:1024].tobytes(), HEADER_DTYPE).astype(HEADER_DTYPE.newbyteorder(">"))
    swapped["machst"] = (0x11, 0x11, 0, 0)
    path.write_bytes(swapped.tobytes() + values.astype(">f4").tobytes())
    assert mrc.read_header(path).voxel_size_angstrom == header.voxel_size_angstrom == 3.0
    np.testing.assert_array_equal(values_of(path), values)


def test_no_machine_stamp_is_read_and_said(tmp_path):
    values = density()
    path = write_with_mrcfile(tmp_path / "map.mrc", values, machst=(0, 0, 0, 0))
    assert any("machine stamp" in note for note in mrc.read_header(path).notes)
    np.testing.assert_array_equal(values_of(path), values)


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2), (2, 1, 3), (2, 3, 1), (1, 3, 2), (3, 2, 1)])
def test_axis_order_is_undone(tmp_path, order):
    wanted = density()  # [z, y, x]
    of_axis = {3: 0, 2: 1, 1: 2}  # axis number -> axis of `wanted`
    stored = wanted.transpose([of_axis[order[2]], of_axis[order[1]], of_axis[order[0]]])
    path = write_with_mrcfile(
        tmp_path / "map.mrc", np.ascontiguousarray(stored), mapc=order[0], mapr=order[1], maps=order[2]
    )
    np.testing.assert_array_equal(values_of(path), wanted)


def test_axis_order_that_is_none_is_refused(tmp_path):
    path = write_with_mrcfile(tmp_path / "map.mrc", density(), mapc=1, mapr=1, maps=3)
    with pytest.raises(InputError, match="axis order"):
        mrc.read_header(path)


@pytest.mark.parametrize("size", [0.0, 0.05, 150.0, float("nan"), float("inf")])
def test_absurd_voxel_size_is_none_and_said(tmp_path, size):
    path = write_with_mrcfile(
        tmp_path / "map.mrc", density(), cella={"x": size * 12, "y": size * 12, "z": size * 12}
    )
    header = mrc.read_header(path)
    assert header.voxel_size_angstrom is None
    assert any("voxel size" in note for note in header.notes)
    mrc.check_class_map(header)


def test_voxel_size_of_one_is_taken_and_said(tmp_path):
    header = mrc.read_header(write_with_mrcfile(tmp_path / "map.mrc", density(), voxel_size=1.0))
    assert header.voxel_size_angstrom == 1.0
    assert any("exactly 1 A" in note for note in header.notes)


def test_start_and_origin_do_not_move_the_frame_and_are_said(tmp_path):
    values = density()
    path = write_with_mrcfile(tmp_path / "map.mrc", values, nxstart=-6, origin={"x": 10.0})
    header = mrc.read_header(path)
    assert header.start_xyz == (-6, 0, 0)
    assert sum("does not move the frame" in note for note in header.notes) == 2
    np.testing.assert_array_equal(values_of(path), values)


@pytest.mark.parametrize(
    ("values", "fields", "said"),
    [
        (density()[:8], {}, "not a cube"),
        (density(4), {}, "at least 8"),
        (density(), {"cellb": {"beta": 94.326}}, "cell angles"),
        (density(), {"cella": {"x": 12 * 2.6}}, "cubic voxels"),
    ],
)
def test_what_cannot_be_a_class_map_is_refused(tmp_path, values, fields, said):
    path = write_with_mrcfile(tmp_path / "map.mrc", values, **fields)
    with pytest.raises(InputError, match=said) as raised:
        mrc.check_class_map(mrc.read_header(path))
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(tmp_path, bad):
    values = density()
    values[7, 3, 2] = bad
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = write_with_mrcfile(tmp_path / "map.mrc", values)
    with pytest.raises(InputError, match=r"not finite.*z = 7"):
        values_of(path)


def test_constant_map_is_refused(tmp_path):
    path = write_with_mrcfile(tmp_path / "map.mrc", np.full((9, 9, 9), 0.5, np.float32))
    with pytest.raises(InputError, match=r"constant: every voxel is 0\.5"):
        values_of(path)


@pytest.mark.parametrize("suffix", ["gz", "bz2"])
def test_compressed_maps(tmp_path, suffix):
    values = density()
    plain = write_with_mrcfile(tmp_path / "map.mrc", values).read_bytes()
    pack = gzip.compress if suffix == "gz" else bz2.compress
    path = tmp_path / f"map.mrc.{suffix}"
    path.write_bytes(pack(plain))
    np.testing.assert_array_equal(values_of(path), values)
    path.write_bytes(pack(plain[:-100]))
    with pytest.raises(InputError, match="truncated"):
        values_of(path)
    path.write_bytes(pack(plain)[:-100])
    with pytest.raises(InputError):
        values_of(path)


def test_gzip_of_several_members_is_whole(tmp_path):
    values = density()
    plain = write_with_mrcfile(tmp_path / "map.mrc", values).read_bytes()
    path = tmp_path / "map.mrc.gz"
    path.write_bytes(gzip.compress(plain[:3000]) + gzip.compress(plain[3000:]))
    np.testing.assert_array_equal(values_of(path), values)


def test_truncated_file_is_refused_with_both_sizes(tmp_path):
    path = write_with_mrcfile(tmp_path / "map.mrc", density())
    whole = path.read_bytes()
    path.write_bytes(whole[:-4])
    with pytest.raises(InputError, match=f"truncated.*{len(whole)}.*{len(whole) - 4}"):
        mrc.read_header(path)


def test_what_is_no_map_is_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        mrc.read_header(tmp_path / "none.mrc")
    with pytest.raises(InputError, match="is a folder"):
        mrc.read_header(tmp_path)
    (tmp_path / "short").write_bytes(b"abc")
    with pytest.raises(InputError, match="3 bytes"):
        mrc.read_header(tmp_path / "short")
    (tmp_path / "text").write_text("data_particles\n" * 200)
    with pytest.raises(InputError, match="no MRC map"):
        mrc.read_header(tmp_path / "text")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 1023), byte=st.integers(0, 255))
def test_a_damaged_header_is_read_or_refused_with_a_sentence_never_a_traceback(tmp_path, position, byte):
    path = tmp_path / "map.mrc"
    if not path.exists():
        write_with_mrcfile(path, density(8))
    raw = bytearray(path.read_bytes())
    raw[position] = byte
    damaged = tmp_path / "damaged.mrc"
    damaged.write_bytes(raw)
    with contextlib.suppress(InputError):
        header = mrc.read_header(damaged)
        mrc.check_class_map(header)
        assert mrc.read_checked(mrc.open_data(header), str(damaged)).shape == header.shape


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=hnp.arrays(np.float32, (8, 8, 8), elements=st.floats(-1e4, 1e4, width=32)),
    voxel_size=st.floats(0.2, 50),
)
def test_written_maps_are_valid_and_come_back_exactly(tmp_path, values, voxel_size):
    path = tmp_path / "written.mrc"
    mrc.write_mrc(path, values, voxel_size_angstrom=voxel_size)
    np.testing.assert_array_equal(mrcfile.read(path), values)
    header = mrc.read_header(path)
    assert header.voxel_size_angstrom == pytest.approx(voxel_size, rel=1e-5)
    assert header.space_group == 1
    assert not [note for note in header.notes if "exactly 1" not in note]
    np.testing.assert_array_equal(mrc.open_data(header), values)


def test_written_map_passes_the_validator_and_its_statistics_are_right(tmp_path):
    values = density(40) + 3
    mrc.write_mrc(tmp_path / "map.mrc", values, voxel_size_angstrom=1.31)
    assert mrcfile.validate(tmp_path / "map.mrc")
    with mrcfile.open(tmp_path / "map.mrc") as file:
        assert file.header.dmean == pytest.approx(values.mean(dtype=np.float64), rel=1e-6)
        assert file.header.rms == pytest.approx(values.std(dtype=np.float64), rel=1e-6)
        assert file.header.dmin == values.min()
        assert file.header.dmax == values.max()
        assert not file.header.nxstart
        assert not file.header.origin.x


def test_slabs_and_whole_map_give_the_same_bytes(tmp_path):
    values = density(20)
    mrc.write_mrc(tmp_path / "whole.mrc", values, voxel_size_angstrom=2.0)
    mrc.write_mrc(
        tmp_path / "slabs.mrc", (values[z : z + 7] for z in range(0, 20, 7)), box=20, voxel_size_angstrom=2.0
    )
    whole, slabs = mrcfile.open(tmp_path / "whole.mrc"), mrcfile.open(tmp_path / "slabs.mrc")
    np.testing.assert_array_equal(whole.data, slabs.data)
    assert (tmp_path / "whole.mrc").read_bytes() == (tmp_path / "slabs.mrc").read_bytes()


def test_unfinished_map_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="given 7 planes"):
        mrc.write_mrc(tmp_path / "map.mrc", [density(20)[:7]], box=20, voxel_size_angstrom=2.0)
    assert list(tmp_path.iterdir()) == []


@given(shape=st.tuples(st.integers(1, 600), st.integers(1, 600), st.integers(1, 600)))
def test_slabs_cover_every_plane_once(shape):
    ranges = slab_ranges(shape)
    assert [plane for begin, end in ranges for plane in range(begin, end)] == list(range(shape[0]))


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("name", "box", "voxel_size"),
    [
        ("EMD-3197.map", 20, 11.4),
        ("emd_1832.map", 64, 5.7),
        ("emd_5625.map", 56, 4.23),
        ("ispg_0.mrc", 97, 3.0),
        ("betaGal.mrc", 100, 3.54),
        ("clean70SRibosome_vol_65p.mrc", 65, None),
        ("10076_classD_32.mrc", 32, 1.0),
        ("warptools_test_box-32_angpix-12_reconstruct.mrc", 32, 12.0024),
    ],
)
def test_real_maps(shared_data, name, box, voxel_size):
    path = shared_data / "maps" / name
    header = mrc.read_header(path)
    mrc.check_class_map(header)
    assert header.shape == (box, box, box)
    assert header.voxel_size_angstrom == voxel_size
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = mrcfile.open(path, permissive=True).data
    np.testing.assert_array_equal(values_of(path), reference)


@pytest.mark.shared_data
def test_real_map_that_is_no_cube_is_refused(shared_data):
    header = mrc.read_header(shared_data / "maps" / "EMD-3001.map")
    assert header.shape == (73, 25, 43)
    with pytest.raises(InputError, match="43 x 25 x 73"):
        mrc.check_class_map(header)
