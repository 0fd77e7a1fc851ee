"""Bundles: a TorchScript file with its metadata inside. The sha256 of the file is the model's identity.

Loading checks behavior, not names. A bundle is loaded once per process; it never travels through Dask.
"""

from __future__ import annotations

import hashlib
import io
import threading
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from galbatch import storage
from galbatch.core.types import Grid
from galbatch.errors import BundleError
from galbatch.models.heads import outputs_per_pass, read_metadata
from galbatch.models.metadata import BundleMetadata, write_metadata

__all__ = ["Bundle", "bundle_path", "demo_bundles", "load_bundle", "rewrite_bundle", "save_bundle"]

METADATA_FILE = "galbatch.json"
DEMO_FOLDER = Path(__file__).parents[1] / "demo"
MOST_CHECK_ROWS = 1024  # tried where the first give no difference
CHECK_ROWS = 16  # keys tried by the check of dropout: at the lowest rates one pass alone may zero nothing

_loaded: dict[str, Bundle] = {}
_loading = threading.Lock()
_drawing = threading.Lock()


@dataclass(frozen=True, eq=False)
class Bundle:
    """A loaded network.

    Attributes
    ----------
    metadata : what it says of itself
    sha256 : of its file
    script : the TorchScript module, in eval mode, on the CPU
    """

    metadata: BundleMetadata
    sha256: str
    script: Any

    @property
    def grid(self) -> Grid:
        """The cutouts it takes."""
        return Grid(self.metadata.input.size_px, self.metadata.input.pixel_scale_arcsec)

    @property
    def bands(self) -> tuple[str, ...]:
        """Its bands, in the order of the image axis."""
        return self.metadata.input.bands

    def prefix(self, images: Tensor, auxiliary: Tensor | None = None) -> Tensor:
        """Everything before the first dropout; images (object, band, y, x) float32 in the bundle's unit.

        Bundles that take auxiliary inputs are given them, (object, auxiliary input) float32.
        """
        takes_auxiliary = bool(self.metadata.input.auxiliary_inputs)
        result: Tensor = (
            self.script.prefix(images, auxiliary) if takes_auxiliary else self.script.prefix(images)
        )
        return result

    def sample(self, features: Tensor, keys: Tensor) -> Tensor:
        """One pass for each row: (row, output) float32, of features of `prefix` and keys (row,) int64."""
        if not getattr(self.script, "draws_from_global_generator", False):
            result: Tensor = self.script.sample(features, keys)
            return result
        # Foreign networks seed torch's global generator: one at a time, and it is given back as it was.
        devices = [features.device] if features.is_cuda else []
        with _drawing, torch.random.fork_rng(devices=devices):
            foreign: Tensor = self.script.sample(features, keys)
        return foreign

    def has(self, method: str) -> bool:
        """Whether the script has an optional method: crop, last_features, top_features, sample_with_top, feature_maps."""
        return hasattr(self.script, method)


def bundle_path(spec: str) -> str:
    """Path of a bundle: ``demo:gampen`` and others of `demo_bundles` are shipped with galbatch, the rest are paths.

    Raises
    ------
    BundleError
        No demo bundle has that name.
    """
    if not spec.startswith("demo:"):
        return spec
    if spec not in demo_bundles():
        raise BundleError(f"{spec}: there is no such demo bundle; there are {', '.join(demo_bundles())}")
    return str(DEMO_FOLDER / f"{spec.removeprefix('demo:')}.pt")


def demo_bundles() -> list[str]:
    """The bundles shipped with galbatch, as ``demo:name``."""
    return sorted(f"demo:{path.stem}" for path in DEMO_FOLDER.glob("*.pt"))


def save_bundle(path: str, script: Any, metadata: BundleMetadata) -> str:
    """Write a bundle, after the checks that loading makes; returns its sha256.

    Parameters
    ----------
    path : local or ``s3://``
    script : scripted module in eval mode
    metadata : goes into the file

    Raises
    ------
    BundleError
        The metadata contradict themselves, or the script does not behave as they say.
    """
    text = write_metadata(metadata)
    read_metadata(text, str(path))
    check_behavior(script, metadata, source=str(path))
    buffer = io.BytesIO()
    torch.jit.save(script, buffer, _extra_files={METADATA_FILE: text})
    data = _without_debug_info(buffer.getvalue())
    storage.publish(str(path), data)
    return hashlib.sha256(data).hexdigest()


def _without_debug_info(archive: bytes) -> bytes:
    """The archive without what tells where and when it was written.

    TorchScript keeps the paths of all sources, and an id that follows from them: the identity of a bundle must
    not depend on the folder that galbatch is installed in.
    """
    slim = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(slim, "w") as new:
        for name in old.namelist():
            if not name.endswith((".debug_pkl", "/.data/serialization_id")):
                new.writestr(zipfile.ZipInfo(name), old.read(name))
    return slim.getvalue()


