"""Memory of the GPU while a partition is inferred: within the plan's projection, and within what is free."""

import dataclasses

import pytest

torch = pytest.importorskip("torch")

from galbatch import models  # noqa: E402
from galbatch.config import PosteriorConfig  # noqa: E402
from galbatch.execution import infer_partition, load_network  # noqa: E402
from galbatch.models import DomainInfo, GpuMemory  # noqa: E402
from galbatch.models.heads import outputs_per_pass  # noqa: E402
from galbatch.models.networks import Gampen  # noqa: E402
from galbatch.planning import WEIGHT_COPIES  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]

POSTERIOR = PosteriorConfig(passes=64, batch=512)


@pytest.fixture(scope="module")
def wide_gampen(tmp_path_factory):
    """A GaMPEN of half the paper's channels, untrained: a batch of 512 rows takes more than its weights."""
    path = str(tmp_path_factory.mktemp("bundle") / "wide.pt")
    metadata = models.load_bundle(models.bundle_path("demo:gampen")).metadata
    torch.manual_seed(5)
    network = Gampen(
        metadata.input.size_px, outputs_per_pass(metadata), width=0.5, dropout_rate=metadata.dropout_rate
    )
    metadata = dataclasses.replace(metadata, name="wide", domain=DomainInfo(), calibration=None)
    models.save_bundle(path, models.script_of(network), metadata)
    return path


def measured(task):
    """The network's memory, as the task itself measures it, and its share of the projection: weights and passes."""
    network = task.models[0].network
    execution = models.Execution(models.Engine.named(network.engine), "cuda")
    memory = models.measure_memory(load_network(network), execution, task.posterior)
    copies = WEIGHT_COPIES[execution.engine.kind]
    return memory, memory.working_bytes + round(copies * memory.weights_bytes)


def peak_bytes(task):
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    result = infer_partition(task)
    return torch.cuda.max_memory_allocated(), result


@pytest.mark.parametrize("engine", ["torchscript-float32", "rebuilt-float32", "rebuilt-float16"])
def test_the_peak_is_within_the_projection(engine, wide_gampen, noise_task, tmp_path):
    before = torch.cuda.memory_allocated()
    task = noise_task(
        tmp_path, wide_gampen, n_blocks=1, n_selected=64, posterior=POSTERIOR, engine=engine, device="cuda"
    )
    _, projected = measured(task)
    peak, result = peak_bytes(task)
    assert result.n_passes == 64 * 64
    assert result.notes == ()
    # What other tests left on the GPU is not this network's.
    assert 0.5 * projected < peak - before < projected


def test_a_batch_that_does_not_fit_is_halved_and_stays_within_what_is_free(
    wide_gampen, noise_task, tmp_path, monkeypatch
):
    task = noise_task(tmp_path, wide_gampen, n_blocks=1, n_selected=64, posterior=POSTERIOR, device="cuda")
    memory, _ = measured(task)
    free = dataclasses.replace(memory, n_rows=128).working_bytes + 1
    monkeypatch.setattr(models, "gpu_memory", lambda: GpuMemory(free, free))
    before = torch.cuda.memory_allocated()
    peak, result = peak_bytes(task)
    assert result.batch == 128
    assert [note.rpartition("trying ")[2] for note in result.notes] == ["batch 256", "batch 128"]
    assert peak - before <= free


def test_what_is_free_counts_what_torch_keeps_and_does_not_use():
    taken = torch.empty(2**28, device="cuda")  # 1 GiB
    with_it = models.gpu_memory()
    del taken
    without = models.gpu_memory()
    assert without.total_bytes == with_it.total_bytes
    assert without.free_bytes - with_it.free_bytes >= 2**30
