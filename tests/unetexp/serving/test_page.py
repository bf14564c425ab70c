"""The page in a real Chromium: an image in, the overlay, the classes and the latency out."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from tests.support.browser import chromium, in_a_browser
from tests.support.serving import BrightPixels, PlainSpec, encoded, served
from unetexp.data.painting import paint

pytestmark = in_a_browser
HOSTILE = "<img src=x onerror=alert(1)>"
IMAGE = np.zeros((40, 64, 3), np.uint8)
IMAGE[:, 48:] = 200
DROP = """([name, type, data]) => {
    const bytes = Uint8Array.from(atob(data), letter => letter.charCodeAt(0));
    const transfer = new DataTransfer();
    transfer.items.add(new File([bytes], name, {type}));
    document.body.dispatchEvent(
        new DragEvent("drop", {dataTransfer: transfer, bubbles: true, cancelable: true}));
}"""
PIXELS = """image => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    return [...context.getImageData(0, 0, canvas.width, canvas.height).data];
}"""


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


@pytest.fixture(params=["light", "dark"])
def page(browser, request):
    """The page, which must neither complain nor ask another address."""
    engine = BrightPixels(PlainSpec(class_names=("dark", HOSTILE)))
    with served(engine, max_mb=0.5) as address:
        context = browser.new_context(
            viewport={"width": 1100, "height": 800}, color_scheme=request.param
        )
        context.set_default_timeout(30_000)
        page, complaints, asked = context.new_page(), [], []
        page.on("console", lambda said: complaints.append(said.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        yield page
        refused = [said for said in complaints if "status of 4" not in said]  # Chromium's own words
        assert refused == []
        assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []
        context.close()


def drop(page, name, kind, content):
    page.evaluate(DROP, [name, kind, base64.b64encode(content).decode()])


def shown(page, selector):
    image = page.locator(selector)
    width, height = image.evaluate("image => [image.naturalWidth, image.naturalHeight]")
    return np.array(image.evaluate(PIXELS), np.uint8).reshape(height, width, 4)[..., :3]


def test_a_dropped_image_is_shown_with_its_classes(page):
    drop(page, "x.png", "image/png", encoded(IMAGE))
    page.wait_for_selector("body[data-state=done]")
    labels = (IMAGE[..., 0] >= 128).astype(np.uint8)
    assert (shown(page, "#image") == IMAGE).all()
    assert (shown(page, "#overlay") == paint(IMAGE, labels)).all()
    rows = page.locator("#classes tr").all_inner_texts()
    assert [" ".join(row.split()) for row in rows] == [
        "dark (not painted) 75.0 %",
        f"{HOSTILE} 25.0 %",
    ]
    latency = page.inner_text("#latency")
    assert " ms with the way here and back" in latency
    assert "predict" in latency
    page.locator("#strength").fill("0")
    assert page.locator("#overlay").evaluate("e => getComputedStyle(e).opacity") == "0"
    with page.expect_download() as saved:
        page.click("#save")
    picture = Image.open(io.BytesIO(saved.value.path().read_bytes()))
    assert (np.asarray(picture) == paint(IMAGE, labels)).all()


def test_a_mistake_is_told_and_the_next_image_is_shown(page):
    drop(page, "x.txt", "text/plain", b"no image")
    page.wait_for_selector("body[data-state=failed]")
    assert "neither PNG nor JPEG" in page.inner_text("#error")
    assert page.locator("#found").is_hidden()
    drop(page, "large.png", "image/png", b"\0" * 600_000)
    page.wait_for_function("document.getElementById('error').textContent.includes('0.6 MB')")
    page.set_input_files(
        "#file", {"name": "y.jpg", "mimeType": "image/jpeg", "buffer": encoded(IMAGE, "JPEG")}
    )
    page.wait_for_selector("body[data-state=done]")
    assert page.locator("#error").is_hidden()
    assert "0.5 MB" in page.inner_text("#limits")
