"""Settings of a training. They are read from TOML, where unknown keys are errors, and kept in the bundle's metadata.

The defaults are the GaMPEN paper's (section 5; Ghosh et al. 2022, ApJ 935, 138).
"""

# No postponed annotations: config looks for the nearest known key in the classes the fields name.
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import AfterValidator, Field

from galbatch.config import parse_strictly
from galbatch.errors import BundleError, ConfigError
from galbatch.models.heads import HEADS, LIKELIHOOD, head_of, head_problems, losses_of
from galbatch.models.metadata import (
    STRICT,
    AuxiliaryInput,
    BundleMetadata,
    HeadInfo,
    HeadOptions,
    ParameterInfo,
    Range,
)

__all__ = ["ARCHITECTURES", "TrainingSettings", "parse_settings", "setting_texts", "settings_of"]

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]

# GaMPEN's is the rate of the paper's network for simulated galaxies (section 5). Of an mlp's 256 units 0.05 zeroes 13, which makes the
# passes differ by a part of the noise of photometric redshifts, and is chosen anew by galbatch models calibrate --dropout.
DROPOUT_RATES = {"gampen": 7e-4, "sfnet": 0.0, "mlp": 0.05, "timm": 0.05}
Architecture = Literal["gampen", "sfnet", "mlp", "timm"]
ARCHITECTURES: tuple[str, ...] = get_args(Architecture)
"""The architectures that galbatch trains."""
# An encoder has layers of its own; one hidden layer after it lets image and numbers act together.
HIDDEN = {"mlp": (256, 256, 256), "timm": (256,)}
SFNET_TOP_FEATURES = 8  # The largest k of the released networks.


def _help(text: str) -> Any:
    """Return the annotation of a field with its description, which the reference and the messages of errors show."""
    return Field(description=text)


def _known_head(kind: str) -> str:
    """Return `kind` if it is the name of a kind of head.

    Raises
    ------
    ValueError
        It is not; pydantic turns this into an error that names the key.
    """
    try:
        return head_of(HeadInfo(kind)).kind
    except BundleError as error:
        raise ValueError(str(error)) from None


def _known_loss(name: str) -> str:
    """Return `name` if some kind of head has a loss of that name.

    Raises
    ------
    ValueError
        None has; pydantic turns this into an error that names the key.
    """
    known = list(dict.fromkeys(name for head in HEADS.values() for name in losses_of(head)))
    if name not in known:
        raise ValueError(f"loss {name}: not known; known are {', '.join(known)}")
    return name


GAUSSIAN, POINT = "gaussian", "point"  # The heads in the papers of GaMPEN and of SFNet.


