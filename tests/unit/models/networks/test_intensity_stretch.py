from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch

from galbatch.models.convert import PreprocessingInfo
from galbatch.models.networks import LAYERS, Arsinh, AsTheyAre, ViewerRgb, stretch_named


def test_every_name_of_a_description_has_its_stretch():
    names = get_args(get_type_hints(PreprocessingInfo)["intensity_stretch"])
    assert names == ("none", "arsinh", *LAYERS)
    made = [type(stretch_named(name, pixel_scale_arcsec=0.262)) for name in names]
    assert made == [AsTheyAre, Arsinh, ViewerRgb, ViewerRgb]


def test_colors_of_the_legacy_surveys_own_layer():
    # Worked out by hand: x = (2.23, 3.43, 6.03) flux in nanomaggies of 1, and 0.03 of the sky alone.
    colors_of = stretch_named("legacy", pixel_scale_arcsec=0.262)
    sky = colors_of(torch.zeros(1, 3, 1, 1)).flatten()
    assert sky.tolist() == pytest.approx([np.arcsinh(0.6) / np.sqrt(20)] * 3)
    shown = colors_of(torch.full((1, 3, 1, 1), 0.01)).flatten()
    x = np.array([0.052, 0.064, 0.09])
    assert shown.tolist() == pytest.approx(x / x.mean() * np.arcsinh(20 * x.mean()) / np.sqrt(20))
    assert colors_of(torch.full((1, 3, 1, 1), 1e4)).tolist() == [[[[1.0]]] * 3]
    assert colors_of(torch.full((1, 3, 1, 1), -1.0)).tolist() == [[[[0.0]]] * 3]
