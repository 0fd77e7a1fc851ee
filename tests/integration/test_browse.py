"""``galbatch browse`` in a browser: what is shown, filtered, clicked and saved is what the catalog has."""

import signal
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from galbatch import config, execution
from galbatch.objects import read_table

pytestmark = pytest.mark.slow

WAIT_MS = 600_000
"""A ceiling for slow machines; all that is waited for comes within seconds."""

KEPT = "8\nkeep_pass_outputs = true"

SCATTER = """const view = [...Bokeh.index].find(one => one.model.name == "NAME"), frame = view.el.getBoundingClientRect();
const at = (x, y) => [frame.x + view.frame.x_scale.compute(x), frame.y + view.frame.y_scale.compute(y)];
const points = view.model.renderers[1].data_source.data;"""


@pytest.fixture(scope="module")
def run_folder(write_run, client, tmp_path_factory):
    """A finished run whose pass outputs are kept."""
    run_toml = write_run(tmp_path_factory.mktemp("browse"), max_objects=60, passes=KEPT)
    parsed = config.read_config(run_toml)
    assert execution.execute(parsed, execution.prepare(parsed), client).complete
    return run_toml.parent


@pytest.fixture(scope="module")
def table(run_folder):
    return pq.read_table(run_folder / "catalog" / "dataset").to_pandas().set_index("object_id")


@pytest.fixture(scope="module")
def server(run_folder):
    """The command, and the address that it printed."""
    command = [sys.executable, "-m", "galbatch", "browse", "catalog", "--selection", "chosen.csv"]
    with subprocess.Popen(command, cwd=run_folder, stdout=subprocess.PIPE, text=True) as process:
        yield process, process.stdout.readline().strip()
        process.kill()


@pytest.fixture
def page(browser, server):
    return opened(browser, server[1], viewport={"width": 1400, "height": 900})


def opened(browser, url, **options):
    page = browser.new_context(**options).new_page()
    page.set_default_timeout(WAIT_MS)
    errors, foreign = [], []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda one: None if "//127.0.0.1:" in one.url else foreign.append(one.url))
    page.goto(url)
    page.wait_for_selector("[data-name=shown]")
    assert (errors, [one for one in foreign if not one.startswith(("data:", "blob:"))]) == ([], [])
    return page


def number(page, name):
    return int(page.inner_text(f"[data-name={name}]").replace(",", ""))


def evaluated(page, panel, expression):
    return page.evaluate(f"(() => {{ {SCATTER.replace('NAME', panel)} return {expression}; }})()")


def test_a_click_opens_the_object_that_was_clicked(page, table):
    assert number(page, "shown") == len(table)
    # An object of the upper half, which no other lies near to.
    x, y = (table[f"gampen_{name}_q500"] for name in ("bt", "re_arcsec"))
    known = table[np.isfinite(x) & np.isfinite(y)].index
    spans = np.ptp(x[known]), np.ptp(y[known])
    far = {
        one: np.sort(np.hypot((x[known] - x[one]) / spans[0], (y[known] - y[one]) / spans[1]))[1]
        for one in known
    }
    lonely = max(far, key=far.get)
    page.mouse.click(*evaluated(page, "scatter", f"at({x[lonely]}, {y[lonely]})"))
    page.wait_for_selector("[data-name=id]")
    assert page.inner_text("[data-name=id]") == str(lonely)
    row = table.loc[lonely]
    assert page.get_by_text(f"{row['ra_deg']:.6f}").count() == 1
    page.wait_for_selector(".corners img >> nth=1")
    assert page.locator(".corners img").count() == 2
    sizes = page.locator(".pictures img").evaluate_all("all => all.map(one => one.naturalWidth)")
    assert len(sizes) == 3  # colors, g, r
    assert min(sizes) > 60
    assert page.locator(".pictures svg.marks").count() == 3


