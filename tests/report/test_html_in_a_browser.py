"""The HTML report as its readers use it: in a real browser, with a mouse, a keyboard, or on paper."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from pytest_mnnquant.measurements.chart_samples import ChartSamples, WeightHistogram
from pytest_mnnquant.report.build import build_report
from pytest_mnnquant.report.formats import write_report
from tests.browser import PHONE, Page, needs_chromium
from tests.golden_text import check_golden
from tests.report.made import VIEWS, finding, history, layer, records
from tests.results import accuracy, task

pytestmark = needs_chromium
HOSTILE = "</script><script>document.title='taken'</script><b>&lt;x"
LAYERS = [
    *(layer(f"/卷积/第{place}层", place) for place in range(1, 12)),
    layer("/head/left", 12, quantized=False),
    layer("/head/kept", 13, quantized=False, skipped=True),
    dataclasses.replace(layer(HOSTILE, 14), module="<b>粗</b>"),
]
SLICES = "all('[data-chart=map] .slice path.surface')"
SEE_PRINTED = """addEventListener('beforeprint', () => { window.seen = [
    all('.plot .main-svg').length, all('details:not([open])').length, all('.plot .main-svg').map(p => p.clientWidth)
] }); return 0"""
ROWS = ".layers:not([hidden]) tbody tr:not([hidden])"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with Chinese and hostile names, in a Chinese folder."""
    findings = [finding("MNQ401", "/head/left"), finding("MNQ710", HOSTILE, "warning")]
    report = build_report(records(LAYERS, findings, model="模型", source="目录/模型.py:构建"), {"MNN": "3.6.1"})
    (model,) = report.models
    (comparison,) = model.modes
    changes = {f"tensor {place}": place / 100 for place in range(1, 9)}
    model = dataclasses.replace(model, modes=(dataclasses.replace(comparison, changes=changes),))
    past = tuple(history("模型", variant, 100, 100, 130) for variant in ("int8-train", "int8-eval"))
    path = tmp_path_factory.mktemp("报告") / "量化.html"
    write_report(dataclasses.replace(report, models=(model,), history=past), path)
    return path


@pytest.fixture
def page(browser: Page, file: Path) -> Page:
    browser.open(file)
    return browser


def texts(page: Page, selector: str) -> list[str]:
    """The texts of all elements that are to be seen."""
    found: list[str] = page.js(f"all({selector!r}).filter(e => e.checkVisibility()).map(e => e.innerText)")
    return found


def click(page: Page, selector: str) -> None:
    page.js(f"all({selector!r})[0].click()")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_no_message_no_request_and_no_serious_violation(browser: Page, file: Path, dark: bool) -> None:
    browser.open(file, dark=dark)
    browser.js("all('details').forEach(one => one.open = true)")
    browser.draw_all()
    assert browser.violations() == []
    browser.gather()
    assert browser.messages == []
    assert browser.requests == [file.as_uri()]


def test_the_worst_samples_are_pictures_with_objects_and_curves(page: Page) -> None:
    here = ".layers:not([hidden]) .samples"
    assert page.js(f"all('{here} svg').map(s => s.getAttribute('aria-label'))") == [
        f"{panel.title} of sample 17" for panel in VIEWS[0].panels
    ]
    sizes = page.driver.execute_async_script(
        "const done = arguments[0]; Promise.all([...document.querySelectorAll('.samples image')].map(async i => {"
        "const p = new Image(); p.src = i.getAttribute('href'); await p.decode(); return p.naturalWidth})).then(done)"
    )
    assert sizes == [8] * 4  # Two pictures of each variant.
    sides = "['x', 'y', 'width', 'height'].map(name => r[name].baseVal.value)"
    left, top, width, height = page.js(f"all('{here} .box rect').map(r => {sides})")[0]
    assert (left, top, width, height) == pytest.approx((0.8, 1.6, 4, 2), abs=0.01)
    (first, second) = page.js(f"all('{here} polyline').map(p => p.points.numberOfItems)")
    assert first == second == 3
    colours = page.js(f"all('{here} polyline').map(p => getComputedStyle(p).stroke)")
    assert len(set(colours)) == 2
    assert "none" not in colours


