"""Merging of small catalogs: pass outputs and audits go with the rows, and what contradicts itself is refused by name."""

import json
import shutil
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from galbatch import api, catalog, models, planning, storage
from galbatch.catalog import pass_outputs
from galbatch.core import sky
from galbatch.core.columns import Column, provenance_columns
from galbatch.errors import CatalogError, DamagedError, LockedError, LockLost, UsageError
from galbatch.execution import AuditSum

N_OBJECTS = 60
FLAGS = Column("flags", "int32", "", "pixel flags", "meta.code")
PROVENANCE = provenance_columns(("g",))
ORIGIN = pass_outputs.Origin("gampen", ({"head": "gaussian"},), 1, "native float32")


@dataclass(frozen=True)
class Small:
    """What a small catalog is made of: `rows` of the sky's objects, and one network."""

    rows: slice = field(default_factory=lambda: slice(None))
    network: str = "gampen"
    sha256: str = "3fa1"
    seed: int = 1
    keeps: bool = True
    first_id: int = 100
    text_ids: bool = False
    unit: str = "arcsec"
    offset: float = 0.0
    complete: str = "true"


def values_of(ids, network):
    """A number (object,) for each id that is the same in every catalog."""
    return np.array([(int(one) * 37 + len(network)) % 101 for one in ids], np.float32)


def outputs_of(one, network):
    """The pass outputs of an object, (pass, output): as many passes as its id says, none for some."""
    n_passes = int(one) % 4
    return (np.arange(2 * n_passes, dtype=np.float32).reshape(n_passes, 2) + int(one) + len(network),)


def write(folder, made):
    """Write the catalog `made` into a folder and return its path."""
    random = np.random.default_rng(4)
    ra, dec = random.uniform(149, 151, N_OBJECTS), random.uniform(1, 3, N_OBJECTS)
    index = sky.healpix_29(ra, dec)
    order = np.argsort(index)[made.rows]
    ids = made.first_id + order
    columns = [
        FLAGS,
        *PROVENANCE,
        Column(f"{made.network}_re_arcsec_q500", "float32", made.unit, "radius, median", "phys.angSize"),
        Column(f"{made.network}_identity", "int64", "", "what the values follow from", "meta.id"),
        Column(f"{made.network}_flags", "int32", "", "model flags", "meta.code"),
    ]
    id_type = pa.string() if made.text_ids else pa.int64()
    schema = catalog.leaf_schema(columns, id_type=id_type, kept=pa.schema([]))
    arrays = [
        index[order],
        [str(one) for one in ids] if made.text_ids else ids,
        ra[order],
        dec[order],
        np.zeros(len(ids), np.int32),
        *(
            np.ones(len(ids), np.float32) if one.name == "coverage_g" else one.empty(len(ids))
            for one in PROVENANCE
        ),
        values_of(ids, made.network) + np.float32(made.offset),
        ids + 7,
        np.zeros(len(ids), np.int32),
    ]
    table = pa.table([pa.array(one) for one in arrays], schema=schema)
    path = str(folder)
    partitions = planning.divide(index[order], max_objects=12, max_bytes=1)
    assert len(partitions) > 1
    pass_outputs.create_groups(path, partitions)
    for partition in partitions:
        rows = table.slice(partition.start, partition.n_objects)
        catalog.write_leaf(path, partition, rows, footer=_footer(path, partition, ids, made))
    catalog.finish(
        path,
        partitions=partitions,
        properties={
            "obs_collection": folder.name,
            "galbatch_complete": made.complete,
            "galbatch_pass_outputs": str(made.keeps).lower(),
            "galbatch_objects": str(len(ids)),
            "galbatch_store": "cutouts.zarr",
        },
        n_rows_expected=len(ids),
        footers=AuditSum(),
    )
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return the path of a small catalog, which is written once: tests do not change it."""
    known = {}

    def path(one):
        # Slices have no hash.
        key = repr(one)
        if key not in known:
            known[key] = write(tmp_path_factory.mktemp("made") / f"c{len(known)}", one)
        return known[key]

    return path


def _footer(path, partition, ids, made):
    parts = {
        "INFER_VERSION": "1",
        f"bundle {made.network}": made.sha256,
        "posterior": f'{{"seed": {made.seed}}}',
    }
    fingerprint = {"digest": f"{path} {partition.name}", "parts": parts | {"objects": partition.name}}
    own = ids[partition.start : partition.start + partition.n_objects]
    if made.keeps:
        origin = replace(ORIGIN, model=made.network)
        writer = pass_outputs.PassOutputsWriter(path, partition, origin, object_id=own, n_outputs=[2])
        for row, one in enumerate(own):
            writer.append(row, outputs_of(one, made.network))
        writer.finish(fingerprint)
    audit = models.Audit(
        (0.5,), n_objects=len(own), n_values=len(own), stated=(1.0,), actual=(1.0,), largest=0.1
    )
    return {
        "fingerprint": json.dumps(fingerprint),
        "bundles": json.dumps({made.network: made.sha256}),
        "n_objects": str(partition.n_objects),
        "audit": json.dumps({made.network: audit.as_dict()}),
        pass_outputs.FOOTER_KEY: "kept" if made.keeps else "none",
    }


def audited(path, network):
    """How many objects were audited, by the catalog's property."""
    return int(catalog.read_properties(path)[f"galbatch_audit_{network}"].split()[0])


