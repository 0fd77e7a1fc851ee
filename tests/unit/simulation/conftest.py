import pyarrow.parquet as pq
import pytest

from galbatch.simulation import simulate_survey


@pytest.fixture(scope="session")
def survey(tmp_path_factory):
    """A survey of 60 galaxies on 2 x 2 patches, drawn in this process."""
    folder = tmp_path_factory.mktemp("survey")
    return folder, simulate_survey(str(folder), n_objects=60, seed=5, processes=1)


@pytest.fixture(scope="session")
def truth(survey):
    return pq.read_table(survey[1].truth)
