"""Keys: the 64-bit numbers from which the dropout masks and random draws of each (object, pass) are made.

A key is a hash of (seed, bundle, object id, pass number) and of nothing else, so draws do not depend on batch, partition,
worker, retry, or objects that are added later.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

__all__ = ["draw_keys", "is_audited", "member_keys", "normal_draws", "uniform_draws"]

Words = npt.NDArray[np.uint64]

GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # The step of splitmix64, 2^64 over the golden ratio.
# The texts "normal" and "uniform" as numbers: far from the numbers of layers, so that no stream is used twice.
NORMAL_STREAM = np.uint64(0x6E6F726D616C0000)
UNIFORM_STREAM = np.uint64(0x756E69666F726D00)
AUDITED = 1e-3  # One object in 1000 costs little, and a million objects have a thousand that are audited.


def mix(words: Words) -> Words:
    """Return the hash of 64-bit numbers by the finalizer of splitmix64 (Steele, Lea & Flood 2014)."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def draw_keys(
    object_id: npt.NDArray[np.int64] | Sequence[str] | npt.NDArray[np.object_],
    *,
    seed: int,
    bundle_sha256: str,
    passes: Sequence[int] | npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """Return the integers from which the dropout masks, and other random numbers, of each object's passes are drawn.

    A key follows from the arguments alone, not from the batch or the worker. Different passes, objects, bundles and seeds have
    independent keys.

    Parameters
    ----------
    object_id : (object,) int64 or str
    seed : seed of the run
    bundle_sha256 : hash of the bundle's file
    passes : (pass,) numbers of the passes, counted from 0

    Returns
    -------
    (object, pass) int64
    """
    ids = np.asarray(object_id)
    run = hashlib.blake2b(f"{seed} {bundle_sha256}".encode(), digest_size=8).digest()
    start = mix(_words_of(ids) ^ np.frombuffer(run, dtype="<u8"))
    # Counted from 1, as splitmix64 steps before it gives its first number.
    number = np.asarray(passes).astype(np.uint64) + np.uint64(1)  # (pass,)
    return mix(mix(start)[:, None] + number[None, :] * GOLDEN).view(np.int64)


def is_audited(
    object_id: npt.NDArray[np.int64] | Sequence[str] | npt.NDArray[np.object_], *, seed: int
) -> npt.NDArray[np.bool_]:
    """Return which objects are in the audit sample, 1 in 1000, by a hash of the id and the run's seed alone.

    Parameters
    ----------
    object_id : (object,) int64 or str
    seed : seed of the run

    Returns
    -------
    (object,) bool
    """
    run = hashlib.blake2b(f"{seed} audit".encode(), digest_size=8).digest()
    words = mix(mix(_words_of(np.asarray(object_id)) ^ np.frombuffer(run, dtype="<u8")))
    return words < np.uint64(AUDITED * 2.0**64)


def _words_of(ids: npt.NDArray[np.int64] | npt.NDArray[np.object_]) -> Words:
    """Return a 64-bit hash of each id, (object,) uint64; the hashes of 7 and "7" differ."""
    if ids.dtype.kind in "iu":
        return mix(ids.astype(np.int64).view(np.uint64) + GOLDEN)
    digests = [hashlib.blake2b(str(name).encode(), digest_size=8).digest() for name in ids.tolist()]
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def normal_draws(keys: npt.NDArray[np.int64], n: int) -> npt.NDArray[np.float64]:
    """Return standard normal random numbers for each key, drawn by inversion.

    Parameters
    ----------
    keys : (object, pass) int64
    n : number of draws per key

    Returns
    -------
    (object, pass, n) float64
    """
    return ndtri(_uniform(keys, n, NORMAL_STREAM))


def uniform_draws(keys: npt.NDArray[np.int64], n: int) -> npt.NDArray[np.float64]:
    """Return uniform random numbers in (0, 1) for each key, which are independent of its normal ones.

    Parameters
    ----------
    keys : (object, pass) int64
    n : number of draws per key

    Returns
    -------
    (object, pass, n) float64
    """
    return _uniform(keys, n, UNIFORM_STREAM)


def _uniform(keys: npt.NDArray[np.int64], n: int, stream: np.uint64) -> npt.NDArray[np.float64]:
    """Return uniform numbers (object, pass, n); streams with different numbers are independent."""
    counter = (np.arange(n, dtype=np.uint64) + np.uint64(1)) * GOLDEN
    words = mix(mix(keys.view(np.uint64) ^ stream)[..., None] + counter)
    # 53 bits are what a float64 holds; half a step more keeps 0 and 1 out, where the normal quantile is infinite.
    return ((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def member_keys(keys: npt.NDArray[np.int64], members: int) -> npt.NDArray[np.int64]:
    """Return keys for draws from each member of a bundle. The dropout masks of a pass are the same for all members.

    Parameters
    ----------
    keys : (object, pass) int64
    members : number of networks in the bundle

    Returns
    -------
    (object, member x pass) int64; those of the first member come first, and are equal to `keys`
    """
    steps = np.arange(members, dtype=np.uint64) * GOLDEN
    others = [mix(keys.view(np.uint64) + step).view(np.int64) for step in steps[1:]]
    return np.concatenate([keys, *others], axis=1)
