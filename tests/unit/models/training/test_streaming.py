"""Images that are read block by block: in which order, and how many of them are in memory."""

from __future__ import annotations

import dataclasses
import gc
import weakref

import numpy as np
import pytest

from galbatch.models import (
    BlockImages,
    Extras,
    ParameterInfo,
    Session,
    TrainingSettings,
    n_mixed_blocks,
    train,
)
from galbatch.models.training.streaming import PREFETCHED_BLOCKS, read_parts

SIZE_PX, BLOCK = 32, 64


def labeled(n, seed=1):
    """Noisy squares (object, band, y, x) and their flux."""
    rng = np.random.default_rng(seed)
    flux = 10.0 ** rng.uniform(3, 4, n)
    images = rng.normal(0, 1, (n, 1, SIZE_PX, SIZE_PX))
    images[:, :, 12:20, 12:20] += flux[:, None, None, None] / 64
    return images.astype(np.float32), flux[:, None]


class Blocks:
    """Blocks of images as they are read of a store: counts the reads, and the most bytes that are alive at a time."""

    def __init__(self, images):
        self.images, self.alive, self.peak, self.n_read = images, 0, 0, 0

    def __call__(self, number):
        block = self.images[number * BLOCK : (number + 1) * BLOCK].copy()
        self.n_read += 1
        self.alive += block.nbytes
        self.peak = max(self.peak, self.alive)
        weakref.finalize(block, self.dropped, block.nbytes)
        return block

    def dropped(self, n_bytes):
        self.alive -= n_bytes


def streamed(images, n_mixed):
    blocks = Blocks(images)
    begins = np.append(np.arange(0, len(images), BLOCK), len(images))
    return BlockImages(images.shape, np.arange(len(images)), begins, blocks, n_mixed), blocks


def test_it_is_indexed_like_an_array():
    images, _ = labeled(200)
    found, blocks = streamed(images, 2)
    for rows in (np.array([3]), np.array([199, 0, 70]), np.arange(200), slice(10, 90)):
        np.testing.assert_array_equal(found[rows], images[rows])
    np.testing.assert_array_equal(found[5], images[5])
    some = found.take(np.array([4, 150, 199]))
    assert some.shape == (3, 1, SIZE_PX, SIZE_PX)
    np.testing.assert_array_equal(some[np.array([1, 2])], images[[150, 199]])
    found, blocks = streamed(images, 2)
    for start in range(0, 200, 16):  # groups in order, as a calibration reads them
        assert len(found[np.arange(start, min(200, start + 16))]) == min(16, 200 - start)
    assert blocks.n_read == 4


