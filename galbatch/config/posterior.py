"""The [posterior] section: how posteriors are sampled and summarized."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from galbatch.config.strict import Section
from galbatch.core.flags import ModelFlag

__all__ = ["PosteriorConfig"]

# Quantiles of 100,000 draws have an error of 0.7 % of a standard deviation: more passes would change nothing.
MOST_PASSES = 100_000

# 100,000 draws have one beyond 1e-5; a mixture of normal distributions says more, but no network was ever tested there.
SMALLEST_QUANTILE = 1e-6

# Each is a column for each parameter: more describe a density, which is better kept as pass outputs.
MOST_QUANTILES = 1000

Passes = Annotated[int, Field(ge=2, le=MOST_PASSES)]


class PosteriorConfig(Section):
    """The [posterior] section: how posteriors are sampled and summarized."""

    method: Literal["mixture", "samples"] = Field(
        "mixture",
        description="how quantiles are computed. mixture: from the mixture of the distributions that all passes predict; samples: "
        "from one random draw per pass, as in the GaMPEN paper",
    )
    passes: int | Literal["adaptive"] = Field(
        "adaptive",
        description="number of Monte Carlo dropout passes per object; adaptive: for each object as many as it needs to reach the "
        "tolerance",
    )
    min_passes: Passes | None = Field(
        None,
        description="adaptive: smallest number of passes of an object; without it the start that the bundle's stopping calibration "
        "states, or 64 where there is none",
    )
    # The GaMPEN paper makes 1000 draws of each galaxy.
    max_passes: Passes = Field(1000, description="adaptive: largest number of passes of an object")
    # For comparison: quantiles of the paper's 1000 draws have an RMS error of 0.066, averaged over the default quantiles.
    tolerance: float = Field(
        0.05,
        # The most passes reach 3e-3.
        ge=1e-6,
        # An error of one standard deviation is all of the posterior: any posterior is within a hundred.
        le=100,
        description="adaptive: largest Monte Carlo error allowed in any quantile, in units of the posterior's standard deviation; "
        f"objects above it get the flag {ModelFlag.NOT_CONVERGED.name}",
    )
    # The probabilities of a normal distribution below -2, -1, 0, 1 and 2 standard deviations.
    quantiles: tuple[float, ...] = Field(
        (0.02275, 0.15865, 0.5, 0.84135, 0.97725),
        description="quantiles in the catalog, as probabilities; the default is the median and the limits of 1 and 2 sigma",
    )
    # Files and arrays hold integers of 64 bits with sign.
    seed: int = Field(1, ge=0, le=2**63 - 1, description="seed of the dropout masks and draws")
    # Run out of memory, the batch is halved: the draws stay the same, as each row has a key of its own.
    batch: int = Field(
        # The images of a million rows have 4 GB at the smallest grids, 32 px in one band.
        256,
        ge=1,
        le=10**6,
        description="largest number of rows (objects times passes) in one call of the network",
    )
    engine: Literal["auto", "torchscript", "rebuilt", "compiled"] = Field(
        "auto",
        description="how the network is run. torchscript: by the script in the bundle; rebuilt: by galbatch's own modules with the "
        "bundle's weights, for architectures that galbatch knows; compiled: the same through torch.compile; auto: chosen once "
        "per run and recorded",
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="floating-point precision of the layers after the first dropout; auto: chosen once per run and recorded",
    )
    keep_pass_outputs: bool = Field(
        False,
        description="store the outputs of every pass in Zarr next to the catalog; galbatch draws needs them to make joint draws",
    )

    @model_validator(mode="after")
    def _quantiles_are_probabilities(self) -> PosteriorConfig:
        if any(not SMALLEST_QUANTILE <= q <= 1 - SMALLEST_QUANTILE for q in self.quantiles):
            raise ValueError(
                f"quantiles must lie between {SMALLEST_QUANTILE:g} and {1 - SMALLEST_QUANTILE:g}, found {list(self.quantiles)}"
            )
        if len(self.quantiles) > MOST_QUANTILES:
            raise ValueError(f"quantiles: at most {MOST_QUANTILES}, found {len(self.quantiles)}")
        if list(self.quantiles) != sorted(set(self.quantiles)) or 0.5 not in self.quantiles:
            raise ValueError("quantiles must rise, without repeats, and hold 0.5 (the median)")
        # The annotation `Passes` in a union would give two messages for one number, the second about "adaptive".
        if isinstance(self.passes, int) and not 2 <= self.passes <= MOST_PASSES:
            raise ValueError(f"passes must be 2 to {MOST_PASSES}, found {self.passes}")
        if self.min_passes is not None and self.min_passes > self.max_passes:
            raise ValueError(f"min_passes is {self.min_passes}, above max_passes, {self.max_passes}")
        return self

    @property
    def most_passes(self) -> int:
        """The largest number of passes that an object gets of one network."""
        return self.max_passes if self.passes == "adaptive" else self.passes