@dataclass(frozen=True)
class TrainingSettings(HeadOptions):
    """The settings of a training. Each field is described in its annotation.

    None for `head`, `loss`, `dropout_rate` or `n_top_features` is replaced by the value in the architecture's paper.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    name: Annotated[str, Field(min_length=1), _help("name of the bundle")]
    architecture: Annotated[
        Architecture,
        _help("gampen or sfnet; mlp: a dense network on columns alone; timm: an encoder of timm"),
    ]
    parameters: Annotated[
        tuple[ParameterInfo, ...],
        Field(min_length=1),
        _help(
            "the parameters to estimate, one [[parameters]] each: name (column of the labels), unit, description, transform (logit, ln, "
            "log10, identity), limits (logit: values at or beyond them count as exactly 0 and 1), magnitude, labels"
        ),
    ]
    bands: Annotated[
        tuple[str, ...],
        _help("bands, in the order of the images' axis; empty for mlp, which takes no images"),
    ] = ()
    version: Annotated[str, _help("version of the bundle")] = "1"
    size_px: Annotated[Count | None, _help("side of the cutouts; empty: the side of the images")] = None
    pixel_scale_arcsec: Annotated[Positive, _help("pixel scale of the cutouts")] = 0.168
    zero_point_mag: Annotated[
        float,
        Field(allow_inf_nan=False),
        _help("AB zero point of the unit that the network takes; 31.4 is nJy"),
    ] = 27.0
    background: Annotated[str, _help("how the sky was subtracted")] = ""
    release: Annotated[str, _help("data release of the images")] = ""
    dereddened: Annotated[
        bool | None,
        _help("whether the fluxes of the images are corrected for Galactic extinction; empty: not stated"),
    ] = None
    auxiliary_inputs: Annotated[
        tuple[AuxiliaryInput, ...],
        _help(
            "auxiliary inputs: numbers or vectors per object that the network takes with the image, or an mlp alone, one [[auxiliary_inputs]] each: name "
            "(of the labels' column), unit, description, length (of a vector, whose column holds lists)"
        ),
    ] = ()
    head: Annotated[
        Annotated[str, AfterValidator(_known_head)] | None,
        _help(
            f"{', '.join(kind for kind in HEADS if not HEADS[kind].is_vector)}; empty: {POINT} for sfnet, else {GAUSSIAN}"
        ),
    ] = None
    loss: Annotated[
        Annotated[str, AfterValidator(_known_loss)] | None,
        _help(
            "likelihood (negative log likelihood of the head; for gaussian equation 8 of the GaMPEN paper, averaged over the batch as in its code; for "
            "point half the squared error), rmse (root mean square over the batch, for a point head, as in SFNet's code), or for a binned head "
            "cross_entropy or crps (the continuous ranked probability score, which knows how far a bin is from the truth); empty: rmse for "
            "an sfnet with a point head, else likelihood"
        ),
    ] = None
    width: Annotated[Positive, _help("factor on the published network's number of channels")] = 1.0
    in_channels: Annotated[
        Count,
        _help(
            "gampen: number of input channels; a single band is repeated (3 in the released networks), several bands are one channel each"
        ),
    ] = 3
    hidden: Annotated[
        tuple[Count, ...],
        _help(
            "mlp, timm: number of units of each hidden layer; empty: 256, 256, 256 for mlp, for timm 256 after the encoder"
        ),
    ] = ()
    encoder: Annotated[
        str,
        _help("timm: name of the encoder in timm, such as resnet18 or convnext_atto; its weights are random"),
    ] = ""
    n_top_features: Annotated[
        Annotated[int, Field(ge=0)] | None,
        _help("sfnet: number k of features that are kept; empty: 8 for sfnet"),
    ] = None
    dropout_rate: Annotated[
        Share | None,
        _help("rate of every dropout layer; empty: 7e-4 for gampen, 0 for sfnet, 0.05 for mlp and timm"),
    ] = None
    epochs: Annotated[Count, _help("largest number of passes through the training set")] = 40
    batch: Annotated[Count, _help("galaxies per step")] = 16
    optimizer: Annotated[Literal["sgd", "adam", "adamw"], _help("optimizer: sgd, adam or adamw")] = "sgd"
    learning_rate: Annotated[Positive, _help("learning rate, before warm-up and schedule change it")] = 5e-7
    momentum: Annotated[Share, _help("momentum of sgd")] = 0.99
    weight_decay: Annotated[
        float,
        Field(ge=0),
        _help("L2 penalty on the weights, added to the gradient; with adamw applied apart from it"),
    ] = 1e-4
    schedule: Annotated[
        Literal["constant", "cosine"],
        _help("schedule of the learning rate after the warm-up: constant, or cosine, which falls to 0"),
    ] = "constant"
    warmup_epochs: Annotated[
        float, Field(ge=0), _help("epochs, or part of one, in which the learning rate rises from 0")
    ] = 0.0
    max_gradient_norm: Annotated[
        Positive | None,
        _help("largest norm of the gradient; longer ones are scaled down to it; empty: no limit"),
    ] = None
    average_weights: Annotated[
        Share,
        _help(
            "decay per step of an exponential average of the weights, such as 0.999, which averages over 1 / (1 - decay) steps, and the first steps "
            "over all so far; the averaged weights are validated and kept; 0: weights are not averaged"
        ),
    ] = 0.0
    precision: Annotated[
        Literal["float32", "tf32", "bf16"],
        _help(
            "float32; tf32 (on a GPU); bf16: for everything after the first dropout except the last layer and the loss"
        ),
    ] = "float32"
    augmentation: Annotated[
        bool, _help("rotate the images of each batch by multiples of 90 deg, and flip them")
    ] = True
    limit_tail: Annotated[
        float,
        Field(ge=0, allow_inf_nan=False),
        _help(
            "values at a parameter's limit (B/T of exactly 0 or 1) are replaced in every epoch by random values beyond it, at a mean distance of this many "
            "standard deviations of the training set; 0: they stay at the limit, as in the paper"
        ),
    ] = 0.0
    validation_share: Annotated[
        Share, _help("share of the objects by which the epoch is chosen whose weights are kept")
    ] = 0.15
    test_share: Annotated[
        Share,
        _help("share of the objects that the training does not use; models calibrate finds them by the seed"),
    ] = 0.15
    memory_gib: Annotated[
        Positive,
        _help(
            "GiB of cutouts that are held in memory; more of them stream from the store, in an order that mixes as many blocks of 256 objects "
            "as take half of this, so that another value gives other weights"
        ),
    ] = 4.0
    patience: Annotated[
        Count | None, _help("stop after this many epochs without a better one; empty: never")
    ] = None
    frozen_norm_share: Annotated[
        Annotated[float, Field(ge=0, le=1)],
        _help(
            "share of the epochs, at the end, in which BatchNorm uses fixed statistics as in inference; with 0.5 the widths of an sfnet with a "
            "gaussian head do not include the noise of single batches"
        ),
    ] = 0.0
    trainable: Annotated[
        Literal["all", "head"],
        _help("which weights are trained: all, or (head) those of the fully connected layers at the end"),
    ] = "all"
    refit_scaling: Annotated[
        bool,
        _help("with --from: standardize parameters again instead of keeping the parent's location and scale"),
    ] = False
    seed: Annotated[
        int,
        Field(ge=0, lt=2**63),
        _help("seed of the weights, the split, the order, the augmentation and the dropout"),
    ] = 1
    psf_fwhm_arcsec: Annotated[
        tuple[Range, ...] | None,
        _help("range per band for the bundle's domain; empty: from the data, if they have it"),
    ] = None
    training_data: Annotated[str, _help("description of the images, for the model card")] = ""
    licence: Annotated[str, _help("licence of the weights")] = ""
    citation: Annotated[str, _help("publication to cite")] = ""

    def __post_init__(self) -> None:
        # Filled in here, so that the metadata and a checkpoint record what was used, not that it was left open.
        is_sfnet = self.architecture == "sfnet"
        defaults: dict[str, Any] = {
            "head": POINT if is_sfnet else GAUSSIAN,
            "dropout_rate": DROPOUT_RATES.get(self.architecture, 0.0),
            "n_top_features": SFNET_TOP_FEATURES if is_sfnet else 0,
        }
        if not self.hidden:
            object.__setattr__(self, "hidden", HIDDEN.get(self.architecture, ()))
        for name, value in defaults.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        if self.loss is None:
            squared = is_sfnet and head_of(self.head_info).is_point
            object.__setattr__(self, "loss", "rmse" if squared else LIKELIHOOD)

    @property
    def head_info(self) -> HeadInfo:
        """The head in the form of the bundle's metadata."""
        return HeadInfo(self.head or GAUSSIAN, **{f.name: getattr(self, f.name) for f in fields(HeadOptions)})

    @property
    def n_outputs(self) -> int:
        """The number of outputs of the network for one object and pass."""
        return head_of(self.head_info).n_outputs(self.head_info, len(self.parameters))


