"""The page of `stepdpo chat --web` in a real Chromium: typed into, read, attacked."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.browser import Browser, Page, browsing, chromium
from support.chats import QUESTIONS, Server, serving, valued
from support.servers import serving as model_server
from support.servers import texts

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(chromium() is None, reason="no Chromium: apt-get install chromium"),
]
EVIL = "<img src=x onerror='window.hacked=1'><script>window.hacked=1</script>"
DONE = "document.querySelector('article')?.dataset.done"
TEXTS = "[...document.querySelectorAll('article:first-of-type .step > span:first-child')].map((one) => one.textContent)"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("profile")) as one:
        yield one


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("chat")
    folder, _, _ = valued(root / "model")
    with serving(folder, "sampler.device=cpu", cwd=root) as one:
        yield one


def asked(page: Page, line: str) -> None:
    """Type a line into the box and wait until it is answered."""
    before = page.run("document.querySelectorAll('article').length")
    page.run("document.getElementById('question').focus()")
    page.type(line)
    page.until(f"document.querySelectorAll('article').length === {before + 1} && {DONE}")


def said_by(server: Server, question: str) -> list[dict[str, Any]]:
    (response,) = server.ask(question)[-1]["responses"]
    steps: list[dict[str, Any]] = response["steps"]
    return steps


def test_a_question_is_answered_with_the_values_of_its_steps(browser: Browser, server: Server) -> None:
    page = browser.page(server.url)
    page.until("document.getElementById('about').textContent.includes('greedy, values by value_head')")
    asked(page, QUESTIONS[0])
    steps = said_by(server, QUESTIONS[0])
    assert page.run(TEXTS) == [step["text"].strip() for step in steps]
    assert page.run("[...document.querySelectorAll('.step .value')].map((one) => one.textContent)") == [
        step["value"] for step in steps
    ]
    hues = page.run("[...document.querySelectorAll('.step')].map((one) => one.style.getPropertyValue('--hue'))")
    assert [int(hue) for hue in hues] == [pytest.approx(120 * step["worth"], abs=1) for step in steps]
    assert page.run("getComputedStyle(document.querySelector('.step')).backgroundColor") != "rgba(0, 0, 0, 0)"
    assert page.run("document.querySelector('.answer').textContent").startswith(("answer: ", "no answer found"))
    assert "tokens written" in page.run("document.querySelector('.cost').textContent")
    assert browser.complaints == []


def test_commands_in_the_box(browser: Browser, server: Server) -> None:
    page = browser.page(server.url)
    asked(page, "/decode step_beam beams=2 expand=2 scorer=value_head")
    page.until("document.getElementById('about').textContent.includes('step_beam beams=2 expand=2')")
    asked(page, QUESTIONS[1])
    assert page.run(TEXTS) == [step["text"].strip() for step in said_by(server, QUESTIONS[1])]
    asked(page, "/decode vot")
    assert "did you mean 'vote'?" in page.run("document.querySelector('article .error').textContent")
    asked(page, "/decode greedy scorer=none")
    assert browser.complaints == []


def test_an_answer_is_stopped(browser: Browser, server: Server) -> None:
    """By the button, in the midst of many samples; the next question is answered."""
    page = browser.page(server.url)
    asked(page, "/decode sample n=1500 max_tokens=400 temperature=2")
    page.run("document.getElementById('question').focus()")
    page.type(QUESTIONS[0])
    page.until("/tokens written/.test(document.querySelector('.cost').textContent)")
    page.run("document.getElementById('ask').click()")
    page.until("document.querySelector('.cost').textContent === 'stopped'")
    asked(page, "/decode greedy scorer=none")
    asked(page, QUESTIONS[0])
    assert page.run("document.querySelectorAll('article:first-of-type .step').length") > 0


def test_texts_are_never_markup(browser: Browser, tmp_path: Path) -> None:
    """A model that writes markup, a question that holds some."""
    written = f"Step 1: {EVIL}\nStep 2: <b>b</b>\nThe answer is: {EVIL}"
    with model_server(lambda *_: texts(written)) as served:
        words = ["sampler=openai", f"sampler.server.url={served.url}"]
        with serving("tinymath", *words, cwd=tmp_path) as server:
            page = browser.page(server.url)
            asked(page, f"What is {EVIL}?")
            assert page.run("document.querySelector('.question').textContent") == f"What is {EVIL}?"
            assert page.run(TEXTS) == [f"Step 1: {EVIL}", f"Step 2: <b>b</b>\nThe answer is: {EVIL}"]
            assert page.run("document.querySelectorAll('main img, main script, main b').length") == 0
            assert page.run("window.hacked") is None
            # And were one of them to become markup after all, the page's policy lets no script of it run.
            page.run(f"document.querySelector('main').insertAdjacentHTML('beforeend', {json.dumps(EVIL)})")
            page.run("new Promise((done) => setTimeout(done, 300))")
            assert page.run("window.hacked") is None
    assert any("Content Security Policy" in one for one in browser.complaints)
    browser.complaints.clear()


@contextmanager
def other_page() -> Iterator[str]:
    """A page of another origin."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>other</title><body></body>")

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as one:
        threading.Thread(target=one.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{one.server_address[1]}/"
        one.shutdown()


def test_another_page_neither_asks_nor_reads_nor_frames(browser: Browser, server: Server) -> None:
    """Even one that knows the token."""
    address = f"http://{server.host}"
    server.ask("/decode vote n=3")
    with other_page() as other:
        page = browser.page(other)
        body = json.dumps(json.dumps({"question": "/decode greedy"}))
        ours = f"{{'Content-Type': 'application/json', 'Authorization': 'Bearer {server.token}'}}"
        for how in (
            f"fetch('{address}/ask', {{method: 'POST', body: {body}, headers: {ours}}})",
            f"fetch('{address}/ask', {{method: 'POST', body: {body}}})",
            f"fetch('{address}/')",
        ):
            assert page.run(f"{how}.then(() => 'read', () => 'refused')") == "refused"
        blind = f"fetch('{address}/ask', {{method: 'POST', mode: 'no-cors', body: {body}}})"
        assert page.run(f"{blind}.then((reply) => reply.type, () => 'refused')") in ("opaque", "refused")
        page.run(
            f"new Promise((done) => {{ const frame = document.createElement('iframe'); frame.src = '{server.url}'; "
            "frame.onload = done; document.body.append(frame); })"
        )
        framed = page.call("Page.getFrameTree")["frameTree"]["childFrames"][0]["frame"]
        assert framed.get("unreachableUrl") or framed["url"].startswith("chrome-error:")
    assert "vote n=3" in server.ask("/about")[0]["text"]
    browser.complaints.clear()


def test_without_the_token_the_page_says_what_to_open(browser: Browser, server: Server) -> None:
    page = browser.page(f"http://{server.host}/")
    page.until("document.getElementById('about').textContent.includes('no token: open the address that')")
    browser.complaints.clear()
