"""The [posterior] section: how posteriors are sampled and summarized."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from galbatch.config.strict import Section
from galbatch.core.flags import ModelFlag

__all__ = ["PosteriorConfig"]

MOST_PASSES = 100_000

Passes = Annotated[int, Field(ge=2, le=MOST_PASSES)]


class PosteriorConfig(Section):
    """The [posterior] section: how posteriors are sampled and summarized."""

    method: Literal["mixture", "samples"] = Field(
        "mixture",
        description="mixture: quantiles of the mixture over passes; samples: one draw a pass, as in the GaMPEN paper",
    )
    passes: int | Literal["adaptive"] = Field(
        "adaptive",
        description="Monte Carlo dropout passes per object; adaptive: as many as the tolerance asks for, object by object",
    )
    # Where 3 % of the passes are off by 2 sigma, 14 % of the objects show no such pass in 64: fewer would hide more.
    min_passes: Passes = Field(64, description="adaptive: passes that every object gets")
    # The number of draws of the GaMPEN paper.
    max_passes: Passes = Field(1000, description="adaptive: passes that no object exceeds")
    # 1000 draws are off by 0.066 on average over the default quantiles.
    tolerance: float = Field(
        0.05,
        gt=0,
        description="adaptive: Monte Carlo error of every quantile to be reached, in posterior standard deviations; "
        f"{ModelFlag.NOT_CONVERGED.name} above it",
    )
    # Those of a normal distribution at -2, -1, 0, 1 and 2 standard deviations.
    quantiles: tuple[float, ...] = Field(
        (0.02275, 0.15865, 0.5, 0.84135, 0.97725),
        description="quantiles in the catalog; the default: median, 1 and 2 sigma",
    )
    seed: int = Field(1, ge=0, description="seed of the dropout masks and draws")
    batch: int = Field(256, ge=1, description="rows (object times pass) a forward sees at most")
    engine: Literal["auto", "torchscript", "rebuilt", "compiled"] = Field(
        "auto",
        description="torchscript: the bundle's own script; rebuilt: modules with its weights, of architectures that galbatch "
        "knows; compiled: these through torch.compile; auto: chosen once per run and recorded",
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="of what follows the first dropout; auto: chosen once per run and recorded"
    )
    keep_pass_outputs: bool = Field(
        False, description="keep the outputs of every pass in Zarr next to the catalog, for joint draws later"
    )

    @model_validator(mode="after")
    def _quantiles_are_probabilities(self) -> PosteriorConfig:
        if not self.quantiles or any(not 0 < q < 1 for q in self.quantiles):
            raise ValueError(f"quantiles must lie between 0 and 1, found {list(self.quantiles)}")
        if list(self.quantiles) != sorted(set(self.quantiles)) or 0.5 not in self.quantiles:
            raise ValueError("quantiles must rise, without repeats, and hold 0.5 (the median)")
        if isinstance(self.passes, int) and not 2 <= self.passes <= MOST_PASSES:
            raise ValueError(f"passes must be 2 to {MOST_PASSES}, found {self.passes}")
        if self.min_passes > self.max_passes:
            raise ValueError(f"min_passes is {self.min_passes}, above max_passes, {self.max_passes}")
        return self
