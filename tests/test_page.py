"""The server's page, in a headless Chromium: live filling, side by side, errors, hostile text."""

import copy
import threading

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("openai")
from browser import Browser, needs_chromium  # noqa: E402
from test_serve import LIMITS, alone, chatty, idle, serving, soon  # noqa: E402
from toy import altered  # noqa: E402

HOSTILE = "</script><img src=x onerror=\"document.title='caught'\"><!--\u2028\u202e"
pytestmark = needs_chromium


@pytest.fixture(scope="module")
def browser():
    browser = Browser()
    yield browser
    browser.close()


@pytest.fixture
def visit(browser):
    """Opens the page of a server; nothing may have gone wrong there at the end."""

    def visit(server):
        browser.resize(1000, 800)
        browser.open(f"http://127.0.0.1:{server.port}/")
        return browser

    yield visit
    refused = "Failed to load resource: the server responded with a status of 4"
    assert [error for error in browser.errors if not error.startswith(refused)] == []


@pytest.fixture(scope="module")
def server():
    with serving(chatty()) as found:
        yield found


def ask(browser, **fields):
    for name, value in fields.items():
        browser.run(f"document.getElementById({name!r}).value = {value!r}")
    browser.run("document.getElementById('decode').click()")


def ended(browser):
    return soon(lambda: browser.run("document.getElementById('stop').disabled"))


def texts(browser):
    return browser.run("viewer.panels.map(panel => panel.text.textContent.trim())")


def notes(browser):
    return browser.run("[...document.querySelectorAll('.note')].map(one => one.textContent)")


def gated(model):
    """The model, and a semaphore: each of its forwards waits for a release."""
    gate = threading.Semaphore(0)

    def wait(logits):
        gate.acquire(timeout=60)
        return logits

    return altered(model, wait), gate


def test_two_canvases_fill_live_side_by_side_and_can_be_scrubbed_afterwards(visit):
    model, gate = gated(chatty())
    with serving(model) as server:
        browser = visit(server)
        ask(browser, prompt="w5 w6 w7", left="vanilla", right="threshold,threshold=0.0")
        assert soon(lambda: texts(browser) == ["░" * 16] * 2)
        left, right = browser.run(
            "[...document.querySelectorAll('section')].map(one => one.getBoundingClientRect().top)"
        )
        assert left == right
        gate.release(4)
        assert soon(lambda: browser.run("viewer.step") >= 3)
        assert 12 <= texts(browser)[0].count("░") <= 13 and "░" not in texts(browser)[1]
        browser.press("Home")
        gate.release(100)
        assert ended(browser) and browser.run("[viewer.step, viewer.last]") == [0, 16]
    assert texts(browser) == ["░" * 16] * 2  # who looks back is not carried away
    browser.press("End")
    prompt = [{"role": "user", "content": "w5 w6 w7"}]
    singles = [alone(prompt, "vanilla"), alone(prompt, threshold=0.0)]
    assert texts(browser) == ["".join(out.texts[0].split()) for out in singles]
    assert "NFE 16 of 16" in browser.run("viewer.panels[0].facts.textContent")
    assert "NFE 1 of 1" in browser.run("viewer.panels[1].facts.textContent")


def test_hovering_a_token_tells_its_history(server, visit):
    browser = visit(server)
    ask(browser, prompt="w5 w6 w7", left="vanilla", right="")
    assert ended(browser) and soon(lambda: browser.run("viewer.step == 16"))
    browser.hover(".text span[data-at='2']")
    told = browser.run("[...viewer.history.querySelectorAll('tr')].map(row => row.textContent)")
    assert "proposed" in told[1] and "written by TopK" in told[-1]
    browser.press("ArrowLeft")
    assert texts(browser)[0].count("░") == 1


def test_keys_that_are_typed_into_a_field_are_text(server, visit):
    browser = visit(server)
    browser.run("document.getElementById('prompt').focus()")
    for key in ("c", " ", "Home", "]"):
        browser.press(key)
    assert browser.run("[viewer.colour.value, viewer.timer]") == ["confidence", 0]
    browser.press("Enter", modifiers=2)  # with Ctrl
    assert ended(browser) and soon(lambda: browser.run("viewer.step > 1"))
    browser.run("document.activeElement.blur()")
    for key in ("c", "Home"):
        browser.press(key)
    assert browser.run("[viewer.colour.value, viewer.step]") == ["step", 0]


def test_hostile_text_is_text(visit):
    model = copy.copy(chatty())
    model.tokenizer = copy.copy(model.tokenizer)
    model.tokenizer.decode = lambda ids, **options: HOSTILE
    with serving(model) as server:
        browser = visit(server)
        browser.run(f"document.getElementById('prompt').value = {HOSTILE!r}")
        ask(browser, left="threshold", right=f"no {HOSTILE}")
        assert ended(browser) and soon(lambda: browser.run("viewer.step > 0"))
        browser.hover(".text span[data-at='2']")
    assert browser.run("document.title") == "dlmdecode"
    assert browser.run("document.images.length") == 0
    assert HOSTILE in texts(browser)[0] and "<img src=x onerror=" in notes(browser)[1]
    assert HOSTILE in browser.run("document.querySelector('.prompt').textContent")


def test_errors_of_the_server_stand_where_the_text_would(server, visit):
    browser = visit(server)
    ask(browser, prompt="w1", left="threshold,threshold=7", right="thresold")
    assert soon(lambda: "threshold=7" in notes(browser)[0] and "did you mean" in notes(browser)[1])
    assert ended(browser)
    ask(browser, left="vanilla,temperature=0", right="wino,depth=1")
    assert ended(browser) and soon(lambda: texts(browser)[0] and "'depth'" in notes(browser)[1])
    with serving(chatty(), api_key="secret") as closed:
        browser = visit(closed)
        ask(browser, prompt="w1", left="vanilla", right="")
        assert soon(lambda: "API key" in notes(browser)[0])
        ask(browser, key="secret")
        assert ended(browser) and texts(browser)[0]


def test_stop_frees_the_places_of_the_texts(visit):
    model, gate = gated(chatty())
    with serving(model, LIMITS) as server:
        browser = visit(server)
        ask(browser, prompt="w1", left="vanilla", right="klass")
        assert soon(lambda: server.pool.num_in_flight() + server.pool.num_waiting() == 2)
        browser.run("document.getElementById('stop').click()")
        assert soon(lambda: notes(browser) == ["stopped"] * 2)
        gate.release(100)
        assert idle(server.pool)


def test_it_fits_a_narrow_screen_in_the_dark(server, visit):
    browser = visit(server)
    browser.resize(360, 700, dark=True)
    ask(browser, prompt="w1 " * 50, left="vanilla", right="threshold," + "threshold=9" * 9)
    assert ended(browser)
    assert browser.run("document.documentElement.scrollWidth") <= 360
    assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(22, 24, 27)"