def test_a_request_and_a_message_would_be_seen(browser: Page, tmp_path: Path) -> None:
    other = tmp_path / "other.html"
    other.write_text("<title>x</title><p style='color:#eee;background:#fff'>pale<img src='gone.png'>")
    browser.open(other)
    browser.gather()
    assert browser.requests == [other.as_uri(), (tmp_path / "gone.png").as_uri()]
    assert browser.messages
    assert any("color-contrast" in one for one in browser.violations())


def test_every_chart_is_drawn_and_described(page: Page) -> None:
    page.draw_all()
    assert page.js("all('figure.chart .plot').map(p => p.getAttribute('role'))") == ["img"] * 11
    names = page.js("all('figure.chart:not([hidden])').map(f => f.dataset.chart)")
    says = dict(zip(names, page.js("all('figure.chart .plot').map(p => p.getAttribute('aria-label'))"), strict=True))
    check_golden("report-html/charts-described", "\n".join(f"{name}: {label}" for name, label in says.items()))
    assert page.js("all('[data-figure=size] .main-svg .annotation-text').map(t => t.textContent)") == ["commit2"] * 2
    assert page.js("document.title") == "2 failed · MNN quantization"


@pytest.mark.parametrize("spread", [0.1, 1, 5], ids=["flat", "a decade", "five decades"])
def test_the_axis_of_a_distribution_has_numbers(browser: Page, tmp_path: Path, spread: float) -> None:
    found = records([layer("conv")], modes=["eval"])
    bars = tuple(int(2000 * 10 ** (-spread * place / 50)) for place in range(50))
    weights = ChartSamples(weights={"conv": WeightHistogram(-1.0, 1.0, bars, bars)})
    found = [dataclasses.replace(one, charts=weights) if one.check.check == "weights" else one for one in found]
    write_report(build_report(found, {}), tmp_path / "r.html")
    browser.open(tmp_path / "r.html")
    browser.draw_all()
    ticks = [float(text) for text in browser.js("all('[data-chart=weights] .ytick text').map(t => t.textContent)")]
    assert len(ticks) > 2
    assert ticks == sorted(ticks)  # 0.02 is not written as "2"


def test_the_axis_of_coverage_ends_at_all(page: Page) -> None:
    page.draw_all()
    low, high = page.js("all('[data-figure=coverage] .plot')[0].layout.yaxis.range")
    assert low < high == 1
    assert page.js("all('[data-figure=size] .plot')[0].layout.yaxis.range")[1] > 130


def test_scales_far_apart_are_told_without_a_long_percentage(page: Page) -> None:
    said = "modes({model: {modes: [{recipe: 'int8', changes: {a: 0.08, b: CHANGE}}]}, colours: COLOURS.light}).says"
    check_golden("report-html/scales-far-apart", page.js(said.replace("CHANGE", "8.9")))
    check_golden("report-html/scales-very-far-apart", page.js(said.replace("CHANGE", "3e5")))


def test_the_map_is_to_scale(page: Page) -> None:
    page.draw_all()
    found = page.js(f"{SLICES}.map(p => [p.__data__.data.id, p.getBBox().width * p.getBBox().height])")
    areas = {name: area for name, area in found if "/" in name}  # the root has a name of plotly's own
    sizes = {one.name: one.bytes for one in LAYERS}
    assert set(areas) == set(sizes)
    whole, total = sum(areas.values()), sum(sizes.values())
    for name, size in sizes.items():
        assert areas[name] / whole == pytest.approx(size / total, rel=0.03, abs=0.001)


def test_names_are_text_in_charts_too(page: Page) -> None:
    page.draw_all()
    assert any("<b>粗</b>" in text for text in page.js("all('[data-chart=map] text').map(t => t.textContent)"))


def test_layers_left_float_stand_out_in_the_map(page: Page) -> None:
    page.draw_all()
    hatched = page.js(f"{SLICES}.filter(p => p.style.fill.includes('url')).map(p => p.__data__.data.id)")
    assert hatched == ["/head/left"]


