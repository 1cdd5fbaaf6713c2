"""The page in a real browser: every combination is clicked, and read with axe-core.

It runs where Debian's ``chromium`` and ``chromium-driver`` are; axe-core is npm's, found by
FLASHINFER_AXE or in build/page/node_modules. docs/site-page.md says how both are had.
"""

from __future__ import annotations

import base64
import os
import shutil
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import site_of_page as of_page
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait
from site_of_page import Installers, Page, Served, Shown
from typed import Elsewhere

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
AXE = Path(os.environ.get("FLASHINFER_AXE") or ROOT / "build/page/node_modules/axe-core/axe.min.js")
# With it, each command that was clicked is run once more; those of
# test_page_commands.py are the same.
ALL = bool(os.environ.get("FLASHINFER_PAGE_COMMANDS"))
PICTURES = os.environ.get("FLASHINFER_PAGE_PICTURES", "")
REPORT = "torch       2.13.0+cu130 for CUDA 13.0, new C++ ABI\nGPU 0       T4, 7.5, 15.0 GiB\n"

pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="there is no chromium with a chromedriver"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser: webdriver.Chrome, served: Served, site: Path) -> webdriver.Chrome:
    """The page, in a window of a usual size, in the light."""
    look(browser, 1200, "light")
    browser.get(f"{served.url}/{urllib.parse.quote(site.name)}/index.html")
    return browser


def look(browser: webdriver.Chrome, width: int, colours: str) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    feature = {"name": "prefers-color-scheme", "value": colours}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


def option(browser: webdriver.Chrome, name: str, value: str) -> WebElement:
    return browser.find_element(By.CSS_SELECTOR, f"input[name='{name}'][value='{value}']")


def text_of(browser: webdriver.Chrome, place: str) -> str:
    element = browser.find_element(By.ID, place)
    return str(element.get_property("textContent")) if element.is_displayed() else ""


def wait_for(browser: webdriver.Chrome, place: str, text: str) -> None:
    element = browser.find_element(By.ID, place)
    WebDriverWait(browser, 30).until(lambda _: text in str(element.get_property("textContent")))


def clicked(browser: webdriver.Chrome, page: Page) -> list[Shown]:
    """What is shown after each choice was clicked."""
    found = []
    for picked in page.choices():
        for name, value in picked.items():
            element = option(browser, name, value)
            if not element.is_selected():
                element.click()
        files = browser.find_elements(By.CSS_SELECTOR, "#takes a")
        command = text_of(browser, "command")
        named = [link.text for link in files] if command else []
        assert bool(command) != bool(text_of(browser, "reason")), picked
        found.append(Shown(picked, command, named))
    return found


def test_every_combination_is_clicked(
    opened: webdriver.Chrome, site: Path, served: Served, top: Path
) -> None:
    page = Page((site / "index.html").read_text())
    address = f"{served.url}/{urllib.parse.quote(site.name, safe='')}"
    found = clicked(opened, page)
    assert [one.picked for one in found] == page.choices()
    assert sum(bool(one.command) for one in found) == 24
    plain = {one.command: one.files for one in page.shown_without_script(address)}
    for one in found:
        if one.command and one.picked["client"] != "uv-project":
            assert one.files[0] == plain[one.command][0]
    if of_page.has_node():
        assert found == page.shown_under_node(address)
    if ALL or not of_page.has_node():
        installers = Installers(top, served, Elsewhere(top / "elsewhere"))
        commands = [(one.picked["client"], one.command) for one in found if one.command]
        taken = installers.taken(commands)
        for one in found:
            assert not one.command or taken[one.command] == set(one.files), one
    assert opened.get_log("browser") == []


def test_what_there_is_not_offers_what_there_is(opened: webdriver.Chrome) -> None:
    for name, value in (("cuda", "12.6"), ("torch", "2.4")):
        option(opened, name, value).click()
    reason = opened.find_element(By.ID, "reason")
    assert "There is no build for CUDA 12.6 and torch 2.4." in reason.text
    assert text_of(opened, "said") == "There is no build for CUDA 12.6 and torch 2.4."
    assert [button.text for button in reason.find_elements(By.TAG_NAME, "button")] == [
        "CPU",
        "2.9",
        "2.13",
    ]
    reason.find_elements(By.TAG_NAME, "button")[1].click()
    assert "flashinfer==0.1.6+cu126torch2.9" in text_of(opened, "command")
    assert opened.switch_to.active_element.get_attribute("id") == "command"


