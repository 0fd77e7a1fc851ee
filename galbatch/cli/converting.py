"""galbatch models convert: bundles of weights that others published."""

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

Weights = Annotated[Path, typer.Option(metavar="FILE", help="published weights")]
BundleOutput = Annotated[Path, typer.Option("-o", "--output", metavar="BUNDLE", help="bundle to write")]


def gampen(
    weights: Weights,
    scaling: Annotated[
        Path, typer.Option(metavar="DIR", help="folder with info.csv and splits/<slug>-train.csv")
    ],
    slug: Annotated[str, typer.Option(help="split the labels' scaler was fitted on, such as balanced-dev2")],
    dropout: Annotated[
        float, typer.Option(help="dropout rate of the network, such as 4e-4", min=0, max=0.99)
    ],
    band: Annotated[str, typer.Option(help="band of the images")],
    output: BundleOutput,
    size_px: Annotated[
        int | None,
        typer.Option(help="side of the cutouts, of networks that are not of the released sizes", min=33),
    ] = None,
    pixel_scale_arcsec: Annotated[
        float, typer.Option(help="pixels of the images, arcsec", min=0.001)
    ] = 0.168,
    zero_point_mag: Annotated[float, typer.Option(help="AB zero point of the images and fluxes")] = 27.0,
    release: Annotated[str, typer.Option(help="data release of the training images")] = "pdr2",
    background: Annotated[str, typer.Option(help="what was done to their sky")] = "global sky",
    name: Annotated[str | None, typer.Option(help="of the bundle; gampen-<band> otherwise")] = None,
) -> None:
    """GaMPEN's released weights.

    A state dict, and the folder of tables that the labels' scaler follows from.
    """
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
    mean: Annotated[str, typer.Option(metavar="R,G,B", help="mean of each channel that was subtracted")],
    std: Annotated[str, typer.Option(metavar="R,G,B", help="standard deviation of each channel")],
    output: BundleOutput,
    mean_from: Annotated[
        str, typer.Option(metavar="TEXT", help="where mean and std come from, for the bundle's record")
    ] = "not stated",
    k: Annotated[
        int | None, typer.Option(help="features kept, where the file's name does not say", min=1)
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="bpt_lines or oh_p50 (metallicity), where the file's name does not say")
    ] = None,
    layer: Annotated[
        str,
        typer.Option(
            help="viewer's colors it was trained on: sdss (as released), legacy; none: pixels as they are"
        ),
    ] = "sdss",
    bands: Annotated[
        str | None,
        typer.Option(metavar="R,G,B", help="bands that become the channels; the layer's otherwise"),
    ] = None,
    size_px: Annotated[int, typer.Option(help="side of the cutouts", min=32)] = 144,
    pixel_scale_arcsec: Annotated[float, typer.Option(help="their pixels, arcsec", min=0.001)] = 0.262,
    zero_point_mag: Annotated[
        float | None, typer.Option(help="AB zero point of the pixels' unit, with --layer none")
    ] = None,
    name: Annotated[str | None, typer.Option(help="of the bundle; sfnet-<target> otherwise")] = None,
) -> None:
    """SFNet's released weights.

    A state dict, or the whole pickled module: it is read by an allow-list, and nothing in it is run. The mean and standard
    deviation that the network was trained with are in neither and must be given.
    """
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
    weights: Annotated[Path, typer.Option(metavar="FILE", help="TorchScript file with forward(images)")],
    description: Annotated[
        Path, typer.Option(metavar="TOML", help="its input, head, parameters, dropout rate and stretch")
    ],
    output: BundleOutput,
) -> None:
    """A foreign TorchScript network.

    Its forward(images) is wrapped as the description says. TorchScript is a program: convert only files you trust.
    """
    from galbatch import models

    _print_converted(output, *models.convert_script(str(weights), str(description), str(output)))


def _three_numbers(option: str, text: str) -> tuple[float, ...]:
    numbers = parse_numbers(option, text, "three numbers with commas between, red, green, blue")
    if len(numbers) != 3:
        raise UsageError(f"{option} {text}: expected three numbers, red, green, blue; found {len(numbers)}")
    return numbers


def _print_converted(output: Path, sha256: str, metadata: BundleMetadata) -> None:
    from galbatch import models

    grid = f"{metadata.input.size_px} px at {metadata.input.pixel_scale_arcsec:g} arcsec"
    print_line(
        f"{output}: {metadata.name}, {', '.join(metadata.input.bands)}, {grid}; "
        f"{', '.join(parameter.name for parameter in metadata.parameters)}; sha256 {sha256[:12]}.."
    )
    if models.head_of(metadata.head).is_point and metadata.dropout_rate == 0:
        print_line(
            "it has no dropout and no widths: the catalog gives values alone and flags them NO_POSTERIOR"
        )
