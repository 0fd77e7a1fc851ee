"""The run that the faults strike: 40 galaxies in small partitions, and a bundle that takes no time."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from galbatch.models import BundleMetadata, HeadInfo, InputInfo, ParameterInfo, save_bundle, script_of

N_OBJECTS = 40

RUN_TOML = """
[survey]
layout = "hsc"
tiles = "{survey}/deepCoadd-results/**/calexp-*.fits"
bands = ["g"]
[objects]
path = "{objects}"
[plan]
max_objects_per_partition = 4
[cutouts]
store = "{outputs}/cutouts.zarr"
[[models]]
name = "toy"
bundle = "{bundle}"
[posterior]
passes = 50
keep_pass_outputs = true
[catalog]
path = "{outputs}/catalog"
[cluster]
workers = 2
pause_limit = 300
dashboard_address = "127.0.0.1:0"
"""


class Center(nn.Module):
    """Says the brightness of the central pixels, and scatters it by the keys."""

    def __init__(self, shift: float) -> None:
        super().__init__()
        self.shift = shift

    @torch.jit.export
    def prefix(self, images: Tensor) -> Tensor:
        return torch.log1p(images[:, :, 28:36, 28:36].mean(dim=(2, 3)).clamp(min=0.0)) + self.shift

    @torch.jit.export
    def sample(self, features: Tensor, keys: Tensor) -> Tensor:
        jitter = torch.remainder(keys, 1009).to(features.dtype) / 1009.0 - 0.5
        return torch.stack([features[:, 0] + 0.1 * jitter, torch.full_like(features[:, 0], -2.0)], dim=1)


def write_bundle(path: Path, *, shift: float = 0.0) -> None:
    metadata = BundleMetadata(
        name="center",
        version="0",
        architecture="toy",
        input=InputInfo(("g",), 64, 0.168, "nJy", 31.4),
        head=HeadInfo("gaussian"),
        parameters=(ParameterInfo("ln_center_njy", "ln(nJy)", "the central pixels", "identity"),),
        dropout_rate=0.1,
    )
    save_bundle(str(path), script_of(Center(shift)), metadata)


def write_objects(survey: Path, path: Path) -> None:
    pq.write_table(pq.read_table(survey / "objects.parquet").slice(0, N_OBJECTS), path)