def test_a_report_is_pasted(opened: webdriver.Chrome) -> None:
    opened.find_element(By.CSS_SELECTOR, "#paste summary").click()
    area = opened.find_element(By.ID, "report")
    area.send_keys(REPORT.splitlines()[0])
    assert "cu130torch2.13" in text_of(opened, "command")
    assert "It fits what was pasted." in text_of(opened, "takes")
    area.clear()
    area.send_keys(REPORT)
    # GPU code is not in the toys, so nothing is said of the GPU; another torch is.
    option(opened, "torch", "2.9").click()
    option(opened, "client", "conda").click()
    assert "built for torch 2.9, and the torch there is 2.13" in text_of(opened, "reason")
    area.clear()
    area.send_keys("hello")
    wait_for(opened, "found", "Nothing in this text is known here.")


def test_the_keyboard_does_it_all(opened: webdriver.Chrome) -> None:
    """Tab from group to group, arrows within one; the command is copied, and that is said."""
    opened.execute_cdp_cmd("Browser.grantPermissions", {"permissions": ["clipboardReadWrite"]})

    def press(*keys: str) -> WebElement:
        ActionChains(opened).send_keys(*keys).perform()
        return opened.switch_to.active_element

    assert press(Keys.TAB).text == "To all files"
    seen = []
    for _ in ("client", "cuda"):
        element = press(Keys.TAB)
        seen.append(element.get_attribute("name"))
        outline = opened.execute_script(
            "return getComputedStyle(arguments[0].nextElementSibling).outlineStyle", element
        )
        assert outline == "solid"
    assert seen == ["client", "cuda"]
    before = text_of(opened, "command")
    assert press(Keys.ARROW_LEFT).get_attribute("name") == "cuda"
    assert text_of(opened, "command") == before.replace("cu130", "cu126")
    assert press(Keys.TAB).get_attribute("name") == "torch"
    assert press(Keys.TAB).get_attribute("id") == "command"
    assert press(Keys.TAB).get_attribute("id") == "copy"
    press(Keys.ENTER)
    wait_for(opened, "said", "Copied")
    assert opened.execute_script("return navigator.clipboard.readText()") == text_of(
        opened, "command"
    )


@pytest.mark.parametrize("width", [360, 1200])
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_it_is_readable(opened: webdriver.Chrome, width: int, colours: str) -> None:
    """Nothing is cut off at the side, in any state; axe-core finds nothing."""
    look(opened, width, colours)
    states = [("cuda", "13.0"), ("torch", "2.4"), ("torch", "2.13"), ("client", "uv-project")]
    for name, value in states:
        option(opened, name, value).click()
        picture(opened, f"{width}-{colours}-{value}")
        _check(opened, width)
    opened.execute_script(
        "document.querySelectorAll('details').forEach((one) => { one.open = true })"
    )
    _check(opened, width)
    # A table to whoever hears it, also where its rows are laid out below each other.
    tree = opened.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    roles = [node["role"]["value"] for node in tree if not node.get("ignored")]
    rows = opened.find_elements(By.CSS_SELECTOR, "tbody tr")
    assert roles.count("row") == len(rows) + 1
    assert roles.count("rowheader") == len(rows)
    assert roles.count("columnheader") == 9


def _check(browser: webdriver.Chrome, width: int) -> None:
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    if AXE.is_file():
        browser.execute_script(AXE.read_text())
        found: dict[str, Any] = browser.execute_async_script(
            "axe.run().then(arguments[arguments.length - 1])"
        )
        assert [
            (item["id"], node["html"]) for item in found["violations"] for node in item["nodes"]
        ] == []
        assert len(found["passes"]) > 20


@pytest.mark.skipif(not AXE.is_file(), reason="axe-core of npm is not there")
def test_axe_notices(opened: webdriver.Chrome) -> None:
    """It is asked indeed: what is wrong is found."""
    opened.execute_script("document.querySelector('#report').labels[0].remove()")
    opened.execute_script("document.querySelector('#paste').open = true")
    with pytest.raises(AssertionError, match="label"):
        _check(opened, 1200)


def test_without_a_script_it_is_a_table(opened: webdriver.Chrome) -> None:
    opened.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        opened.refresh()
        assert not opened.find_element(By.ID, "choose").is_displayed()
        assert opened.find_element(By.ID, "without").is_displayed()
        row = opened.find_element(By.CSS_SELECTOR, "tbody tr")
        row.find_element(By.TAG_NAME, "summary").click()
        assert row.find_element(By.TAG_NAME, "pre").text.startswith("pip install ")
        picture(opened, "1200-light-without")
    finally:
        opened.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def picture(browser: webdriver.Chrome, name: str) -> None:
    if PICTURES:
        data = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})["data"]
        Path(PICTURES, f"{name}.png").write_bytes(base64.b64decode(data))
