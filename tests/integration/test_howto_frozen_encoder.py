"""The page about a frozen encoder is true: a small head on its embeddings tells sizes that it was not trained for."""

import re

import pytest

from galbatch import config
from tests.integration import pages

PAGE = "frozen_encoder.md"
NAMES = ("encode.toml", "head.toml", "head_run.toml")


def files():
    return dict(zip(NAMES, pages.blocks(PAGE, "toml"), strict=True))


def test_the_configs_are_valid(tmp_path):
    for name in ("encode.toml", "head_run.toml"):
        (tmp_path / name).write_text(files()[name])
        parsed = config.read_config(tmp_path / name)
        assert len(parsed.models) == 1


@pytest.mark.slow
def test_the_head_tells_sizes_of_galaxies_without_a_label(tmp_path):
    make, compare = pages.blocks(PAGE, "python")
    scripts = {"make.py": make, "compare.py": compare}
    for name, text in {**files(), **scripts}.items():
        (tmp_path / name).write_text(pages.on_free_ports(text))
    simulate, encode, train, *run = pages.commands(PAGE)
    pages.call(simulate, tmp_path)
    pages.call(encode, tmp_path)
    said = pages.call("python make.py", tmp_path)
    assert f"length = {said.split()[-1]}\n" in files()["head.toml"]
    for line in (train, *run):
        pages.call(line, tmp_path)
    n, scatter, left = map(float, re.findall(r"\d+\.?\d*", pages.call("python compare.py", tmp_path)))
    assert n > 250
    assert left < 0.85 * scatter