def parse_settings(data: Mapping[str, Any], *, source: str) -> TrainingSettings:
    """Return settings from the content of a TOML file.

    Parameters
    ----------
    data : content of the file, by key
    source : path or name with which messages begin

    Raises
    ------
    ConfigError
        A key is not known, a value is out of range, or values contradict each other.
    """
    settings = parse_strictly(TrainingSettings, dict(data), source=source)
    problems = _contradictions(settings)
    if problems:
        raise ConfigError("\n".join(f"{source}: {problem}" for problem in problems))
    return settings


def _contradictions(settings: TrainingSettings) -> list[str]:
    """Return messages on values that contradict each other; empty if there are none."""
    problems = _wrong_networks(settings)
    if head_of(settings.head_info).is_vector:
        problems.append(
            f"head: {settings.head} is of converted networks and is not trained; make each number a parameter of a {POINT} head"
        )
    if settings.loss not in (known := losses_of(head_of(settings.head_info))):
        problems.append(
            f"loss: {settings.loss} is no loss of head {settings.head}, which has {', '.join(known)}"
        )
    problems += head_problems(settings.head_info, settings.parameters)
    if settings.validation_share == 0 or settings.validation_share + settings.test_share >= 1:
        problems.append(
            f"validation_share {settings.validation_share:g} and test_share {settings.test_share:g}: a validation set is "
            "needed, and something must be left to train on"
        )
    names = [parameter.name for parameter in settings.parameters]
    if len(set(names)) != len(names):
        problems.append(f"parameters: names must differ, found {', '.join(names)}")
    return (
        problems
        + _wrong_widths(settings)
        + [
            f"parameters: {p.name}: logit needs limits, such as [0.02, 0.98]"
            for p in settings.parameters
            if p.transform == "logit" and p.limits is None
        ]
    )


