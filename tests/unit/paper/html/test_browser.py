"""The page in a real browser: Debian's chromium and chromium-driver."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.commands("chromium", "chromedriver")]


@pytest.fixture(scope="module")
def browser(written):
    from helpers.browser import opened

    with opened(written) as driver:
        yield driver


@pytest.fixture(autouse=True)
def at_the_top(browser):
    browser.execute_script("document.getElementById('source').hidePopover?.(); window.scrollTo(0, 0)")


def wait(browser, condition, what):
    from selenium.webdriver.support.wait import WebDriverWait

    return WebDriverWait(browser, 60).until(lambda driver: driver.execute_script(f"return {condition}"), what)


def test_everything_is_drawn_without_an_error_or_the_network(browser):
    from helpers.browser import draw_everything, requested

    draw_everything(browser)
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    assert {address.partition(":")[0] for address in requested(browser)} <= {"file", "data", "blob"}


def test_a_heading_sorts_its_table(browser):
    column = (
        "[...document.querySelectorAll('#table1 thead th')].findIndex((th) => th.textContent === 'Average Sparsity')"
    )
    index = browser.execute_script(f"return {column}")
    shown = f"[...document.querySelectorAll('#table1 tbody tr')].map((tr) => tr.cells[{index}].dataset.sort)"
    before = browser.execute_script(f"return {shown}")
    numbers = sorted(float(each) for each in before if each)
    for order in (list(reversed(numbers)), numbers):
        browser.execute_script(f"document.querySelectorAll('#table1 thead th')[{index}].click()")
        filled = f"{shown}.filter(Boolean).map(Number)"
        wait(browser, f"JSON.stringify({filled}) === JSON.stringify({order})", f"not sorted as {order}")
    assert sorted(browser.execute_script(f"return {shown}")) == sorted(before)


def test_hovering_a_point_tells_its_run_and_seed(browser, seeds_results):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    browser.execute_script("document.getElementById('frontier').scrollIntoView()")
    wait(browser, "document.querySelector('#frontier .mark-symbol path') !== null", "no point is drawn")
    points = browser.find_elements(By.CSS_SELECTOR, "#frontier figure:first-of-type .mark-symbol.role-mark path")
    ActionChains(browser).move_to_element(points[-1]).perform()
    told = wait(browser, "document.getElementById('vg-tooltip-element')?.innerText", "no tooltip")
    assert "Progressive λ (ProSparse)" in told
    words = told.split()
    seed = int(words[words.index("Seed") + 1])
    found = seeds_results.results.sparsity("progressive", "fatrelu-0.03").sparsity.seeds
    assert f"{found[seeds_results.experiment.seeds.index(seed)]:.2f}" in words


def test_every_entry_of_the_contents_leads_to_its_section(browser):
    from selenium.webdriver.common.by import By

    for link in browser.find_elements(By.CSS_SELECTOR, "nav a"):
        target = link.get_attribute("href").partition("#")[2]
        link.click()
        top = browser.execute_script("return document.getElementById(arguments[0]).getBoundingClientRect().top", target)
        bottom = browser.execute_script("return innerHeight - 1 + scrollY === document.body.scrollHeight")
        assert -2 <= top <= 900 or bottom, target


def test_a_number_shows_the_measurements_behind_it(browser, seeds_results):
    browser.execute_script("document.querySelector('#table8 a.ours').click()")
    shown = wait(browser, "document.getElementById('source').matches(':popover-open') && source.innerText", "not open")
    run = browser.execute_script("return document.querySelector('#table8 a.ours').getAttribute('href')").split("/")[1]
    for seed in seeds_results.experiment.seeds:
        assert f"measurements/{run}/seed{seed}/sparsity.json: code synthetic" in shown
    assert "processor Imaginary CPU, 2 cores" in shown
    for link in browser.execute_script("return [...source.querySelectorAll('a')].map((a) => a.getAttribute('href'))"):
        assert (seeds_results.directory / link).is_file()


def test_what_is_missing_says_why(browser):
    browser.execute_script("document.querySelector('#table1 button.missing').click()")
    shown = wait(browser, "document.getElementById('source').matches(':popover-open') && source.innerText", "not open")
    assert "missing" in shown


def test_search_keeps_what_holds_the_words(browser):
    from selenium.webdriver.common.by import By

    field = browser.find_element(By.ID, "search")
    visible = "[...document.querySelectorAll('.table tbody tr')].filter((row) => row.checkVisibility()).length"
    every = browser.execute_script(f"return {visible}")
    field.send_keys("ReluLLaMA-13B")
    left = browser.execute_script(f"return {visible}")
    assert 0 < left < every / 4
    assert not browser.execute_script("return document.getElementById('layers').checkVisibility()")
    for _ in range(20):
        field.send_keys("\b")
    assert browser.execute_script(f"return {visible}") == every


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out(browser, scheme):
    from helpers.browser import CONTRASTS, prefer

    prefer(browser, scheme)
    found = browser.execute_script(CONTRASTS)
    assert len(found) > 1000
    assert [(text, round(contrast, 2)) for text, contrast in found if contrast < 4.5] == []


def test_a_screenshot_is_small_enough_for_a_readme(written, tmp_path):
    from helpers.screenshot import HEIGHT, WIDTH, screenshot

    image = tmp_path / "page.png"
    screenshot(written, image)
    header = image.read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    assert (int.from_bytes(header[16:20]), int.from_bytes(header[20:24])) == (WIDTH, HEIGHT)
    assert 50_000 < image.stat().st_size < 300_000


def test_a_phone_scrolls_in_one_direction(browser):
    from helpers.browser import narrow

    narrow(browser, 390)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
    wide = browser.execute_script(
        "return [...document.querySelectorAll('main *')].filter((each) => !each.closest('.scroll, .chart, pre')"
        " && each.getBoundingClientRect().right > 391).map((each) => each.outerHTML.slice(0, 80))"
    )
    assert wide == []
