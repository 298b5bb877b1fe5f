"""Fixtures shared by all tests; real files are used when they lie beside the checkout."""

from pathlib import Path

import pytest

from tests.object_store import object_store, store_endpoint  # noqa: F401  fixtures
from tests.store_runs import cryosparc_on_disk, memory, on_disk  # noqa: F401  fixtures

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real maps and metadata, or skip."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the shared data folder is not beside this checkout")
    return SHARED_DATA
