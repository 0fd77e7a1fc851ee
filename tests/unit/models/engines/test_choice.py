"""How an engine is chosen, and what a process that cannot provide one says."""

import dataclasses
import gc
import weakref

import pytest
import torch

from galbatch.errors import BundleError
from galbatch.models import Bundle, Engine, Ensemble, choose_engine, executor, script_of
from galbatch.models.engines import NativeExecutor, ScriptExecutor
from galbatch.models.engines import choice as engines


def choose(bundle, *, kind="auto", precision="auto", device="cpu"):
    return choose_engine(Ensemble((bundle,)), kind=kind, precision=precision, device=device).name


def unknown(bundle):
    """A network of somebody else."""
    metadata = dataclasses.replace(bundle.metadata, architecture="theirs")
    return dataclasses.replace(bundle, metadata=metadata)


def test_auto_rebuilds_what_it_knows(gampen_bundle, sfnet_bundle):
    for bundle in (gampen_bundle, sfnet_bundle):
        for device in ("cpu", "cuda"):
            assert choose(bundle, device=device) == "rebuilt-float32"
            assert choose(unknown(bundle), device=device) == "torchscript-float32"
    assert choose(gampen_bundle, kind="torchscript") == "torchscript-float32"


def test_an_ensemble_is_rebuilt_if_all_its_bundles_are(gampen_bundle):
    others = [dataclasses.replace(gampen_bundle, sha256=digit * 64) for digit in "12"]
    known = Ensemble((gampen_bundle, others[0]))
    mixed = Ensemble((gampen_bundle, unknown(others[1])))
    for ensemble, expected in ((known, "rebuilt"), (mixed, "torchscript")):
        assert choose_engine(ensemble, kind="auto", precision="auto", device="cpu").kind == expected


@pytest.mark.parametrize(("native", "on_cpu"), [(True, "bfloat16"), (False, "float32")])
def test_wide_gampens_are_rounded_where_that_is_faster(
    native, on_cpu, monkeypatch, gampen_bundle, sfnet_bundle
):
    monkeypatch.setattr(engines, "WIDE_CHANNELS", 4)
    monkeypatch.setattr(engines, "_multiplies_bfloat16", lambda: native)
    assert choose(gampen_bundle) == f"rebuilt-{on_cpu}"
    assert choose(gampen_bundle, device="cuda") == "rebuilt-float16"
    assert choose(gampen_bundle, device="cuda", precision="bfloat16") == "rebuilt-bfloat16"
    assert choose(gampen_bundle, precision="float32") == "rebuilt-float32"
    assert choose(gampen_bundle, kind="compiled") == f"compiled-{on_cpu}"
    assert choose(gampen_bundle, kind="torchscript") == "torchscript-float32"
    # Rounding would decide which of the features fire.
    assert choose(sfnet_bundle, device="cuda") == "rebuilt-float32"


@pytest.mark.parametrize("kind", ["rebuilt", "compiled"])
def test_rebuilding_what_is_not_known_is_refused(kind, gampen_bundle):
    with pytest.raises(BundleError, match=r'cannot rebuild this network .architecture theirs.*"torchscript"'):
        choose(unknown(gampen_bundle), kind=kind)


@pytest.mark.parametrize(
    ("kind", "precision", "said"),
    [
        ("torchscript", "bfloat16", "needs a network that galbatch can rebuild"),
        ("torchscript", "float16", "needs a network that galbatch can rebuild"),
        ("auto", "float16", 'on a CPU take "bfloat16"'),
    ],
)
def test_precisions_that_an_engine_has_not_are_refused(kind, precision, said, gampen_bundle):
    with pytest.raises(BundleError, match=said):
        choose(gampen_bundle, kind=kind, precision=precision)
    with pytest.raises(BundleError, match='precision = "auto"'):
        choose(unknown(gampen_bundle), precision="bfloat16")


def test_names_are_read_back():
    for name in ("torchscript-float32", "rebuilt-bfloat16", "compiled-float16"):
        assert Engine.named(name).name == name
    for name in ("rebuilt", "rebuilt-int8", "quick-float32"):
        with pytest.raises(BundleError, match=f"{name}: there is no such engine"):
            Engine.named(name)


def test_executors_are_made_once_a_process(gampen_bundle):
    rebuilt = executor(gampen_bundle, Engine("rebuilt"), "cpu")
    assert isinstance(rebuilt, NativeExecutor)
    assert executor(gampen_bundle, Engine("rebuilt"), "cpu") is rebuilt
    assert executor(gampen_bundle, Engine("rebuilt", "bfloat16"), "cpu") is not rebuilt
    assert isinstance(executor(gampen_bundle, Engine(), "cpu"), ScriptExecutor)


def test_executors_do_not_keep_a_bundle(make):
    """A full GaMPEN is 570 MB: a bundle that nobody holds goes, with its executors."""
    bundle = Bundle(make.sfnet_metadata(), "3" * 64, script_of(make.sfnet()))
    made = weakref.ref(executor(bundle, Engine("rebuilt"), "cpu"))
    executor(bundle, Engine(), "cpu")
    assert made() is not None
    del bundle
    gc.collect()
    assert made() is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("kind", ["torchscript", "rebuilt"])
def test_a_process_without_gpu_says_so(kind, gampen_bundle):
    with pytest.raises(BundleError, match="tiny-gampen: is to run on cuda, but torch finds no CUDA GPU"):
        executor(gampen_bundle, Engine(kind), "cuda")
