"""The page in headless Chromium, by its debugging protocol: it draws, obeys keys, fetches nothing and has no error."""

import contextlib
import json
import os
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest

from dipmed.places import Places
from dipmed.report.page import Page, Part, Sampling, Scores, save_page
from dipmed.report.viewer import Layer, pack
from dipmed.scan import ImageVolume

BREAKING_OUT = "</script><script>document.title='run'</script><img src='http://127.0.0.1:9/x.png'>"


class Browser:
    """One tab; ``events`` are what the browser said by itself."""

    def __init__(self, process):
        self.process, self.events, self.number, self.session = process, [], 0, {}
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = {"sessionId": self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}

    def call(self, method, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters, **self.session}
        self.process.stdin.write(json.dumps(message).encode() + b"\0")
        self.process.stdin.flush()
        while True:
            answer = self.read()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def read(self):
        text = bytearray()
        while (letter := self.process.stdout.read(1)) not in (b"\0", b""):
            text += letter
        return json.loads(text)

    def value(self, expression):
        found = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def press(self, key):
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key)

    def named(self, *methods):
        return [event for event in self.events if event.get("method") in methods]


@pytest.fixture
def browser(tmp_path):
    program = shutil.which("chromium")
    if program is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("chromium is not on the path")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe"]
    # the protocol is spoken over the descriptors 3 and 4
    command = ["sh", "-c", 'exec "$@" 3<&0 4>&1', "sh", program, *options, f"--user-data-dir={tmp_path / 'profile'}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            yield Browser(process)
        finally:
            with contextlib.suppress(OSError):
                process.stdin.write(b'{"id": 0, "method": "Browser.close"}\0')
                process.stdin.flush()
            process.wait(30)


def page_of(*slices):
    """A page of 2 x 2 voxels, each slice of one value, whose texts try to become something else."""
    values = np.stack([np.full((2, 2), value, np.float32) for value in slices], -1)
    values[0, 0] = 0
    layer = Layer(BREAKING_OUT, BREAKING_OUT, "image", ImageVolume(values, np.diag([-1.0, -1.0, 1.0, 1.0])))
    places = Places(tuple((index, index + 1) for index in range(len(slices))), 1, 0)
    return Page(
        title=f"images {BREAKING_OUT}",
        warnings=(BREAKING_OUT,),
        figures=((BREAKING_OUT, BREAKING_OUT),),
        viewer=pack([layer], places),
        parts=tuple(Part(f"part {index} {BREAKING_OUT}", (BREAKING_OUT,)) for index in range(len(slices))),
        sampling=Sampling(BREAKING_OUT),
        remarks=((BREAKING_OUT, (BREAKING_OUT,)),),
        tables=((BREAKING_OUT, ((BREAKING_OUT, BREAKING_OUT),)),),
        all_well="",
        scores=Scores((BREAKING_OUT,), ((BREAKING_OUT,),), BREAKING_OUT),
        identity=((BREAKING_OUT, BREAKING_OUT),),
    )


def comparison_of(errors):
    """A page of two methods whose errors are of one value each, each under its image."""
    page = page_of(1.0, 0.5, 0.25)
    volume = [ImageVolume(np.full((2, 2, 3), value, np.float32), np.eye(4)) for value in errors]
    image = Layer("image", "", "image", ImageVolume(np.ones((2, 2, 3), np.float32), np.eye(4)))
    maps = [Layer("error", "", "map", one, "errors", white=4.0, below=True) for one in volume]
    places = Places(None, 1, 0)
    viewer = pack([image, image, maps[0], image, maps[1]], places)
    return replace(page, viewer=viewer, parts_follow=False)


MIDDLE = """(() => {
  document.querySelector("canvas").scrollIntoView({ block: "center" });
  const box = document.querySelector("canvas").getBoundingClientRect();
  return [(box.left + box.right) / 2, (box.top + box.bottom) / 2];
})()"""
READY = """new Promise((done) => {
  const ask = () => document.getElementById("viewer")?.dataset.ready ? done(true) : setTimeout(ask, 20);
  ask();
})"""
STATE = """[
  document.getElementById("place").textContent,
  [...document.querySelectorAll("[data-part]")].findIndex((part) => !part.hidden),
  [...document.querySelector("canvas").getContext("2d").getImageData(
    ...["width", "height"].map((side) => document.querySelector("canvas")[side] - 1), 1, 1).data],
]"""


def test_a_browser_shows_the_page_and_asks_for_nothing(browser, tmp_path):
    file = tmp_path / "page.html"
    save_page(page_of(1.0, 0.5, 0.25), file)
    for domain in ("Page", "Network", "Runtime", "Log"):
        browser.call(f"{domain}.enable")
    browser.call("Page.navigate", url=file.as_uri())
    assert browser.value(READY)
    # the window is that of the whole volume, from 0 to 1; the middle slice is shown first
    assert browser.value(STATE) == ["slice 1 (2 of 3)", 1, [128, 128, 128, 255]]
    for key, place, grey in [("ArrowDown", 2, 64), ("ArrowDown", 2, 64), ("Home", 0, 255), ("End", 2, 64)]:
        browser.press(key)
        assert browser.value(STATE) == [f"slice {place} ({place + 1} of 3)", place, [grey, grey, grey, 255]]
    x, y = browser.value(MIDDLE)
    browser.call("Input.dispatchMouseEvent", type="mouseWheel", x=x, y=y, deltaX=0, deltaY=-100)
    assert browser.value(STATE)[1] == 1
    assert browser.value("document.title").startswith("images </script>")  # as text, not as what it would have run
    wanted = {event["params"]["request"]["url"] for event in browser.named("Network.requestWillBeSent")}
    assert wanted == {file.as_uri()}
    assert not browser.named("Runtime.exceptionThrown", "Runtime.consoleAPICalled")
    # that this test reads pixels back is a warning
    assert not [event for event in browser.named("Log.entryAdded") if event["params"]["entry"]["level"] == "error"]


NOTES = "[...document.querySelectorAll('figcaption output')].slice(0, 5).map((note) => note.textContent)"
LEAVE = "document.querySelectorAll('canvas')[2].dispatchEvent(new PointerEvent('pointerleave'))"
COLUMNS = """[...document.querySelectorAll('.column')].map(
  (column) => [...column.querySelectorAll('canvas')].map((canvas) => canvas.getAttribute('aria-label')))"""


def test_errors_share_a_window_and_all_fits_are_in_view(browser, tmp_path):
    file = tmp_path / "page.html"
    save_page(comparison_of((1.0, 2.0)), file)
    browser.call("Runtime.enable")
    browser.call("Page.navigate", url=file.as_uri())
    assert browser.value(READY)
    assert browser.value(COLUMNS) == [["image"], ["image", "error"], ["image", "error"]]
    assert browser.value(NOTES) == ["0 to 1", "0 to 1", "0 to 4", "0 to 1", "0 to 4"]
    # a drag over one error, to the right and down, is a drag over both; images keep their window
    x, y = browser.value(MIDDLE.replace('querySelector("canvas")', 'querySelectorAll("canvas")[2]'))
    for kind, dx in (("mousePressed", 0), ("mouseMoved", 30), ("mouseReleased", 30)):
        browser.call("Input.dispatchMouseEvent", type=kind, x=x + dx, y=y, button="left", buttons=1, clickCount=1)
    browser.value(LEAVE)
    images, errors = browser.value(NOTES)[:2], browser.value(NOTES)[2::2]
    assert images == ["0 to 1", "0 to 1"]
    assert errors[0] == errors[1] != "0 to 4"
    browser.press("r")
    assert browser.value(NOTES)[2] == "0 to 4"
    assert browser.value("[...document.querySelectorAll('.part')].every((part) => part.clientHeight > 0)")
    assert not browser.named("Runtime.exceptionThrown", "Runtime.consoleAPICalled")


SIZE = "['clientWidth', 'clientHeight'].map((side) => document.querySelector('canvas')[side])"
CORNER = "[...document.querySelector('canvas').getContext('2d').getImageData(0, 0, 1, 1).data]"


def test_slices_are_zoomed_moved_and_put_back(browser, tmp_path):
    file = tmp_path / "page.html"
    save_page(page_of(1.0), file)
    browser.call("Runtime.enable")
    browser.call("Page.navigate", url=file.as_uri())
    assert browser.value(READY)
    black, white = [0, 0, 0, 255], [255, 255, 255, 255]
    (x, y), size = browser.value(MIDDLE), browser.value(SIZE)
    for way_back in (12 * "-", "r"):
        for key in 12 * "+":
            browser.press(key)
        assert browser.value(CORNER) == black  # the middle of the picture stays in the middle
        for kind, share in (("mousePressed", 0.35), ("mouseMoved", -0.35), ("mouseReleased", -0.35)):
            drag = {"x": x + share * size[0], "y": y + share * size[1], "modifiers": 8}  # with shift
            browser.call("Input.dispatchMouseEvent", type=kind, **drag, button="left", buttons=1, clickCount=1)
        assert browser.value(CORNER) == white  # only the last of four voxels is in view
        for key in way_back:
            browser.press(key)
        assert browser.value(CORNER) == black
    assert not browser.named("Runtime.exceptionThrown", "Runtime.consoleAPICalled")
