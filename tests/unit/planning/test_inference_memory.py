"""The projected memory of a worker that infers, from a plan and the measured memory of its networks."""

from dataclasses import replace
from types import SimpleNamespace

from galbatch.config import PosteriorConfig
from galbatch.core.types import Grid
from galbatch.models import NetworkMemory
from galbatch.planning import GridPlan, project_inference

MIB = 2**20
MEMORY = NetworkMemory(
    weights_bytes=540 * MIB,
    filters_bytes=100 * MIB,
    prepare_bytes=30 * MIB,
    features_bytes=15 * MIB,
    batch_bytes=0,
    row_bytes=MIB,  # little: else the check of a loaded bundle takes more than running it
    n_rows=512,
    n_groups=1,
    n_places=24,
    n_outputs=9,
    n_columns=40,
    image_bytes=4 * 239**2,
)
MODEL = SimpleNamespace(
    name="net",
    engine="rebuilt-float32",
    paths=("net.pt",),
    bands=("g",),
    inputs=((Grid(239, 0.168), ("g",)),),
)
PLAN = SimpleNamespace(
    models=(MODEL,),
    grids=(GridPlan(Grid(239, 0.168), ("g",), (0,)),),
    partitions=(SimpleNamespace(partition=SimpleNamespace(n_objects=1000)),),
)


def projected(device="cpu", **posterior):
    return project_inference(PLAN, {"net": MEMORY}, PosteriorConfig(**posterior), device=device)


def test_adaptive_passes_take_what_the_most_passes_take():
    assert projected(max_passes=1100) == projected(passes=1100)
    assert projected(passes=1100).host_bytes > projected(passes=100).host_bytes


def test_kept_outputs_take_more_of_the_host():
    kept, not_kept = projected("cuda", passes=100, keep_pass_outputs=True), projected("cuda", passes=100)
    assert kept.host_bytes > not_kept.host_bytes
    assert kept.device_bytes == not_kept.device_bytes


def test_transformed_filters_stand_beside_the_weights():
    without = project_inference(
        PLAN, {"net": replace(MEMORY, filters_bytes=0)}, PosteriorConfig(), device="cpu"
    )
    assert projected().host_bytes - without.host_bytes == 100 * MIB
