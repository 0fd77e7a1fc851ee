"""What holds for every bundle, whatever its kind: one suite, subclassed by each."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from galbatch.config import PosteriorConfig
from galbatch.core.flags import ModelFlag
from galbatch.core.types import njy_per_unit
from galbatch.models import (
    AuxiliaryInput,
    BlockInputs,
    DomainInfo,
    Ensemble,
    HeadInfo,
    ParameterInfo,
    card_text,
    convert_script,
    infer_block,
    load_bundle,
    network_columns,
    rewrite_bundle,
    save_bundle,
    script_of,
)
from galbatch.models.heads import outputs_per_pass, read_metadata
from galbatch.models.inference import ObjectNumbers, describe_domain, run_passes
from galbatch.models.metadata import write_metadata
from galbatch.models.networks import draw_keys

from .conftest import (
    SIZE_PX,
    block_of,
    galaxies,
    gampen_metadata,
    sfnet_metadata,
    tiny_gampen,
    tiny_sfnet,
)

N_OBJECTS = 7
N_PASSES = 6
POSTERIOR = PosteriorConfig(passes=N_PASSES, batch=16, tolerance=100.0)
CLOSE = {"rtol": 2e-5, "atol": 2e-5}  # convolutions of other batch sizes add up in another order
CLOSE_VALUES = {
    "rtol": 1e-3,
    "atol": 2e-5,
}  # the exponentials of networks that were never trained magnify that

# A passes' standard deviation that is all but 0 has no more digits than the means have.
UNSTEADY = ("_epistemic_std", "_mc_error", "_mode")


def infer(bundle, block, auxiliary=None, posterior=POSTERIOR):
    selected = np.ones(len(block), bool)
    return infer_block(
        bundle, BlockInputs(block, selected, auxiliary=auxiliary), name="net", posterior=posterior
    )


def rows_of(block, rows):
    """Some rows of a block, in any order."""
    changes = {
        field.name: getattr(block, field.name)[rows]
        for field in dataclasses.fields(block)
        if isinstance(getattr(block, field.name), np.ndarray)
    }
    return dataclasses.replace(block, **changes)


def assert_same(first, second):
    assert first.keys() == second.keys()
    for key, column in first.items():
        if column.dtype.kind == "f":
            tolerance = {"rtol": 2e-2, "atol": 2e-3} if key.endswith(UNSTEADY) else CLOSE_VALUES
            np.testing.assert_allclose(column, second[key], **tolerance, err_msg=key)
        else:
            np.testing.assert_array_equal(column, second[key], err_msg=key)


class ModelContract:
    """Subclasses give a network and its metadata."""

    @classmethod
    def network(cls):
        """The network, before it is scripted."""
        raise NotImplementedError

    @classmethod
    def metadata(cls):
        """What it says of itself, without a domain."""
        raise NotImplementedError

    @classmethod
    def save(cls, path):
        """Write the bundle, with a domain where the network has last features."""
        network, metadata = cls.network().eval(), cls.metadata()
        if hasattr(network, "last_features"):
            images = galaxies(60, len(metadata.input.bands), seed=5)[0]
            numbers = ObjectNumbers(auxiliary=cls.auxiliary_numbers(metadata, 60))
            domain = describe_domain(network, images, unit_njy=57.544, known=numbers)
            metadata = dataclasses.replace(metadata, domain=domain)
        save_bundle(path, script_of(network), metadata)

    @staticmethod
    def auxiliary_numbers(metadata, n_objects):
        """(object, column) float32, or None."""
        if not metadata.input.auxiliary_inputs:
            return None
        rng = np.random.default_rng(8)
        return rng.uniform(0, 1, (n_objects, len(metadata.input.auxiliary_inputs))).astype(np.float32)

    @pytest.fixture(scope="class")
    @classmethod
    def path(cls, tmp_path_factory):
        path = str(tmp_path_factory.mktemp("contract") / "bundle.pt")
        torch.manual_seed(4)
        cls.save(path)
        return path

    @pytest.fixture(scope="class")
    @classmethod
    def bundle(cls, path):
        return load_bundle(path)

    @pytest.fixture(scope="class")
    @classmethod
    def block(cls, bundle):
        return block_of(galaxies(N_OBJECTS, len(bundle.bands), seed=3)[0])

    @pytest.fixture(scope="class")
    @classmethod
    def auxiliary(cls, bundle):
        return cls.auxiliary_numbers(bundle.metadata, N_OBJECTS)

    @pytest.fixture(scope="class")
    @classmethod
    def values(cls, bundle, block, auxiliary):
        return infer(bundle, block, auxiliary)

    @staticmethod
    def raw(bundle, block, auxiliary, *, seed=1, batch=16):
        keys = draw_keys(block.object_id, seed=seed, bundle_sha256="x", passes=range(N_PASSES))
        unit = np.float32(njy_per_unit(bundle.metadata.input.zero_point_mag))
        return run_passes(bundle, block.image / unit, keys, batch=batch, auxiliary=auxiliary)

    def test_shapes(self, bundle, block, auxiliary):
        raw = self.raw(bundle, block, auxiliary)
        assert raw.outputs.shape == (N_OBJECTS, N_PASSES, outputs_per_pass(bundle.metadata))
        assert raw.outputs.dtype == np.float32
        assert np.isfinite(raw.outputs).all()
        if bundle.metadata.n_top_features:
            assert raw.top_index.shape == (N_OBJECTS, bundle.metadata.n_top_features)
        if bundle.metadata.domain.features_mean is not None:
            assert raw.last.shape == (N_OBJECTS, len(bundle.metadata.domain.features_mean))

    def test_objects_differ(self, bundle, block, auxiliary):
        """No network answers the same to a faint compact galaxy and a bright large one."""
        assert (self.raw(bundle, block, auxiliary).outputs.std(axis=0) > 1e-6).any()

    def test_draws_depend_on_keys_alone(self, bundle, block, auxiliary):
        whole = self.raw(bundle, block, auxiliary).outputs
        np.testing.assert_array_equal(self.raw(bundle, block, auxiliary).outputs, whole)
        np.testing.assert_allclose(self.raw(bundle, block, auxiliary, batch=5).outputs, whole, **CLOSE)
        back = np.arange(N_OBJECTS)[::-1]
        turned = self.raw(bundle, rows_of(block, back), None if auxiliary is None else auxiliary[back])
        np.testing.assert_allclose(turned.outputs[::-1], whole, **CLOSE)
        torch.manual_seed(77)
        np.testing.assert_array_equal(self.raw(bundle, block, auxiliary).outputs, whole)

    def test_passes_and_seeds_differ_exactly_with_dropout(self, bundle, block, auxiliary):
        first, other = (self.raw(bundle, block, auxiliary, seed=seed).outputs for seed in (1, 2))
        if bundle.metadata.dropout_rate > 0:
            assert np.ptp(first, axis=1).max() > 1e-5
            assert np.abs(first - other).max() > 1e-5
        else:
            np.testing.assert_allclose(first, np.broadcast_to(first[:, :1], first.shape), **CLOSE)
            np.testing.assert_allclose(first, other, **CLOSE)

    def test_batch_order_and_number_of_objects_do_not_matter(self, bundle, block, auxiliary, values):
        small = PosteriorConfig(passes=N_PASSES, batch=3, tolerance=100.0)
        assert_same(infer(bundle, block, auxiliary, small), values)
        rows = np.array([4, 1])
        some = infer(bundle, rows_of(block, rows), None if auxiliary is None else auxiliary[rows])
        assert_same(some, {key: column[rows] for key, column in values.items()})

    def test_neighbors_in_a_batch_do_not_matter(self, bundle, block, auxiliary, values):
        image = block.image.copy()
        image[1::2] = np.random.default_rng(6).normal(0, 1e5, image[1::2].shape)
        changed = infer(bundle, dataclasses.replace(block, image=image), auxiliary)
        kept = slice(0, None, 2)
        assert_same(
            {key: column[kept] for key, column in changed.items()},
            {key: column[kept] for key, column in values.items()},
        )

    def test_nan_in_leads_to_a_flag_and_not_to_nan_in_others(self, bundle, block, auxiliary, values):
        image = block.image.copy()
        image[2, 0, SIZE_PX // 2, SIZE_PX // 2] = np.nan  # nothing to measure
        image[4, -1, 0, :3] = np.inf  # a gap at the edge
        found = infer(bundle, dataclasses.replace(block, image=image), auxiliary)
        gaps = (found["net_flags"] & ModelFlag.MISSING_PIXELS) > 0
        assert gaps.tolist() == [False, False, True, False, True, False, False]
        median = found[f"net_{bundle.metadata.parameters[0].name}_q500"]
        assert np.isnan(median).tolist() == [i == 2 for i in range(N_OBJECTS)]
        assert found["net_passes"][2] == 0
        others = np.array([0, 1, 3, 5, 6])
        assert_same(
            {key: column[others] for key, column in found.items()},
            {key: column[others] for key, column in values.items()},
        )

    def test_outputs_that_are_not_finite_are_flagged_alone(self, bundle, block, auxiliary, values):
        image = block.image.copy()
        image[3] = 3e38  # overflows in the first convolution, or saturates
        found = infer(bundle, dataclasses.replace(block, image=image), auxiliary)
        first = bundle.metadata.parameters[0].name
        assert found["net_flags"][3] != 0 or np.isfinite(found[f"net_{first}_q500"][3])
        others = np.array([0, 1, 2, 4, 5, 6])
        assert_same(
            {key: column[others] for key, column in found.items()},
            {key: column[others] for key, column in values.items()},
        )

    def test_every_column_is_filled_or_flagged(self, bundle, values):
        columns = network_columns(Ensemble((bundle,)), name="net", quantiles=POSTERIOR.quantiles)
        assert list(values) == [column.name for column in columns]
        no_posterior = (values["net_flags"] & ModelFlag.NO_POSTERIOR) > 0
        assert no_posterior.all() == no_posterior.any()
        for column in columns:
            found = values[column.name]
            assert len(found) == N_OBJECTS
            assert found.dtype == (object if column.dtype == "string" else np.dtype(column.dtype))
            may_lack = no_posterior.any() or "NaN: none fired" in column.description
            if found.dtype.kind == "f" and not may_lack:
                assert np.isfinite(found).all(), column.name
        for parameter in bundle.metadata.parameters:
            assert np.isfinite(values[f"net_{parameter.name}_q500"]).all()

    def test_widths_belong_to_posteriors(self, bundle, values):
        name = bundle.metadata.parameters[-1].name
        low, middle, high = (values[f"net_{name}_{key}"] for key in ("q15865", "q500", "q84135"))
        if (values["net_flags"] & ModelFlag.NO_POSTERIOR).any():
            assert bundle.metadata.head.kind == "point"
            assert np.isnan([low, high, values[f"net_{name}_std"]]).all()
        else:
            assert ((low <= middle) & (middle <= high) & (low < high)).all()
            assert (values[f"net_{name}_std"] > 0).all()

    def test_the_distance_is_that_of_the_domain(self, bundle, block, auxiliary, values):
        domain = bundle.metadata.domain
        assert ("net_ood_distance" in values) == (domain.distance_limit is not None)
        if domain.distance_limit is not None:
            centered = self.raw(bundle, block, auxiliary).last.astype(float) - np.array(domain.features_mean)
            inverse = np.linalg.inv(np.array(domain.features_covariance))
            expected = np.sqrt(np.einsum("of,fg,og->o", centered, inverse, centered)) / domain.distance_limit
            np.testing.assert_allclose(values["net_ood_distance"], expected, rtol=1e-4)
            beyond = expected > 1
            assert ((values["net_flags"][beyond] & ModelFlag.OUT_OF_DOMAIN) > 0).all()

    def test_saved_and_loaded_it_computes_the_same(self, bundle, block, auxiliary):
        network = self.network().eval()
        unit = np.float32(njy_per_unit(bundle.metadata.input.zero_point_mag))
        inputs = [torch.from_numpy(block.image / unit)]
        inputs += [] if auxiliary is None else [torch.from_numpy(auxiliary)]
        keys = torch.arange(N_OBJECTS, dtype=torch.int64) * 12345
        with torch.inference_mode():
            before = network.sample(network.prefix(*inputs), keys)
            after = bundle.sample(bundle.prefix(*inputs), keys)
        torch.testing.assert_close(after, before)

    def test_metadata_survive_the_file(self, bundle):
        metadata = bundle.metadata
        assert read_metadata(write_metadata(metadata), "x.pt") == metadata
        assert metadata == dataclasses.replace(self.metadata(), domain=metadata.domain)

    def test_rewritten_with_other_metadata_it_computes_the_same(
        self, bundle, path, block, auxiliary, tmp_path
    ):
        other = dataclasses.replace(bundle.metadata, citation="changed", version="2")
        output = str(tmp_path / "other.pt")
        sha256 = rewrite_bundle(path, output, other)
        changed = load_bundle(output, sha256=sha256)
        assert sha256 != bundle.sha256
        assert changed.metadata == other
        first, second = (self.raw(each, block, auxiliary).outputs for each in (bundle, changed))
        np.testing.assert_array_equal(first, second)

    def test_its_card_names_all_of_it(self, bundle):
        card = card_text(bundle.metadata, bundle.sha256)
        assert card.startswith(f"# {bundle.metadata.name} {bundle.metadata.version}\n")
        assert bundle.sha256 in card
        for parameter in bundle.metadata.parameters:
            assert f"| {parameter.name} |" in card
            assert all(f'"{label.text}"' in card for label in parameter.labels)


def with_head(metadata, kind, **changes):
    return dataclasses.replace(metadata, head=HeadInfo(kind, **changes))


class TestGampen(ModelContract):
    @classmethod
    def network(cls):
        return tiny_gampen()

    @classmethod
    def metadata(cls):
        return gampen_metadata()


class TestGampenWithoutDropout(ModelContract):
    @classmethod
    def network(cls):
        return tiny_gampen(dropout_rate=0.0)

    @classmethod
    def metadata(cls):
        return gampen_metadata(dropout_rate=0.0)


class TestSfnet(ModelContract):
    @classmethod
    def network(cls):
        return tiny_sfnet()

    @classmethod
    def metadata(cls):
        return sfnet_metadata()


class TestSfnetWithoutDropout(ModelContract):
    """As the published networks: single values, no posterior, features that fire."""

    @classmethod
    def network(cls):
        return tiny_sfnet(n_out=2, dropout_rate=0.0)

    @classmethod
    def metadata(cls):
        return with_head(sfnet_metadata(dropout_rate=0.0), "point")


class TestPoint(ModelContract):
    @classmethod
    def network(cls):
        return tiny_sfnet(n_out=2)

    @classmethod
    def metadata(cls):
        return with_head(sfnet_metadata(), "point")


class TestSoftmax(ModelContract):
    @classmethod
    def network(cls):
        return tiny_sfnet(n_out=3)

    @classmethod
    def metadata(cls):
        classes = tuple(
            ParameterInfo(f"p_{one}", "", one, "identity") for one in ("star", "galaxy", "quasar")
        )
        return with_head(sfnet_metadata(parameters=classes), "softmax")

    def test_the_probabilities_of_the_classes_sum_to_one(self, values):
        means = np.stack([values[f"net_p_{one}_mean"] for one in ("star", "galaxy", "quasar")])
        given = np.isfinite(means).all(axis=0)
        assert given.any()
        np.testing.assert_allclose(means.sum(axis=0)[given], 1.0, atol=1e-5)
        assert (values["net_p_star_epistemic_std"][given] > 0).all()


class TestBinned(ModelContract):
    EDGES = (tuple(np.linspace(-0.5, 1.5, 8).tolist()), tuple(np.linspace(12.0, 24.0, 13).tolist()))

    @classmethod
    def network(cls):
        return tiny_sfnet(n_out=7 + 12)

    @classmethod
    def metadata(cls):
        return with_head(sfnet_metadata(), "binned", edges=cls.EDGES)


class TestMixture(ModelContract):
    @classmethod
    def network(cls):
        return tiny_sfnet(n_out=3 * (1 + 2 * 2))

    @classmethod
    def metadata(cls):
        return with_head(sfnet_metadata(), "mixture", components=3)


class Pair(nn.Module):
    """Two networks in one script: a pass puts out the one's numbers after the other's."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first = first
        self.second = second

    def forward(self, images: Tensor, keys: Tensor) -> Tensor:
        return self.sample(self.prefix(images), keys)

    @torch.jit.export
    def prefix(self, images: Tensor) -> Tensor:
        return torch.stack([self.first.prefix(images), self.second.prefix(images)], dim=1)

    @torch.jit.export
    def sample(self, features: Tensor, keys: Tensor) -> Tensor:
        first = self.first.sample(features[:, 0], keys)
        return torch.cat([first, self.second.sample(features[:, 1], keys)], dim=1)

    @torch.jit.export
    def last_features(self, features: Tensor) -> Tensor:
        first = self.first.last_features(features[:, 0])
        return torch.cat([first, self.second.last_features(features[:, 1])], dim=1)


