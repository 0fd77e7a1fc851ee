"""The page about two kinds of labels is true: three ways of training on them, compared in one table."""

import pytest

from galbatch import config
from tests.integration import pages

PAGE = "transfer.md"


def test_the_config_is_valid(tmp_path):
    _, run = pages.blocks(PAGE, "toml")
    (tmp_path / "run.toml").write_text(run)
    read = config.read_config(tmp_path / "run.toml")
    assert (read.survey, [model.name for model in read.models]) == ((), ["base", "refined", "combined"])


@pytest.mark.slow
def test_the_three_ways_differ_as_the_page_says(tmp_path):
    make, compare = pages.blocks(PAGE, "python")
    train, run = pages.blocks(PAGE, "toml")
    files = {
        "make.py": make,
        "compare.py": compare,
        "train.toml": train,
        "run.toml": pages.on_free_ports(run),
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    for line in ["python make.py", *pages.commands(PAGE)]:
        pages.call(line, tmp_path)
    assert not (tmp_path / "cutouts.zarr").exists()
    rows = [line.split() for line in pages.call("python compare.py", tmp_path).splitlines()[1:]]
    found = {(objects, network): tuple(map(float, numbers)) for objects, network, *numbers in rows}
    assert len(found) == 6
    base, refined, combined = (found["bright", name] for name in ("base", "refined", "combined"))
    # The photometric labels are 0.03 (1 + z) too high, and their outliers pull further up; spectra take most of that away.
    assert base[0] == pytest.approx(0.045, abs=0.02)
    assert abs(refined[0]) < 0.5 * base[0]
    assert abs(combined[0]) < 0.8 * base[0]
    assert refined[1] < base[1]