def rewrite_bundle(source: str, output: str, metadata: BundleMetadata) -> str:
    """Write the script of one bundle with other metadata; returns the new file's sha256.

    The same script and metadata give the same bytes. A run that was made with `source` is not resumed with `output`:
    the sha256 is the model's identity, and the passes' draws follow from it.

    Parameters
    ----------
    source, output : local or ``s3://``; they may be the same
    metadata : goes into the file instead of what the source has

    Raises
    ------
    BundleError
        The source is no bundle, or its script does not behave as the metadata says.
    """
    return save_bundle(output, load_bundle(source).script, metadata)


def load_bundle(path: str, *, sha256: str | None = None, keep: bool = True) -> Bundle:
    """Load a bundle, once per process and sha256.

    Parameters
    ----------
    path : local or ``s3://``
    sha256 : the identity it must have; None: any
    keep : whether it stays in memory for the next call; a full GaMPEN is 570 MB

    Raises
    ------
    BundleError
        There is no such file, it is no bundle, it is damaged, it is another than `sha256` says, or it does
        not behave as its metadata says.
    """
    with _loading:
        if sha256 is not None and sha256 in _loaded:
            return _loaded[sha256]
        file = _on_this_machine(str(path), sha256)
        before = storage.identity(file)
        found = storage.sha256_of(file)
        if sha256 is not None and found != sha256:
            raise BundleError(
                f"{path}: sha256 is {found[:12]}.., expected {sha256[:12]}..: the file has changed"
            )
        # From the file: out of memory, torch takes two more copies of all weights.
        bundle = _loaded.get(found) or _load(file, str(path), found)
        if storage.identity(file) != before:
            raise BundleError(f"{path}: the file was written while it was read; try again")
        if keep:
            _loaded[found] = bundle
        return bundle


def _on_this_machine(path: str, sha256: str | None) -> str:
    """Path of the bundle's file, or of its copy."""
    try:
        # Local files are hashed once, by the caller.
        file = str(storage.local_copy(path, sha256=None if storage.has_local_path(path) else sha256))
        storage.open_file(file).close()
    except (FileNotFoundError, IsADirectoryError):
        raise BundleError(
            f"{path}: there is no such bundle; those shipped are {', '.join(demo_bundles())}"
        ) from None
    return file


def _load(file: str, path: str, sha256: str) -> Bundle:
    extra = {METADATA_FILE: ""}
    try:
        load: Any = torch.jit.load
        script = load(file, map_location="cpu", _extra_files=extra)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "empty file"
        raise BundleError(
            f"{path}: is no TorchScript file, or is damaged: {reason}; fetch it again"
        ) from None
    text = extra[METADATA_FILE]
    if not text:
        raise BundleError(
            f"{path}: holds no {METADATA_FILE}, so it is TorchScript but no galbatch bundle; "
            "save it with galbatch.models.save_bundle and its metadata"
        )
    metadata = read_metadata(text, path)
    set_modes(script)
    check_behavior(script, metadata, source=path)
    return Bundle(metadata, sha256, script)


def set_modes(script: Any) -> None:
    """Eval mode, but for the dropout modules of a foreign network that draws: these draw in training mode only."""
    script.eval()
    if getattr(script, "draws_from_global_generator", False):
        for module in script.modules():
            # The Python class of all scripted modules is the same.
            if "Dropout" in module.original_name:
                module.train()


def check_behavior(script: Any, metadata: BundleMetadata, *, source: str) -> None:
    """Run the script on two made-up images and hold it to its metadata.

    Raises
    ------
    BundleError
        A method is missing or fails, shapes or values are wrong, the passes differ though the dropout rate
        is 0 or are equal though it is above, the same key gives different outputs, a pass changes the network, or its
        features are not those of the metadata.
    """
    # Foreign networks seed the global generator: nothing else may draw from it meanwhile.
    with _drawing, torch.random.fork_rng(devices=()), torch.inference_mode():
        _check(script, metadata, source)


def _check(script: Any, metadata: BundleMetadata, source: str) -> None:
    for method in ("prefix", "sample"):
        if not hasattr(script, method):
            raise BundleError(f"{source}: the script has no method {method}")
    before = _checksums(script)
    inputs = made_up_inputs(metadata)
    keys = torch.arange(CHECK_ROWS, dtype=torch.int64) * 0x5851F42D4C957F2D
    try:
        features = _tensor(script.prefix(*inputs), "prefix")
        rows = features[torch.arange(CHECK_ROWS) % len(features)]
        first, again = _tensor(script.sample(rows, keys), "sample"), script.sample(rows, keys)
        fixed = script.sample(rows, torch.full_like(keys, 7))
    except (RuntimeError, TypeError) as error:
        reason = str(error).strip().splitlines()[-1]
        shapes = " and auxiliary inputs ".join(str(tuple(part.shape)) for part in inputs)
        raise BundleError(f"{source}: fails on images {shapes}: {reason}") from None
    problem = (
        _shape_problem(first, metadata)
        or _draw_problem(
            first, again, metadata, differ=_differ(first, fixed) or _differ_later(script, rows, metadata)
        )
        or _state_problem(before, _checksums(script))
        or _feature_problem(script, features, metadata)
    )
    if problem:
        raise BundleError(f"{source}: {problem}")