class TestSeveralMembers(ModelContract):
    @classmethod
    def network(cls):
        first = tiny_sfnet()
        second = tiny_sfnet()
        torch.manual_seed(9)
        nn.init.normal_(second.resnet.fc.weight, std=0.1)
        return Pair(first, second)

    @classmethod
    def metadata(cls):
        return sfnet_metadata(members=2, n_top_features=0)


class WithColumns(nn.Module):
    """A network that takes two auxiliary inputs, here as factors on all maps."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, auxiliary: Tensor, keys: Tensor) -> Tensor:
        return self.sample(self.prefix(images, auxiliary), keys)

    @torch.jit.export
    def prefix(self, images: Tensor, auxiliary: Tensor) -> Tensor:
        return self.network.prefix(images) * (1.0 + auxiliary.sum(dim=1)).reshape(-1, 1, 1, 1)

    @torch.jit.export
    def sample(self, features: Tensor, keys: Tensor) -> Tensor:
        return self.network.sample(features, keys)

    @torch.jit.export
    def last_features(self, features: Tensor) -> Tensor:
        return self.network.last_features(features)


class TestColumns(ModelContract):
    @classmethod
    def network(cls):
        return WithColumns(tiny_gampen())

    @classmethod
    def metadata(cls):
        image = dataclasses.replace(
            gampen_metadata().input,
            auxiliary_inputs=(AuxiliaryInput("ebv", "mag", "reddening"), AuxiliaryInput("color")),
        )
        return gampen_metadata(input=image)

    def test_an_auxiliary_input_that_is_lacking_is_flagged_alone(self, bundle, block, auxiliary, values):
        lacking = auxiliary.copy()
        lacking[2, 1] = np.nan
        found = infer(bundle, block, lacking)
        flagged = (found["net_flags"] & ModelFlag.MISSING_PIXELS) > 0
        assert flagged.tolist() == [i == 2 for i in range(N_OBJECTS)]
        assert np.isnan(found["net_flux_njy_q500"]).tolist() == flagged.tolist()
        others = ~flagged
        assert_same(
            {key: column[others] for key, column in found.items()},
            {key: column[others] for key, column in values.items()},
        )


FOREIGN = """
name = "foreign"
architecture = "plain"
dropout_rate = 0.3
[input]
bands = ["g", "r"]
size_px = 48
pixel_scale_arcsec = 0.168
unit = "ADU"
zero_point_mag = 27.0
[preprocessing]
intensity_stretch = "arsinh"
[head]
kind = "point"
[[parameters]]
name = "mag_r"
unit = "mag"
description = "r magnitude"
transform = "identity"
location = 18.0
[[parameters]]
name = "color_gr_mag"
unit = "mag"
description = "g - r"
transform = "identity"
"""


class Plain(nn.Module):
    """Somebody else's network: `forward(images)`, torch's own dropout."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(12)
        self.layers = nn.Sequential(
            nn.Conv2d(2, 4, 5, stride=4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(4 * 11 * 11, 2)
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


class TestForeignScript(ModelContract):
    @classmethod
    def network(cls):
        return Plain()

    @classmethod
    def save(cls, path):
        folder = path.removesuffix("bundle.pt")
        torch.jit.script(cls.network()).save(folder + "plain.pt")
        with open(folder + "plain.toml", "w") as file:
            file.write(FOREIGN)
        convert_script(folder + "plain.pt", folder + "plain.toml", path)

    def test_saved_and_loaded_it_computes_the_same(self, bundle, block, auxiliary):
        network = self.network().eval()
        network.layers[3].train()  # the dropout
        images = torch.from_numpy(block.image / np.float32(njy_per_unit(27.0)))
        keys = torch.arange(N_OBJECTS, dtype=torch.int64) * 12345
        with torch.inference_mode():
            after = bundle.sample(bundle.prefix(images), keys)
            for row, key in enumerate(keys):
                torch.manual_seed(int(key))
                before = network(torch.arcsinh(images[row : row + 1]))
                torch.testing.assert_close(after[row : row + 1], before)

    def test_metadata_survive_the_file(self, bundle):
        assert read_metadata(write_metadata(bundle.metadata), "x.pt") == bundle.metadata
        assert bundle.metadata.domain == DomainInfo()
        assert [p.name for p in bundle.metadata.parameters] == ["mag_r", "color_gr_mag"]