def test_sorting_by_mouse_goes_up_then_down_and_says_so(page: Page) -> None:
    heading = ".layers:not([hidden]) thead th:nth-child(7)"
    sizes = [f"{size:,}" for size in sorted(one.bytes for one in LAYERS)]
    for order, wanted in (("ascending", sizes), ("descending", sizes[::-1])):
        click(page, f"{heading} button")
        assert page.js(f"all({heading!r})[0].getAttribute('aria-sort')") == order
        assert texts(page, f"{ROWS} td:nth-child(7)") == wanted
    click(page, ".layers:not([hidden]) thead th:nth-child(1) button")
    assert page.js(f"all({heading!r})[0].getAttribute('aria-sort')") == "none"


def test_what_was_not_measured_is_sorted_last_both_ways(page: Page) -> None:
    page.js("all('.layers:not([hidden]) tbody tr')[3].cells[7].removeAttribute('data-value')")
    name = page.js("all('.layers:not([hidden]) tbody tr')[3].cells[0].innerText")
    for _ in range(2):
        click(page, ".layers:not([hidden]) thead th:nth-child(8) button")
        assert texts(page, f"{ROWS} th")[-1] == name


def test_search_finds_rows_findings_and_rules(page: Page) -> None:
    box = page.driver.find_element("id", "search")
    box.send_keys("第7层 as requested")
    page.wait("document.getElementById('found').textContent")
    assert texts(page, f"{ROWS} th") == ["blocks.7\n/卷积/第7层"]
    assert texts(page, ".finding") == []
    check_golden("report-html/rows-found", texts(page, "#found")[0])
    box.clear()
    box.send_keys("MNQ401")
    page.wait("document.querySelectorAll('.finding:not([hidden])').length === 1")
    assert texts(page, ".rule summary") == ["MNQ401 layer-is-float"]
    from selenium.webdriver.common.keys import Keys

    box.send_keys(Keys.ESCAPE)
    page.wait(f"document.querySelectorAll({ROWS!r}).length === {len(LAYERS)}")


def test_everything_is_reached_by_keyboard(page: Page) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    reached = set()
    for _ in range(90):
        ActionChains(page.driver).send_keys(Keys.TAB).perform()
        reached.add(page.js("document.activeElement.className || document.activeElement.id"))
    assert reached >= {"skip", "search", "theme", "print", "sort", "scroll", "code", "variant", "layer", "pick"}
    page.js("return all('.layers:not([hidden]) .pick')[4].focus()")
    ActionChains(page.driver).send_keys(Keys.ENTER).perform()
    picked = page.js("all('.layers:not([hidden]) .pick')[4].value")
    assert page.js("document.querySelector('select.layer').value") == picked
    ActionChains(page.driver).send_keys("/").perform()
    assert page.js("document.activeElement.className") == "layer"  # typing in a list is not the short cut
    page.js("return document.activeElement.blur()")
    ActionChains(page.driver).send_keys("/").perform()
    assert page.js("document.activeElement.id") == "search"


def test_the_chosen_variant_and_layer_are_what_the_charts_show(page: Page) -> None:
    page.draw_all()
    assert page.js("document.querySelector('select.layer').value") == "/head/left"  # what is wrong is shown first
    page.js("const s = all('select.variant')[0]; s.value = 1; s.dispatchEvent(new Event('change')); return 0")
    (caption,) = texts(page, ".layers caption")
    check_golden("report-html/caption-of-layers", caption)
    assert "int8-eval" in page.js("document.querySelector('[data-chart=map] .plot').getAttribute('aria-label')")
    page.js(f"return all('.layers:not([hidden]) .pick').find(b => b.value === {HOSTILE!r}).click()")
    for chart in ("weights", "activations"):
        assert HOSTILE in page.js(f"document.querySelector('[data-chart={chart}] .plot').getAttribute('aria-label')")