def test_an_order_has_every_row_once_and_mixes_the_blocks():
    found, _ = streamed(np.zeros((40 * BLOCK, 1, 1, 1), np.float32), 8)
    rows = np.arange(3, 40 * BLOCK)
    order = found.shuffled(rows, np.random.default_rng([1, 2, 0]))
    assert np.array_equal(np.sort(order), rows)
    assert np.array_equal(order, found.shuffled(rows, np.random.default_rng([1, 2, 0])))
    # In the middle of an epoch 16 rows are of 16 (1 - (7/8)^16) / 2 = 7 of 8 blocks, or 9 where one begins.
    middle = [len(np.unique(order[i : i + 16] // BLOCK)) for i in range(8 * BLOCK, 32 * BLOCK, 16)]
    assert 6.0 < np.mean(middle) < 8.0
    # The blocks come in a random order: rank correlation of place and row near 0, at most 3 / sqrt(40 blocks).
    assert abs(np.corrcoef(order, np.arange(len(order)))[0, 1]) < 0.48


@pytest.mark.parametrize("n_blocks", [20, 80])
def test_what_is_held_in_an_epoch_does_not_grow_with_the_objects(n_blocks):
    images, _ = labeled(n_blocks * BLOCK)
    found, blocks = streamed(images, 4)
    order = found.shuffled(np.arange(len(images)), np.random.default_rng(3))
    parts = [np.sort(order[start : start + 16]) for start in range(0, len(order), 16)]
    gc.collect()
    with read_parts(found, parts) as batches:
        for rows, batch in zip(parts, batches, strict=True):
            np.testing.assert_array_equal(batch, images[rows])
    block_bytes = BLOCK * SIZE_PX**2 * 4
    assert blocks.n_read == n_blocks  # each block once
    assert found.projected_bytes == (4 + 1 + PREFETCHED_BLOCKS) * block_bytes
    # Of 20 blocks or of 80, what was alive at once is between the blocks that are mixed and the projection.
    assert 4 * block_bytes <= blocks.peak <= found.projected_bytes
    assert found.held.peak_bytes <= 5 * block_bytes
    assert not found.held.blocks


def test_blocks_are_as_many_as_the_memory_takes():
    block_bytes = 256 * 239**2 * 4  # 58 MB
    # Half of 4 GiB: 36 blocks, of which one begins and two are read ahead.
    assert n_mixed_blocks(block_bytes, 2 * 2**30) == 33
    assert n_mixed_blocks(block_bytes, 1.0) == 2
    # Of 150,000 galaxies of 239 px in one band, 34 GB, training holds 2.1 GB; of 300,000 no more.
    for n_objects in (150_000, 300_000):
        begins = np.append(np.arange(0, n_objects, 256), n_objects)
        whole = BlockImages((n_objects, 1, 239, 239), np.arange(n_objects), begins, lambda number: None, 33)
        assert whole.projected_bytes == 36 * block_bytes
        assert 2.0e9 < whole.projected_bytes < 2.2e9


SETTINGS = TrainingSettings(
    name="toy",
    architecture="sfnet",
    bands=("g",),
    parameters=(ParameterInfo("flux_njy", "nJy", "total flux", "ln"),),
    head="gaussian",
    width=1 / 16,
    dropout_rate=1e-3,
    optimizer="adam",
    learning_rate=1e-3,
    frozen_norm_share=1.0,
    average_weights=0.9,
    epochs=2,
    batch=16,
    seed=3,
)


def weights_of(result):
    return {name: value.numpy() for name, value in result.network.state_dict().items()}


def test_trainings_on_streamed_images_are_the_same_each_time():
    images, labels = labeled(320)
    results = [train(streamed(images, 2)[0], labels, settings=SETTINGS, extras=Extras()) for _ in range(2)]
    one, other = (weights_of(result) for result in results)
    assert all(np.array_equal(value, other[name]) for name, value in one.items())
    assert results[0].history[-1].validation_loss < results[0].history[0].validation_loss


@pytest.mark.parametrize("is_streamed", [False, True], ids=["memory", "stream"])
def test_a_training_killed_within_an_epoch_continues_to_the_same_bits(tmp_path, is_streamed):
    images, labels = labeled(320)
    given = (lambda: streamed(images, 2)[0]) if is_streamed else (lambda: images)
    settings = dataclasses.replace(SETTINGS, limit_tail=0.3)
    whole = train(given(), labels, settings=settings)
    n_done = []

    class KilledError(Exception):
        pass

    def kill(progress):
        n_done.append(progress)
        if progress.epoch == 2 and progress.batch > 8:
            raise KilledError

    session = Session(checkpoint=tmp_path / "a.ckpt", checkpoint_every_s=0.0, on_batch=kill)
    with pytest.raises(KilledError):
        train(given(), labels, settings=settings, session=session)
    n_done.clear()
    resumed = dataclasses.replace(session, resume=True, on_batch=n_done.append)
    result = train(given(), labels, settings=settings, session=resumed)
    # `on_batch` is told of the first and of the last batch: the state of the one before was kept, and nothing is done twice.
    assert [p.batch for p in n_done if p.epoch == 2] == [n_done[0].n_batches]
    assert not [p for p in n_done if p.epoch == 1]
    mine, theirs = weights_of(result), weights_of(whole)
    assert all(np.array_equal(value, theirs[name]) for name, value in mine.items())
    for one, other in zip(result.history, whole.history, strict=True):
        assert (one.training_loss, one.validation_loss) == (other.training_loss, other.validation_loss)
