"""The report in a browser: nothing is asked for, nothing is cut off, axe-core finds no violation, panels are linked."""

import pytest

from galbatch.reporting import write_report

pytestmark = pytest.mark.slow

WAIT_MS = 600_000
"""A ceiling for slow machines; all that is waited for comes within seconds."""


@pytest.fixture(scope="module")
def report_path(made, sparse, tmp_path_factory):
    """A report with every section: truth, panels, features and where they fire, gallery."""
    path = tmp_path_factory.mktemp("report_browser") / "report.html"
    contents, store = sparse
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("galbatch.reporting.page.read_contents", lambda _: contents)
        write_report(made[0], str(path), truth=made[1], store=store)
    assert path.read_text(encoding="utf-8").count('<figure class="place">') == 18
    return path


@pytest.fixture
def opened(browser, report_path):
    """Open the report; after the test, everything it asked for was its own file and no script failed."""
    asked, errors = [], []

    def open_page(**options):
        page = browser.new_context(**options).new_page()
        page.set_default_timeout(WAIT_MS)
        page.on("request", lambda one: asked.append(one.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(report_path.as_uri())
        page.wait_for_function("window.Bokeh && [...Bokeh.index].length >= 3")
        return page

    yield open_page
    assert errors == []
    assert {url for url in asked if not url.startswith(("data:", "blob:"))} == {report_path.as_uri()}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 390])
def test_axe_finds_no_violation_and_nothing_is_cut_off(opened, width, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install galbatch[dev]")
    page = opened(viewport={"width": width, "height": 900}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    found = axe.Axe().run(page).response["violations"]
    assert [(one["id"], [node["html"][:120] for node in one["nodes"]]) for one in found] == []


def test_a_list_changes_what_a_panel_shows(opened):
    page = opened(viewport={"width": 1400, "height": 900})
    page.get_by_label("medians, up").select_option(label="gampen: magnitude (mag)")
    page.wait_for_function(
        "[...Bokeh.index].some(view => [...(view.children?.() ?? []), view].some(one => one.model.left?.[0]?.axis_label == 'gampen: magnitude (mag)'))"
    )
