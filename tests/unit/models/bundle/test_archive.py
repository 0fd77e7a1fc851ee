"""Metadata are read without running a bundle: one is tried that writes a file as soon as torch loads it."""

import io
import json
import zipfile

import pytest
import torch
from torch import Tensor, nn

from galbatch.cli.bundles import listing as models_cli
from galbatch.errors import BundleError
from galbatch.models import load_bundle, read_bundle_metadata, save_bundle, script_of
from galbatch.models.bundle.archive import MOST_METADATA_BYTES, read_metadata_text
from galbatch.models.metadata import write_metadata


class Writes(nn.Module):
    """Makes a file of 16 bytes while its attributes are made: torch.from_file with shared memory creates it."""

    def __init__(self, path: str):
        super().__init__()
        self.path = path
        self.weight = torch.zeros(1)

    @torch.jit.export
    def __getstate__(self) -> tuple[str, Tensor, bool]:
        return self.path, self.weight, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, Tensor, bool]) -> None:
        self.path = state[0]
        self.weight = torch.from_file(state[0], shared=True, size=4)
        self.training = state[2]

    def forward(self, images: Tensor) -> Tensor:
        return images


@pytest.fixture
def hostile(tmp_path, make):
    """A bundle whose script writes a file where it is loaded, and the path of that file."""
    target, path = tmp_path / "written", tmp_path / "hostile.pt"
    text = write_metadata(make.gampen_metadata(name="hostile"))
    torch.jit.save(torch.jit.script(Writes(str(target))), str(path), _extra_files={"galbatch.json": text})
    return path, target


def test_the_bundle_of_this_test_does_write_a_file_when_torch_loads_it(hostile):
    path, target = hostile
    torch.jit.load(str(path))
    assert target.stat().st_size == 16


def test_metadata_are_read_without_running_the_script(hostile, make):
    path, target = hostile
    metadata, sha256 = read_bundle_metadata(str(path))
    assert metadata == make.gampen_metadata(name="hostile")
    assert len(sha256) == 64
    assert not target.exists()


def test_models_list_and_show_run_nothing(hostile, capsys):
    path, target = hostile
    models_cli.list_bundles(str(path.parent))
    assert "hostile 0" in capsys.readouterr().out
    models_cli.show(str(path))
    models_cli.show(str(path), as_json=True)
    assert '"name": "hostile"' in capsys.readouterr().out
    assert not target.exists()


def test_a_file_without_metadata_is_refused_before_it_runs(tmp_path):
    target, path = tmp_path / "written", tmp_path / "plain.pt"
    torch.jit.save(torch.jit.script(Writes(str(target))), str(path))
    with pytest.raises(BundleError, match=r"plain\.pt: holds no galbatch\.json"):
        load_bundle(str(path))
    assert not target.exists()


def test_metadata_and_sha256_are_those_of_the_loaded_bundle(tmp_path, make):
    path = str(tmp_path / "a.pt")
    save_bundle(path, script_of(make.sfnet()), make.sfnet_metadata())
    bundle = load_bundle(path)
    assert read_bundle_metadata(path) == (bundle.metadata, bundle.sha256)
    with pytest.raises(BundleError, match="there is no such bundle"):
        read_bundle_metadata(str(tmp_path / "none.pt"))


def archive(entries, *, compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as made:
        for name, content in entries:
            made.writestr(name, content)
    return buffer.getvalue()


NETWORK = [("a/data.pkl", b"x"), ("a/constants.pkl", b"x")]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is no TorchScript file, or is damaged"),
        (archive([]), "holds no network"),
        (archive([("a/data.pkl", b""), ("a/extra/galbatch.json", b"{}")]), "holds no network"),
        (archive([*NETWORK, ("b/extra/galbatch.json", b"{}")]), "holds no galbatch.json"),
        (archive([*NETWORK, ("a/extra/more/galbatch.json", b"{}")]), "holds no galbatch.json"),
        (
            archive([*NETWORK, ("a/extra/galbatch.json", b"{}")], compression=zipfile.ZIP_LZMA),
            "packed in a way",
        ),
        (
            archive([*NETWORK, ("a/extra/galbatch.json", b"{}")])[:-30],
            "is no TorchScript file, or is damaged",
        ),
    ],
)
def test_archives_that_are_no_bundles_are_refused(data, message):
    with pytest.raises(BundleError, match=f"x.pt: .*{message}"):
        read_metadata_text(io.BytesIO(data), "x.pt")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_metadata_that_are_there_twice_are_refused():
    twice = [("a/extra/galbatch.json", b'{"name": "a"}'), ("a/extra/galbatch.json", b'{"name": "b"}')]
    with pytest.raises(BundleError, match=r"holds galbatch\.json 2 times"):
        read_metadata_text(io.BytesIO(archive([*NETWORK, *twice])), "x.pt")


@pytest.mark.parametrize("honest", [True, False], ids=["size stated", "size understated"])
def test_metadata_that_unpack_to_gigabytes_are_refused(honest):
    """Zeros of 17 MiB are 17 kB in the file."""
    n_bytes = MOST_METADATA_BYTES + 2**20
    entries = [*NETWORK, ("a/extra/galbatch.json", bytes(n_bytes))]
    data = archive(entries, compression=zipfile.ZIP_DEFLATED)
    assert len(data) < 20_000
    if not honest:
        data = data.replace(n_bytes.to_bytes(4, "little"), (1000).to_bytes(4, "little"))
    with pytest.raises(
        BundleError, match=r"x\.pt: (galbatch\.json has more than 16 MiB|is no TorchScript file)"
    ):
        read_metadata_text(io.BytesIO(data), "x.pt")


def test_metadata_nested_without_end_are_refused(tmp_path):
    entries = [*NETWORK, ("a/extra/galbatch.json", b"[" * 100_000)]
    (tmp_path / "deep.pt").write_bytes(archive(entries))
    with pytest.raises(BundleError, match=r"deep\.pt: galbatch\.json is nested too deeply"):
        read_bundle_metadata(str(tmp_path / "deep.pt"))


@pytest.mark.parametrize("where", ["name", "training", "origin"])
def test_metadata_with_control_characters_are_refused(tmp_path, make, where):
    """They are printed, and a terminal would obey them; line breaks and tabs are text."""
    path = tmp_path / "a.pt"

    def written(text):
        changes = {"name": f"a{text}"} if where == "name" else {where: {"notes": [{f"k{text}": 1}]}}
        content = write_metadata(make.gampen_metadata(**changes)).encode()
        path.write_bytes(archive([*NETWORK, ("a/extra/galbatch.json", content)]))
        return read_bundle_metadata(str(path))

    assert written("b\n\tc")
    with pytest.raises(BundleError, match=r"a\.pt: galbatch\.json holds control characters"):
        written("\x1b[2J")


def test_an_archive_in_which_torch_finds_other_metadata_is_refused(tmp_path, make, monkeypatch):
    path = str(tmp_path / "a.pt")
    save_bundle(path, script_of(make.gampen()), make.gampen_metadata(version="two readers"))
    read = torch.jit.load

    def other(file, *, map_location, _extra_files):
        script = read(file, map_location=map_location)
        _extra_files["galbatch.json"] = json.dumps({"name": "another"})
        return script

    monkeypatch.setattr(torch.jit, "load", other)
    with pytest.raises(BundleError, match=r"torch finds another galbatch\.json in it"):
        load_bundle(path, keep=False)
