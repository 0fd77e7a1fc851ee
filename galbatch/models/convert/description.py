"""The TOML file that describes a foreign network: its inputs, outputs and preprocessing."""

# No postponed annotations: config looks for the nearest known key in the classes the fields name.
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from galbatch.config import one_or_several, parse_strictly
from galbatch.errors import BundleError, ConfigError
from galbatch.models.heads import read_metadata
from galbatch.models.metadata import (
    STRICT,
    BundleMetadata,
    DomainInfo,
    HeadInfo,
    InputInfo,
    ParameterInfo,
    write_metadata,
)

__all__ = ["PreprocessingInfo", "ScriptDescription", "read_description"]


@dataclass(frozen=True)
class PreprocessingInfo:
    """The preprocessing before a foreign network: intensity stretch, repetition of the band, then (x - mean) / std.

    Attributes
    ----------
    intensity_stretch : none, arsinh, or sdss or legacy: the colors that the Legacy Surveys' viewer makes for that layer, from
        images in nanomaggies
    channels : number of channels to which a single band is repeated; 0: one channel per band
    mean, std : one number for all channels, or one per channel
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    intensity_stretch: Literal["none", "arsinh", "sdss", "legacy"] = "none"
    channels: int = 0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def problems(self, n_bands: int) -> list[str]:
        """Return messages on steps that do not fit the number of bands; empty if there are none."""
        channels = self.channels or n_bands
        problems = []
        if self.channels < 0:
            problems.append(f"preprocessing: channels = {self.channels}, expected 0 or more")
        if channels != n_bands and n_bands != 1:
            problems.append(
                f"preprocessing: channels = {channels}, but there are {n_bands} bands; only one is repeated"
            )
        if self.intensity_stretch in ("sdss", "legacy") and n_bands != 3:
            problems.append(
                f"preprocessing: intensity_stretch {self.intensity_stretch} makes colors of 3 bands, found {n_bands}"
            )
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, channels):
                problems.append(
                    f"preprocessing: {name} has {len(values)} numbers, expected 1 or one per channel ({channels})"
                )
        # The default stands in for an empty list, which the check above names already.
        if min(self.std, default=1.0) <= 0:
            problems.append("preprocessing: std must be above 0")
        return problems


@dataclass(frozen=True)
class ScriptDescription:
    """The content of a description file. Fields that are not listed here are those of `BundleMetadata`.

    Attributes
    ----------
    dropout_rate : above 0: the network's nn.Dropout modules are active, so that passes differ; 0: they are switched off
    draws : whether passes differ by what the network itself draws, such as dropout that it calls as a function or latent numbers
    preprocessing : steps between the images and the network, the same for all grids, or a list with those of each
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    name: str
    input: InputInfo
    head: HeadInfo
    parameters: tuple[ParameterInfo, ...]
    version: str = "1"
    architecture: str = "script"
    dropout_rate: float = 0.0
    draws: bool = False
    members: int = 1
    member_weights: tuple[int, ...] = ()
    domain: DomainInfo = field(default_factory=DomainInfo)
    preprocessing: Annotated[tuple[PreprocessingInfo, ...], one_or_several(dict)] = (PreprocessingInfo(),)
    training_data: str = ""
    licence: str = ""
    citation: str = ""

    def metadata(self, origin: dict[str, Any]) -> BundleMetadata:
        """Return the metadata of the bundle; `origin` describes the files that it is made from."""
        return BundleMetadata(
            name=self.name,
            version=self.version,
            architecture=self.architecture,
            input=self.input,
            head=self.head,
            parameters=self.parameters,
            dropout_rate=self.dropout_rate,
            draws=self.draws,
            domain=self.domain,
            members=self.members,
            member_weights=self.member_weights,
            training_data=self.training_data,
            origin=origin,
            licence=self.licence,
            citation=self.citation,
        )

    @property
    def preprocessing_of_grids(self) -> tuple[PreprocessingInfo, ...]:
        """The preprocessing of each grid."""
        n_grids = len(self.input.images)
        return self.preprocessing * n_grids if len(self.preprocessing) == 1 else self.preprocessing

    def problems(self) -> list[str]:
        """Return messages on preprocessing that does not fit the grids or their bands; empty if there are none."""
        grids, steps = self.input.images, self.preprocessing_of_grids
        if len(steps) != len(grids):
            return [
                f"preprocessing: {len(steps)} sections for {len(grids)} grids; state one for all, or one for each"
            ]
        return [
            problem
            for grid, one in zip(grids, steps, strict=True)
            for problem in one.problems(len(grid.bands))
        ]


def read_description(path: str) -> ScriptDescription:
    """Read a description file.

    Raises
    ------
    ConfigError
        The file does not exist, is no TOML, has unknown or missing keys, or values that contradict each other.
    """
    try:
        data = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such description") from None
    except OSError as error:
        raise ConfigError(f"{path}: the description cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is no TOML: {error}") from None
    description = parse_strictly(ScriptDescription, data, source=path)
    # The rules of bundles apply as well: the metadata are written and read as a bundle's are, and messages name this file.
    try:
        read_metadata(write_metadata(description.metadata({})), path)
    except BundleError as error:
        raise ConfigError(str(error).replace(": galbatch.json", "")) from None
    if problems := description.problems():
        raise ConfigError("\n".join(f"{path}: {problem}" for problem in problems))
    return description