def _tensor(value: Any, method: str) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(f"{method} gives {type(value).__name__}, expected a tensor")
    return value


def made_up_inputs(metadata: BundleMetadata) -> tuple[Tensor, ...]:
    """What `prefix` takes: made-up images, and for networks with auxiliary inputs two rows of 0 and 1."""
    n_auxiliary = len(metadata.input.auxiliary_inputs)
    auxiliary = torch.arange(2, dtype=torch.float32)[:, None].repeat(1, n_auxiliary)
    return (made_up_images(metadata), auxiliary) if n_auxiliary else (made_up_images(metadata),)


def made_up_images(metadata: BundleMetadata) -> Tensor:
    """Two images (2, band, y, x) float32: blobs on noise."""
    size = metadata.input.size_px
    offset = torch.arange(size, dtype=torch.float32) - size // 2
    radius2 = offset[:, None] ** 2 + offset[None, :] ** 2
    blobs = torch.stack([200.0 * torch.exp(-radius2 / 20.0), 20.0 * torch.exp(-radius2 / 100.0)])
    noise = torch.randn((2, 1, size, size), generator=torch.Generator().manual_seed(1)) * 0.05
    return (blobs[:, None] + noise).repeat(1, len(metadata.input.bands), 1, 1)


def _shape_problem(outputs: Tensor, metadata: BundleMetadata) -> str | None:
    expected = (CHECK_ROWS, outputs_per_pass(metadata))
    if tuple(outputs.shape) != expected:
        return f"sample gives {tuple(outputs.shape)}, expected (row, output) = {expected}"
    if not bool(torch.isfinite(outputs).all()):
        return "sample gives non-finite numbers on a made-up galaxy"
    return None


def _differ(passes: Tensor, fixed: Tensor) -> bool:
    return not torch.allclose(passes, fixed, rtol=1e-6, atol=1e-7)


def _differ_later(script: Any, rows: Tensor, metadata: BundleMetadata) -> bool:
    """Whether any of many more passes differ: at rates of 1e-5 a small network zeroes nothing in most."""
    if metadata.dropout_rate == 0:
        return False
    fixed = script.sample(rows[:2], torch.full((2,), 7, dtype=torch.int64))[torch.arange(CHECK_ROWS) % 2]
    starts = range(CHECK_ROWS, MOST_CHECK_ROWS, CHECK_ROWS)
    keys = (torch.arange(start, start + CHECK_ROWS) * 0x5851F42D4C957F2D for start in starts)
    return any(_differ(script.sample(rows, some), fixed) for some in keys)


def _draw_problem(first: Tensor, again: Tensor, metadata: BundleMetadata, *, differ: bool) -> str | None:
    if not torch.equal(first, again):
        return "the same keys give different outputs: its dropout does not draw from the keys"
    if differ and metadata.dropout_rate == 0:
        return "different keys give different outputs, but its metadata says dropout_rate 0"
    if not differ and metadata.dropout_rate > 0:
        return f"different keys give the same outputs, but its metadata says dropout_rate {metadata.dropout_rate:g}"
    return None


def _checksums(script: Any) -> dict[str, int]:
    """Of all parameters and buffers: a copy of a full GaMPEN's would be 540 MB."""
    state: dict[str, Tensor] = script.state_dict()
    return {
        name: zlib.crc32(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        for name, value in state.items()
    }


def _state_problem(before: dict[str, int], after: dict[str, int]) -> str | None:
    changed = [name for name, checksum in before.items() if checksum != after[name]]
    if changed:
        return f"a pass changes {changed[0]}: its BatchNorm is in training mode; call eval() before scripting"
    return None


def _feature_problem(script: Any, features: Tensor, metadata: BundleMetadata) -> str | None:
    n_top, mean = metadata.n_top_features, metadata.domain.features_mean
    if not n_top and mean is None:
        return None
    for method in ("last_features", "top_features") if n_top else ("last_features",):
        if not hasattr(script, method):
            return f"its metadata speak of features, but the script has no method {method}"
    last = script.last_features(features)
    if mean is not None and last.shape[1] != len(mean):
        return f"last_features gives {last.shape[1]} numbers, but its domain is of {len(mean)}"
    ranks = script.top_features(last)[0].shape[1] if n_top else 0
    return f"top_features gives {ranks}, but n_top_features is {n_top}" if ranks != n_top else None