def _wrong_networks(settings: TrainingSettings) -> list[str]:
    """Return messages on values that no network of the architecture can have."""
    is_timm = settings.architecture == "timm"
    problems = ["encoder: of timm only"] if settings.encoder and not is_timm else []
    if settings.architecture == "mlp":
        return problems + _wrong_mlp(settings)
    if not settings.bands:
        problems.append(f"bands: missing; {settings.architecture} takes images")
    if is_timm and not settings.encoder:
        problems.append("encoder: missing; it is the name of a network of timm, such as resnet18")
    if settings.hidden and not is_timm:
        problems.append("hidden: of mlp and timm only")
    if (
        settings.architecture == "gampen"
        and settings.bands
        and len(settings.bands) not in (1, settings.in_channels)
    ):
        problems.append(
            f"in_channels: is {settings.in_channels} for {len(settings.bands)} bands; several bands are as many channels"
        )
    if settings.architecture != "sfnet" and settings.n_top_features:
        problems.append("n_top_features: of sfnet only")
    if settings.architecture == "sfnet" and not settings.n_top_features:
        problems.append("n_top_features: an sfnet keeps 1 or more")
    # 64 channels is the least number in a layer of either architecture.
    if round(64 * settings.width) == 0:
        problems.append(
            f"width: {settings.width:g} of the published 64 channels leaves none; 0.01 leaves one"
        )
    return problems


def _wrong_mlp(settings: TrainingSettings) -> list[str]:
    """Return messages on values that no dense network on columns can have."""
    problems = []
    if settings.bands:
        problems.append("bands: an mlp takes no images; take them out, or train gampen or sfnet")
    if not settings.auxiliary_inputs:
        problems.append("auxiliary_inputs: missing; they are the columns that an mlp takes")
    if settings.n_top_features:
        problems.append("n_top_features: of sfnet only")
    return problems


def _wrong_widths(settings: TrainingSettings) -> list[str]:
    """Return messages on the ranges of the PSF's FWHM; without this check the bundle would be refused after the training."""
    ranges = settings.psf_fwhm_arcsec
    if ranges is None:
        return []
    if len(ranges) != len(settings.bands):
        return [f"psf_fwhm_arcsec: {len(ranges)} ranges for {len(settings.bands)} bands"]
    return [
        f"psf_fwhm_arcsec: a range rises, found [{low:g}, {high:g}]" for low, high in ranges if not low < high
    ]


# Settings that have fields of their own in the metadata, so that each stands in one place of the file.
KEPT_ELSEWHERE = (
    "name",
    "version",
    "architecture",
    "bands",
    "parameters",
    "size_px",
    "pixel_scale_arcsec",
    "zero_point_mag",
    "background",
    "release",
    "dereddened",
    "auxiliary_inputs",
    "head",
    *(option.name for option in fields(HeadOptions)),
    "n_top_features",
    "dropout_rate",
    "psf_fwhm_arcsec",
    "training_data",
    "licence",
    "citation",
)


OF_PIXELS = (
    "bands",
    "size_px",
    "pixel_scale_arcsec",
    "zero_point_mag",
    "background",
    "release",
    "dereddened",
)


def setting_texts(settings: TrainingSettings) -> dict[str, Any]:
    """Return the settings that no other field of the metadata holds, for ``BundleMetadata.training``."""
    values = dataclasses.asdict(settings)
    # Only some architectures have hidden layers of their own, or an encoder.
    return {
        name: value
        for name, value in values.items()
        if name not in KEPT_ELSEWHERE and (name not in ("hidden", "encoder") or value)
    }


def settings_of(metadata: BundleMetadata) -> dict[str, Any]:
    """Return the settings that a bundle was trained with, as far as its metadata hold them, for `parse_settings`."""
    # The record of a training holds results as well, such as losses, which are no settings.
    known = {field.name for field in dataclasses.fields(TrainingSettings)}
    made = {name: value for name, value in metadata.training.items() if name in known}
    head, given = metadata.head, metadata.input
    return {
        **made,
        **{name: getattr(metadata, name) for name in ("name", "version", "architecture", "parameters")},
        **{
            name: getattr(metadata, name) for name in ("training_data", "licence", "citation", "dropout_rate")
        },
        "auxiliary_inputs": given.auxiliary_inputs,
        **({name: getattr(given, name) for name in OF_PIXELS} if given.takes_pixels else {}),
        "head": head.kind,
        **{option.name: getattr(head, option.name) for option in fields(HeadOptions)},
        "n_top_features": metadata.n_top_features,
    }