def test_flags_filter_and_an_id_opens(page, table):
    # The rarest of the pixel flags that some objects have, by its label.
    labels = page.locator("label", has_text="flags: ").all_inner_texts()
    label = next(one for one in labels if one.startswith("flags: "))
    n = int(label.rpartition("(")[2].rstrip(")"))
    assert 0 < n < len(table)
    page.get_by_text(label, exact=True).click()
    page.wait_for_function(
        "n => document.querySelector('body') && [...Bokeh.index].some(v => (v.model.text || '').includes(`'shown'>${n}<`))",
        arg=len(table) - n,
    )
    page.get_by_text("the only ones").click()
    page.wait_for_function(
        "n => [...Bokeh.index].some(v => (v.model.text || '').includes(`'shown'>${n}<`))", arg=n
    )
    object_id = str(table.index[3])
    page.get_by_label("Open the object with this id").fill(object_id)
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-name=id]")
    assert page.inner_text("[data-name=id]") == object_id


def test_a_box_selects_and_the_list_is_saved(page, table, run_folder):
    """A box about all objects east of the widest gap in the middle half: the box's edge is a whole pixel of the screen."""
    page.get_by_title("Box Select").first.click()
    ra = np.sort(table["ra_deg"])[len(table) // 4 : -(len(table) // 4)]
    widest = int(np.argmax(np.diff(ra)))
    middle = float(ra[widest] + ra[widest + 1]) / 2
    left, top = evaluated(
        page, "sky", "[frame.x + view.frame.bbox.left + 2, frame.y + view.frame.bbox.top + 2]"
    )
    bottom = evaluated(page, "sky", "frame.y + view.frame.bbox.bottom - 2")
    right = evaluated(page, "sky", f"at({middle}, 0)[0]")
    page.mouse.move(left, top)
    page.mouse.down()
    page.mouse.move((left + right) / 2, (top + bottom) / 2)
    page.mouse.move(right, bottom)
    page.mouse.up()
    page.wait_for_function("[...Bokeh.index].some(v => /'selected'>[1-9]/.test(v.model.text || ''))")
    chosen = number(page, "selected")
    # East is to the left.
    expected = set(table.index[table["ra_deg"] > middle])
    page.get_by_text("Save ids").click()
    page.wait_for_selector("[data-name=said]")
    assert f"{chosen} ids saved: chosen.csv" in page.inner_text("[data-name=said]")
    saved = read_table(str(run_folder / "chosen.csv"))["object_id"].to_pylist()
    assert len(saved) == chosen
    assert set(saved) == expected
    page.get_by_text("Clear").click()
    page.wait_for_function("[...Bokeh.index].some(v => /'selected'>0</.test(v.model.text || ''))")


def test_other_columns_are_drawn(page, table):
    page.get_by_label("across").select_option("gampen_flux_njy_q500")
    page.get_by_label("by logarithm").first.check()
    page.wait_for_function(
        "[...Bokeh.index].some(v => v.model.name == 'scatter' && v.model.below[0].axis_label == 'log10 gampen_flux_njy_q500 (nJy)')"
    )
    page.wait_for_function(
        f"(() => {{ {SCATTER.replace('NAME', 'scatter')} return Math.max(...points.x) < 20; }})()"
    )
    drawn = evaluated(page, "scatter", "[...points.x]")
    values = table["gampen_flux_njy_q500"]
    both = np.isfinite(values) & np.isfinite(table["gampen_re_arcsec_q500"])
    np.testing.assert_allclose(np.sort(drawn), np.sort(np.log10(values[both])), rtol=1e-6)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 390])
def test_nothing_is_cut_off(browser, server, table, width, scheme):
    page = opened(browser, server[1], viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.get_by_label("Open the object with this id").fill(str(table.index[0]))
    page.keyboard.press("Enter")
    page.wait_for_selector(".pictures img")
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_ctrl_c_ends_it(server):
    """Last in this file: the other tests need the server."""
    process, url = server
    assert url.startswith("http://127.0.0.1:")
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(600) == 0
