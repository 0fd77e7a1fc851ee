"""`galbatch models list` and `show` as a newcomer meets them."""

import json
import subprocess
import sys

from galbatch.cli.bundles import listing as models_cli


def run_cli(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "galbatch", *arguments], capture_output=True, text=True, timeout=600
    )


def test_models_list_shows_the_shipped_bundles():
    done = run_cli("models", "list")
    assert done.returncode == 0, done.stderr
    assert "demo:gampen" in done.stdout
    assert "demo:sfnet" in done.stdout


def test_models_list_tells_what_is_no_bundle(tmp_path):
    (tmp_path / "bad.pt").write_bytes(b"no bundle")
    done = run_cli("models", "list", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "demo:gampen" in done.stdout
    assert "bad.pt: is no TorchScript file" in done.stdout
    empty = run_cli("models", "list", str(tmp_path / "nowhere"))
    assert empty.returncode == 2
    assert "there are no bundles" in empty.stderr


def test_models_list_goes_on_after_files_that_cannot_be_read_and_shows_names_as_they_are(
    tmp_path, monkeypatch, capsys
):
    from galbatch.models.bundle import info as bundle

    def forbidden(path, sha256):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(bundle, "file_on_this_machine", forbidden)
    folder = tmp_path / "[b]wide[" / ("x" * 150)
    folder.mkdir(parents=True)
    (folder / "].pt").write_bytes(b"")
    models_cli.list_bundles(str(tmp_path))
    found = capsys.readouterr().out
    assert f"{folder}/].pt  not usable" in found
    assert "Permission denied" in found


def test_models_show_writes_the_card_as_markdown_and_the_metadata_as_json():
    from galbatch.models import bundle_path, card_text, load_bundle

    bundle = load_bundle(bundle_path("demo:sfnet"))
    assert run_cli("models", "show", "demo:sfnet").stdout == card_text(bundle.metadata, bundle.sha256)
    found = json.loads(run_cli("models", "show", "demo:sfnet", "--json").stdout)
    assert found["sha256"] == bundle.sha256
    assert found["input"]["bands"] == ["g", "r"]