def test_a_variant_without_a_model_beside_one_that_has_one(browser: Page, tmp_path: Path) -> None:
    found = records(LAYERS)
    for place, record in enumerate(found):
        if record.variant.mode == "eval":
            without = dataclasses.replace(record.variant, quantized=None, layers=())
            found[place] = dataclasses.replace(record, variant=without, charts=ChartSamples())
    write_report(build_report(found, {}), tmp_path / "r.html")
    browser.open(tmp_path / "r.html")
    browser.draw_all()
    browser.js("const s = all('select.variant')[0]; s.value = 1; s.dispatchEvent(new Event('change')); return 0")
    (instead,) = texts(browser, "[data-chart=map] .nothing")
    check_golden("report-html/no-layer-in-the-map", instead)
    check_golden("report-html/no-layers-to-show", texts(browser, "div.layers")[0])
    assert browser.js("all('[data-chart=weights] .plot').length") == 0
    browser.gather()
    assert browser.messages == []


def test_the_theme_is_switched_and_kept(page: Page, file: Path) -> None:
    page.draw_all()
    shades = []
    for name in ("light", "dark"):
        click(page, "#theme")
        assert texts(page, "#theme") == [f"Theme: {name}"]
        shades.append(page.js("[getComputedStyle(document.body).backgroundColor, "
                              "document.querySelector('.plot .xtick text').style.fill]"))  # fmt: skip
    assert shades == [["rgb(255, 255, 255)", "rgb(26, 31, 36)"], ["rgb(15, 20, 25)", "rgb(230, 237, 243)"]]
    page.open(file)
    assert texts(page, "#theme") == ["Theme: dark"]
    click(page, "#theme")
    assert texts(page, "#theme") == ["Theme: system"]


def test_places_stand_side_by_side(browser: Page, tmp_path: Path) -> None:
    found = records([layer("conv")], modes=["eval"])
    (place,) = (place for place, one in enumerate(found) if one.check.check == "accuracy")
    check = dataclasses.replace(found[place].check, metrics=accuracy(task("top-1", 0.9, 0.8)))
    found[place] = here = dataclasses.replace(found[place], check=check)
    variant = dataclasses.replace(here.variant, target=HOSTILE, layers=())
    there = dataclasses.replace(here, variant=variant, charts=ChartSamples(), order=len(found))
    write_report(build_report([*found, there], {}), tmp_path / "r.html")
    browser.open(tmp_path / "r.html")
    assert texts(browser, ".places thead th") == ["variant", "target", "top-1", "latency"]
    assert texts(browser, ".places tbody td") == ["int8-eval", "float", "0.9000", "",
                                                  "", "host", "0.8000", "0.50x", "", HOSTILE, "0.8000", ""]  # fmt: skip
    assert browser.violations() == []


def test_a_link_to_a_rule_opens_its_page(page: Page) -> None:
    click(page, "a[href='#rule-MNQ401']")
    page.wait("document.getElementById('rule-MNQ401').open")
    assert "Why it happens" in texts(page, "#rule-MNQ401")[0]


def test_nothing_is_wider_than_a_phone(browser: Page, file: Path) -> None:
    browser.open(file, PHONE)
    browser.draw_all()
    assert browser.js("document.documentElement.scrollWidth") == PHONE[0]
    assert browser.js("all('.plot .main-svg').every(s => s.getBoundingClientRect().right <= 390)")


def test_it_is_printed_with_charts_that_nobody_has_looked_at(page: Page) -> None:
    page.driver.execute_async_script("const done = arguments[0]; load().then(() => done(0))")
    page.js(SEE_PRINTED)
    paper = page.printed()
    assert paper.startswith(b"%PDF")
    plots, folded, widths = page.js("window.seen")
    assert plots >= 11
    assert folded == 0
    assert max(widths) <= 740  # of a page of 8.5 inches with its margins
    assert page.js("all('details:not([open])').length") > 0  # and as it was, afterwards


def test_a_thousand_layers_open_at_once(browser: Page, tmp_path: Path) -> None:
    path = tmp_path / "large.html"
    found = records([layer(f"/blocks/blocks.{place}/conv/Conv_output_0", place) for place in range(1000)])
    write_report(build_report(found, {}), path)
    browser.open(path)
    seconds = browser.js("performance.getEntriesByType('navigation')[0].loadEventEnd") / 1000
    assert 0 < seconds < 6  # 0.3 s on an idle machine: benchmarks/report_open.py
    click(browser, ".layers:not([hidden]) thead th:nth-child(1) button")
    assert len(texts(browser, f"{ROWS} th")) == 1000
