"""volumes.zarr says what viewers need by the rules of OME-NGFF 0.5, and stays what it was to xarray."""

import json

import numpy as np
import pytest
import xarray as xr
import zarr

import regroup_dask as rd
from regroup_dask.report.colours import superclass_colour
from tests import small_job


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    job = small_job.make_job(structures=2, members=2, box=17, voxel_size=3.5, moved=False, seed=6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("regroup_dask.pipeline.write_page", lambda folder: folder / "report.html")
        result = rd.regroup(
            job.maps, n_superclasses=2, output=tmp_path_factory.mktemp("ome") / "OUT", voxel_size_angstrom=job.voxel_size
        )
    return job, result.output / "volumes.zarr"


def test_axes_scale_and_origin_are_those_of_the_maps(run):
    job, store = run
    ome = json.loads((store / "zarr.json").read_text())["attributes"]["ome"]
    assert ome["version"] == "0.5"
    (image,) = ome["multiscales"]
    assert [(axis["name"], axis["type"], axis.get("unit")) for axis in image["axes"]] == [
        ("superclass", "channel", None),
        ("z", "space", "angstrom"),
        ("y", "space", "angstrom"),
        ("x", "space", "angstrom"),
    ]
    (level,) = image["datasets"]
    array = zarr.open_group(store)[level["path"]]
    assert list(array.metadata.dimension_names) == [axis["name"] for axis in image["axes"]]
    assert array.ndim == len(image["axes"])
    scale, shift = level["coordinateTransformations"]
    assert scale == {"type": "scale", "scale": [1.0, 3.5, 3.5, 3.5]}
    # Index times scale plus translation is the coordinate that xarray has.
    opened = xr.open_zarr(store)
    for number, axis in enumerate("zyx", 1):
        places = np.arange(job.box) * scale["scale"][number] + shift["translation"][number]
        np.testing.assert_allclose(places, opened[axis].values, atol=1e-9)
        assert places[job.box // 2] == 0


def test_superclasses_are_named_channels_in_the_colours_of_the_report(run):
    _, store = run
    opened = xr.open_zarr(store)
    channels = opened.attrs["ome"]["omero"]["channels"]
    assert [channel["label"] for channel in channels] == ["superclass 0", "superclass 1"]
    assert ["#" + channel["color"].lower() for channel in channels] == [superclass_colour(0), superclass_colour(1)]
    for number, channel in enumerate(channels):
        values = opened["volume"].sel(superclass=number).values
        window = channel["window"]
        assert (window["min"], window["max"]) == (values.min(), values.max())
        assert window["min"] <= window["start"] < window["end"] <= window["max"]


def test_xarray_reads_the_same_maps_with_and_without_consolidated_metadata(run):
    _, store = run
    for consolidated in (True, False):
        opened = xr.open_zarr(store, consolidated=consolidated)
        assert opened["volume"].dims == ("superclass", "z", "y", "x")
        assert opened.attrs["voxel_size_angstrom"] == 3.5
        assert opened["x"].attrs["units"] == "angstrom"


def test_the_models_of_the_specification_accept_it(run):
    models = pytest.importorskip("ome_zarr_models.v05")
    _, store = run
    image = models.Image.from_zarr(zarr.open_group(store, mode="r"))
    assert image.ome_attributes.multiscales[0].ndim == 4


def test_the_reader_of_napari_opens_it(run):
    pytest.importorskip("ome_zarr")
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader

    job, store = run
    (node,) = list(Reader(parse_url(str(store), mode="r"))())
    assert [axis["name"] for axis in node.metadata["axes"]] == ["superclass", "z", "y", "x"]
    assert node.metadata["channel_names"] == ["superclass 0", "superclass 1"]
    (level,) = node.data
    assert level.shape == (2, job.box, job.box, job.box)
    np.testing.assert_array_equal(np.asarray(level), xr.open_zarr(store)["volume"].values)