@pytest.mark.parametrize(
    ("a", "b", "n_rows", "networks"),
    [
        (Small(slice(0, 25)), Small(slice(25, None)), 60, ("gampen",)),
        # Objects of both lie in the same places.
        (Small(slice(0, None, 2)), Small(slice(1, None, 2)), 60, ("gampen",)),
        (Small(), Small(network="sfnet"), 60, ("gampen", "sfnet")),
    ],
    ids=["halves", "interleaved", "networks"],
)
def test_pass_outputs_and_audits_go_with_the_rows(made, tmp_path, a, b, n_rows, networks):
    paths, output = [made(a), made(b)], str(tmp_path / "ab")
    assert api.merge(paths, output) == api.Merged(n_rows)
    properties = catalog.read_properties(output)
    assert properties["galbatch_pass_outputs"] == "true"
    assert "galbatch_store" not in properties
    assert catalog.verify(output) == []
    found = catalog.read_catalog(output)
    ids = found.column("object_id").to_pylist()
    assert sorted(ids) == list(range(100, 160))
    for network in networks:
        assert audited(output, network) == 60
        np.testing.assert_array_equal(found[f"{network}_re_arcsec_q500"], values_of(ids, network))
        n_objects = 0
        for pixel in catalog.list_leaves(output):
            fingerprint = json.loads(catalog.read_footer(output, pixel)["fingerprint"])
            kept = pass_outputs.open_pass_outputs(output, pixel, network, fingerprint=fingerprint)
            assert kept.origin.model == network
            for one in kept.object_id.tolist():
                np.testing.assert_array_equal(kept.outputs(one)[0], outputs_of(one, network)[0])
                n_objects += 1
        assert n_objects == 60
    assert pass_outputs.find_damage(output) == {}


def test_a_merged_catalog_is_merged_again(made, tmp_path):
    three = [made(Small(rows)) for rows in (slice(0, 25), slice(25, 40), slice(40, None))]
    api.merge(three[:2], str(tmp_path / "ab"))
    paths = [str(tmp_path / "ab"), three[2]]
    assert api.merge(paths, str(tmp_path / "abc")).n_rows == 60
    assert audited(str(tmp_path / "abc"), "gampen") == 60
    assert catalog.verify(str(tmp_path / "abc")) == []


def test_without_the_pass_outputs_of_one_there_are_none_and_it_is_said(made, tmp_path):
    paths = [
        made(Small(slice(0, 25))),
        made(Small(slice(25, None), keeps=False)),
    ]
    output = str(tmp_path / "ab")
    assert api.merge(paths, output) == api.Merged(60, (paths[1],))
    assert catalog.read_properties(output)["galbatch_pass_outputs"] == "false"
    assert pass_outputs.list_done(output) == []
    assert catalog.verify(output) == []


@pytest.mark.parametrize(
    ("b", "message"),
    [
        (Small(slice(20, None)), "5 objects in several of them, such as"),
        (Small(slice(25, None), text_ids=True), "column object_id has the type int64 in .*, and string in"),
        (
            Small(slice(25, None), seed=2),
            "posterior seed 1; .* with 2\ncatalogs of other settings are not merged",
        ),
        (Small(slice(25, None), sha256="9c07"), "was written with bundle gampen 3fa1; .* with 9c07"),
        (Small(slice(25, None), network="sfnet"), "no object in common and other columns: gampen_flags"),
        (
            Small(slice(25, None), unit="deg"),
            "gampen_re_arcsec_q500 has the unit arcsec in .*, and deg in ",
        ),
        (Small(slice(0, 25), offset=1.0), "gampen_re_arcsec_q500 of object .* in another catalog"),
        (
            Small(slice(0, 25), network="sfnet", unit="deg", complete="false"),
            "is not complete; run galbatch run until it is",
        ),
    ],
    ids=["some", "ids", "seed", "bundle", "networks", "unit", "values", "incomplete"],
)
def test_what_contradicts_itself_is_refused_and_leaves_nothing(made, tmp_path, b, message):
    paths = [made(Small(slice(0, 25))), made(b)]
    with pytest.raises((UsageError, CatalogError), match=message):
        api.merge(paths, str(tmp_path / "ab"))
    assert not (tmp_path / "ab").exists()
    assert not (tmp_path / "ab_pass_outputs.zarr").exists()


