"""The commands galbatch models convert .., which make bundles from weights that others published."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from galbatch.cli.options import parse_numbers
from galbatch.cli.printing import print_line
from galbatch.errors import UsageError

if TYPE_CHECKING:
    from galbatch.models import BundleMetadata

__all__ = ["gampen", "script", "sfnet"]

Weights = Annotated[Path, typer.Option(metavar="FILE", help="file with the published weights")]
BundleOutput = Annotated[Path, typer.Option("-o", "--output", metavar="BUNDLE", help="bundle to write")]


def gampen(
    weights: Weights,
    scaling: Annotated[
        Path, typer.Option(metavar="DIR", help="folder with info.csv and splits/<slug>-train.csv")
    ],
    slug: Annotated[
        str, typer.Option(help="name of the split that the labels were scaled by, such as balanced-dev2")
    ],
    dropout: Annotated[
        float,
        typer.Option(help="dropout rate of the training, such as 4e-4; not in the weights", min=0, max=0.99),
    ],
    band: Annotated[str, typer.Option(help="band of the images")],
    output: BundleOutput,
    size_px: Annotated[
        int | None,
        typer.Option(
            help="side of the cutouts in pixels; needed only if it is none of the released sizes", min=33
        ),
    ] = None,
    pixel_scale_arcsec: Annotated[
        float, typer.Option(help="pixel scale of the images, arcsec", min=0.001)
    ] = 0.168,
    zero_point_mag: Annotated[float, typer.Option(help="AB zero point of the images and fluxes")] = 27.0,
    release: Annotated[str, typer.Option(help="data release of the training images")] = "pdr2",
    background: Annotated[
        str, typer.Option(help="how the sky background of the training images was subtracted")
    ] = "global sky",
    name: Annotated[str | None, typer.Option(help="name of the bundle; default: gampen-<band>")] = None,
) -> None:
    """Convert GaMPEN's released weights.

    Takes a state dict, and the folder of tables from which mean and standard deviation of the labels are computed.
    """
    # The defaults are those of the release: HSC PDR2 coadds with global sky subtraction, 0.168 arcsec pixels, and counts
    # at zero point 27.0.
    from galbatch import models

    conversion = models.GampenConversion(
        str(scaling),
        slug,
        dropout,
        band,
        size_px=size_px,
        pixel_scale_arcsec=pixel_scale_arcsec,
        zero_point_mag=zero_point_mag,
        release=release,
        background=background,
        name=name,
    )
    _print_converted(output, *models.convert_gampen(str(weights), str(output), conversion))


def sfnet(
    weights: Weights,
    mean: Annotated[str, typer.Option(metavar="R,G,B", help="mean that was subtracted from each channel")],
    std: Annotated[
        str, typer.Option(metavar="R,G,B", help="standard deviation that each channel was divided by")
    ],
    output: BundleOutput,
    mean_from: Annotated[
        str, typer.Option(metavar="TEXT", help="source of mean and std, to be recorded in the bundle")
    ] = "not stated",
    k: Annotated[
        int | None,
        typer.Option(help="number of features (top-k), if the file's name does not give it", min=1),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(help="bpt_lines or oh_p50 (metallicity), if the file's name does not give it"),
    ] = None,
    layer: Annotated[
        str,
        typer.Option(
            help="layer of the Legacy Surveys viewer whose colors it was trained on: sdss (as released) or legacy; none: pixels are not changed"
        ),
    ] = "sdss",
    bands: Annotated[
        str | None,
        typer.Option(metavar="R,G,B", help="bands of the three channels; default: the layer's"),
    ] = None,
    size_px: Annotated[int, typer.Option(help="side of the cutouts in pixels", min=32)] = 144,
    pixel_scale_arcsec: Annotated[
        float, typer.Option(help="pixel scale of the cutouts, arcsec", min=0.001)
    ] = 0.262,
    zero_point_mag: Annotated[
        float | None, typer.Option(help="AB zero point of the pixels; only with --layer none")
    ] = None,
    name: Annotated[str | None, typer.Option(help="name of the bundle; default: sfnet-<target>")] = None,
) -> None:
    """Convert SFNet's released weights.

    Takes a state dict or a whole pickled module. Only classes on an allow-list are read from a pickle, and no code in it is run.
    The mean and standard deviation of the training images are in neither file and must be given.
    """
    # There is no default mean: fastai took it from one training batch, and ImageNet's would change every output.
    from galbatch import models

    conversion = models.SfnetConversion(
        _three_numbers("--mean", mean),
        _three_numbers("--std", std),
        normalization_from=mean_from,
        layer=layer,
        bands=tuple(bands.split(",")) if bands else None,
        k=k,
        target=target,
        size_px=size_px,
        pixel_scale_arcsec=pixel_scale_arcsec,
        zero_point_mag=zero_point_mag,
        name=name,
    )
    _print_converted(output, *models.convert_sfnet(str(weights), str(output), conversion))


def script(
    weights: Annotated[Path, typer.Option(metavar="FILE", help="TorchScript file with a method forward")],
    description: Annotated[
        Path,
        typer.Option(metavar="TOML", help="its input, head, parameters, dropout rate and intensity stretch"),
    ],
    output: BundleOutput,
) -> None:
    """Convert a TorchScript network made by other software.

    Its forward, of images, of numbers, or of both, is wrapped as the description says. A TorchScript file is a program: convert only files you trust.
    """
    from galbatch import models

    _print_converted(output, *models.convert_script(str(weights), str(description), str(output)))


def _three_numbers(option: str, text: str) -> tuple[float, ...]:
    """Return the numbers for red, green and blue in an option's text, or raise UsageError."""
    numbers = parse_numbers(option, text, "three numbers with commas between, red, green, blue")
    if len(numbers) != 3:
        raise UsageError(f"{option} {text}: expected three numbers, red, green, blue; found {len(numbers)}")
    return numbers


def _print_converted(output: Path, sha256: str, metadata: BundleMetadata) -> None:
    """Print what was converted: name, input, parameters and the first 12 digits of the sha256."""
    from galbatch import models

    taken = [
        f"{', '.join(one.bands)}, {one.size_px} px at {one.pixel_scale_arcsec:g} arcsec"
        for one in metadata.input.images
    ]
    taken += [one.label for one in metadata.input.auxiliary_inputs]
    print_line(
        f"{output}: {metadata.name}, {', '.join(taken)}; "
        f"{', '.join(parameter.name for parameter in metadata.parameters)}; sha256 {sha256[:12]}.."
    )
    # Without dropout all passes are equal, and a point head predicts no width: there is nothing to make a posterior of.
    if models.head_of(metadata.head).is_point and not metadata.passes_differ:
        print_line(
            "it has no dropout and predicts no widths: its catalog has values only, with the flag NO_POSTERIOR"
        )
