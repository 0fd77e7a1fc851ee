"""The dashboard's page in a browser, after a run of which some partitions failed: its numbers are those of the catalog."""

import re
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from galbatch import cluster, config, dashboard, execution
from galbatch.config import ClusterConfig
from galbatch.core.flags import ModelFlag, PixelFlag

pytestmark = pytest.mark.slow

WAIT_MS = 600_000
"""A ceiling for slow machines; all that is waited for comes within seconds."""


@pytest.fixture(scope="module")
def client():
    """Workers that have done nothing before: what they report late of another run would be counted here."""
    with cluster.connect(ClusterConfig(workers=2, dashboard_address="127.0.0.1:0")) as connected:
        yield connected


@pytest.fixture(scope="module")
def finished(client, write_run, tmp_path_factory):
    """The URL of the page after a run in which a tile was gone, with the catalog's path and the run's result."""
    folder = tmp_path_factory.mktemp("watched")
    named = [("[cluster]", '[catalog]\nname = "on the wall"\n[cluster]\nretries = 1')]
    made = config.read_config(write_run(folder, replace=named))
    plan = execution.prepare(made)
    url = dashboard.watch(client)
    # The first of its band: before the run, the last one of each band is looked for on the workers.
    first = replace(plan.tiles[0], image=replace(plan.tiles[0].image, path=str(folder / "gone.fits")))
    lost = replace(plan, tiles=(first, *plan.tiles[1:]))
    with dashboard.Broadcast(dashboard.Silent(), client, name=made.catalog.name) as sink:
        result = execution.execute(made, lost, client, sink=sink)
    return url, made.catalog.path, result


def opened(browser, url, **options):
    page = browser.new_context(**options).new_page()
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(url, timeout=WAIT_MS)
    page.wait_for_selector("h1:has-text('on the wall')", timeout=WAIT_MS)
    assert errors == []
    return page


def shown(page, name):
    return page.text_content(f'[data-name="{name}"]').strip()


def test_the_numbers_are_those_of_the_catalog(browser, finished):
    url, catalog_path, result = finished
    table = pq.read_table(f"{catalog_path}/dataset")
    page = opened(browser, url)
    assert 0 < len(table) < result.n_objects
    assert result.failed
    assert shown(page, "infer-done") == str(len(table))
    assert shown(page, "infer-total") == str(result.n_objects)
    # The page's counts come with heartbeats.
    page.wait_for_function(
        """n => document.querySelector('[data-name="galaxies"]').textContent.trim() == n""",
        arg=str(len(table)),
        timeout=WAIT_MS,
    )
    n_passes = sum(table[f"{model}_passes"].to_numpy().clip(0).sum() for model in ("gampen", "sfnet"))
    assert shown(page, "passes") == f"{n_passes:,}"
    assert shown(page, "failed") == str(len(result.failed))
    assert int(shown(page, "retries")) == len(result.failed)
    assert shown(page, "state") == "finished, not complete"
    assert "gone.fits" in page.inner_text(".failed .failures")
    # The newest three are named, and how many more there are.
    named, _, more = page.inner_text(".failed .failures b").partition(" and ")
    assert set(named.split(", ")) <= set(result.failed)
    assert len(named.split(", ")) + int((more or "0").split()[0]) == len(result.failed)


def test_flags_and_cutouts_are_those_of_the_catalog(browser, finished):
    url, catalog_path, _ = finished
    table = pq.read_table(f"{catalog_path}/dataset").to_pandas()
    page = opened(browser, url)
    expected = {
        (column, flag.name): int(((table[column] & flag.value) != 0).sum())
        for column, kind in (("flags", PixelFlag), ("gampen_flags", ModelFlag), ("sfnet_flags", ModelFlag))
        for flag in kind
    }
    rows = page.eval_on_selector_all(
        "table.flags tbody tr", "rows => rows.map(row => [...row.cells].map(cell => cell.innerText))"
    )
    found = {(name.split()[1], name.split()[0]): int(n.replace(",", "")) for name, n, _, _ in rows}
    assert found == {key: n for key, n in expected.items() if n}
    figures = page.query_selector_all(".samples figure")
    assert 1 <= len(figures) <= 9
    by_id = table.set_index(table["object_id"].astype(str))
    for figure in figures:
        object_id = figure.query_selector("b").inner_text()
        words = re.search(r"gampen bt\s+([\d.]+) ± ([\d.]+)", figure.inner_text())
        row = by_id.loc[object_id]
        assert float(words[1]) == pytest.approx(row["gampen_bt_mean"], abs=0.06)
        assert figure.query_selector("img").evaluate("image => image.naturalWidth") > 20


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 390])
def test_nothing_is_cut_off_and_all_text_has_contrast(browser, finished, width, scheme):
    page = opened(browser, finished[0], viewport={"width": width, "height": 900}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    # Contrast as WCAG 2.1 defines it, 4.5 to 1 at least, against the nearest background.
    low = page.evaluate(
        """() => {
          const rgba = text => text.match(/[\\d.]+/g).map(Number);
          const light = ([r, g, b]) => [r, g, b].map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
            .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
          const behind = e => { while (e) { const c = rgba(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > 0) return c; e = e.parentElement; }
            return [255, 255, 255]; };
          return [...document.querySelectorAll("body *")].filter(e => [...e.childNodes].some(n => n.nodeType == 3 && n.data.trim()) && e.offsetParent)
            .map(e => { const a = light(rgba(getComputedStyle(e).color)), b = light(behind(e));
              return [(Math.max(a, b) + .05) / (Math.min(a, b) + .05), e.textContent.trim().slice(0, 40)]; }).filter(([ratio]) => ratio < 4.5);
        }"""
    )
    assert low == []


def test_the_button_changes_light_and_dark_and_is_remembered(browser, finished):
    page = opened(browser, finished[0], color_scheme="light")
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.click("#theme")
    dark = page.evaluate(background)
    assert dark != light
    page.reload(timeout=WAIT_MS)
    assert page.evaluate(background) == dark


def test_there_is_a_way_to_dasks_pages_and_back(browser, finished):
    page = opened(browser, finished[0])
    page.click("nav a")
    page.wait_for_url("**/status", timeout=WAIT_MS)
    page.click("a[href='galaxies']")
    page.wait_for_selector("h1:has-text('on the wall')", timeout=WAIT_MS)