def test_damage_is_refused_and_leaves_nothing(made, tmp_path):
    whole, other = made(Small(slice(25, None))), str(tmp_path / "b")
    for end in ("", "_pass_outputs.zarr"):
        shutil.copytree(whole + end, other + end)
    paths = [made(Small(slice(0, 25))), other]
    (chunk, *_) = sorted((tmp_path / "b_pass_outputs.zarr").rglob("outputs_0/c/*/*"))
    chunk.write_bytes(chunk.read_bytes()[:-1])
    with pytest.raises(DamagedError, match="b_pass_outputs"):
        api.merge(paths, str(tmp_path / "ab"))
    assert not (tmp_path / "ab").exists()
    assert not (tmp_path / "ab_pass_outputs.zarr").exists()


def test_places_that_cannot_be_are_refused(made, tmp_path):
    a, b = made(Small(slice(0, 25))), made(Small(slice(25, None)))
    api.merge([a, b], str(tmp_path / "ab"))
    for paths, output, message in (
        ([a], "c", "give two catalogs or more"),
        ([a, f"{a}/"], "c", "/ is given twice"),
        ([a, b], "ab", "holds a catalog already; choose another -o"),
        ([a, b], f"{a}/merged", "lies in the catalog .*, which is not changed"),
        ([a, str(tmp_path / "none")], "c", "none"),
    ):
        with pytest.raises((UsageError, CatalogError), match=message):
            api.merge(paths, str(tmp_path / output))
    assert not (tmp_path / "c").exists()
    assert not (Path(a) / "merged").exists()


@pytest.mark.parametrize("there", ["ab/dataset/mine.csv", "ab/properties", "ab_pass_outputs.zarr/zarr.json"])
def test_files_of_others_are_not_deleted_by_a_merge_that_is_refused(made, tmp_path, there):
    mine = tmp_path / there
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    paths = [made(Small(slice(0, 25))), made(Small(slice(0, 25), offset=1.0))]
    with pytest.raises(UsageError, match="exists already, which a merge writes; choose another -o"):
        api.merge(paths, str(tmp_path / "ab"))
    assert mine.read_text() == "mine"


def test_a_network_that_several_catalogs_have_of_the_same_objects_counts_once(made, tmp_path):
    both = str(tmp_path / "both")
    api.merge([made(Small()), made(Small(network="sfnet"))], both)
    output = str(tmp_path / "again")
    assert api.merge([both, made(Small())], output).n_rows == 60
    assert [audited(output, network) for network in ("gampen", "sfnet")] == [60, 60]
    assert catalog.verify(output) == []
    assert pass_outputs.find_damage(output) == {}


def test_an_output_that_another_merge_writes_is_refused(made, tmp_path, monkeypatch):
    paths = [made(Small(rows=slice(0, 30))), made(Small(rows=slice(30, None)))]
    output = str(tmp_path / "merged")
    refused = []

    def meanwhile(*arguments, **settings):
        """Do what a second merge does while the first one writes its leaves."""
        if not refused:
            refused.append(None)
            with pytest.raises(LockedError, match=r"merged: held by the run of process .* it is alive"):
                api.merge(paths, output)
        return write_leaf(*arguments, **settings)

    write_leaf = catalog.write_leaf
    monkeypatch.setattr(storage, "Lock", partial(storage.Lock, beat_s=0.05))
    monkeypatch.setattr(catalog, "write_leaf", meanwhile)
    assert api.merge(paths, output).n_rows == N_OBJECTS
    assert refused
    # The first one lost nothing to the second, and gave its lock back.
    assert catalog.verify(output) == []
    assert [path.name for path in tmp_path.iterdir() if "lock" in path.name] == []
    with pytest.raises(UsageError, match="holds a catalog already"):
        api.merge(paths, output)
    assert catalog.verify(output) == []


def test_a_merge_that_lost_its_lock_removes_nothing(made, tmp_path, monkeypatch):
    paths = [made(Small(rows=slice(0, 30))), made(Small(rows=slice(30, None)))]
    output = str(tmp_path / "merged")

    def taken_over(*arguments, **settings):
        (tmp_path / "merged_lock.json").write_text(json.dumps({"owner": "another", "pid": 1, "host": "h"}))
        return write_leaf(*arguments, **settings)

    write_leaf = catalog.write_leaf
    monkeypatch.setattr(catalog, "write_leaf", taken_over)
    (tmp_path / "merged").mkdir()
    (tmp_path / "merged" / "of_another").write_text("x")
    with pytest.raises(LockLost, match="the run of process 1 on h took it over"):
        api.merge(paths, output)
    assert (tmp_path / "merged" / "of_another").exists()
    assert catalog.list_leaves(output) == []
