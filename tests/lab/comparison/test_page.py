"""The page: one file, and how a browser renders it."""

import asyncio
import html
import json
import re
import shutil
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from app.lab.comparison.claims import COLUMNS, TABLE_OF_FOUR
from app.lab.comparison.page import page
from app.lab.comparison.plan import Plan
from tests.lab.comparison.bills import compared

BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
browser = pytest.mark.skipif(BROWSER is None, reason="There is no Chromium on this machine.")

# The page is in a frame of the requested width: a browser's window has its own minimum width.
MEASURED = """<!doctype html><iframe style="border: 0; width: {width}px; height: 900px" srcdoc="{page}"></iframe>
<pre></pre><script>
onload = () => {{
  const inner = document.querySelector("iframe").contentDocument, root = inner.documentElement;
  const over = [...inner.querySelectorAll("svg text")].filter(text => text.getBoundingClientRect().right > {width} + 1);
  const rows = [...inner.querySelectorAll("svg")].flatMap(svg => {{
    const texts = [...svg.querySelectorAll("text")].map(text => text.getBoundingClientRect());
    return texts.filter((text, place) => place && text.top === texts[place - 1].top &&
      text.left < texts[place - 1].right);
  }});
  document.querySelector("pre").textContent = JSON.stringify({{
    width: root.scrollWidth, over: over.length, overlapping: rows.length,
    ink: getComputedStyle(inner.body).color, paper: getComputedStyle(inner.body).backgroundColor,
    small: Math.min(...[...inner.querySelectorAll("svg text, td")].map(
      each => parseFloat(getComputedStyle(each).fontSize))),
  }});
}};
</script>"""


class Elements(HTMLParser):
    """The elements of a page, and all that it would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.fetched: list[str | None] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.fetched += [value for name, value in attributes if name in ("src", "href", "srcset", "data", "action")]


def words(text: str) -> str:
    """Returns what a person reads."""
    body = text[max(0, text.find("<body>")) :]
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", body)))


def test_it_fetches_nothing() -> None:
    text = page(compared())
    elements = Elements(text)
    assert elements.fetched == []
    assert not {"script", "link", "img", "iframe"} & set(elements.names)
    assert not re.search(r"https?:|url\(|@import|//", text.replace("<!doctype", ""))


def test_it_says_what_was_played_and_what_was_found() -> None:
    text = words(page(compared()))
    assert "made-up.csv through every caching strategy" in text
    assert "Played: 1,000 reads and 1,000 writes of 1 keys" in text
    assert "8 of 15 ways answered something wrong or lost a write: cache-aside, as published; " in text
    assert "no cache was the fastest for this mix: 1.5 ms an operation on average" in text
    assert "write to the database later, write-behind: 7.5 ms" in text
    assert "cache-aside answered 88% of the reads without the database" in text
    assert "the same machine" in text


def test_with_database_latency_it_does_not_mention_the_same_machine() -> None:
    assert "same machine" not in words(page(compared(plan=Plan(db_latency=timedelta(milliseconds=5)))))


def test_the_table_of_four_comes_before_the_plots_with_words_and_measured_values() -> None:
    text = page(compared())
    table, plot = text.index("The published table of four"), text.index("<svg")
    assert table < plot
    read = words(text[table:plot])
    for row in TABLE_OF_FOUR:
        for word in (row.reads_from, row.writes_to, row.stale_risk, row.write_latency, row.complexity):
            assert f"“{word}”" in read
    assert "12,345 (9.9 s) 0 “None added” 6 ms (6.0 × no cache) 2 ms (2.0 × no cache)" in read


def test_every_column_and_every_plot_is_explained() -> None:
    text = page(compared())
    assert text.count("<svg") == text.count("<figcaption") == 4
    for column in COLUMNS:
        assert html.escape(column.meaning) in text
        assert html.escape(column.claim) in text


def test_the_name_of_a_trace_is_escaped() -> None:
    text = page(compared("<script>alert('$x')</script>.csv"))
    assert "script" not in Elements(text).names
    assert "$x" in words(text)


@browser
@pytest.mark.parametrize("width", [1280, 390])
async def test_in_a_browser_nothing_overflows_and_it_is_dark_on_light(tmp_path: Path, width: int) -> None:
    text = page(compared("kv_readwrite_cloudphysics_hour1.csv.gz"))
    found = await measured(tmp_path, text, width)
    assert found["width"] <= width
    assert (found["over"], found["overlapping"]) == (0, 0)
    assert found["ink"] == "rgb(28, 33, 40)"
    assert found["paper"] == "rgb(255, 255, 255)"
    assert found["small"] >= 10


@browser
async def test_a_browser_requests_only_the_file(tmp_path: Path) -> None:
    file, log = tmp_path / "page.html", tmp_path / "net.json"
    file.write_text(page(compared()), encoding="utf-8")
    await chromium(tmp_path, f"--log-net-log={log}", "--dump-dom", file.as_uri())
    # The browser's own requests do not count; a page's request names the page as its initiator.
    asked = re.findall(r'"initiator":"([^"]*)","[^{}]*"url":"([^"]*)"', log.read_text())
    assert [url for initiator, url in asked if initiator.startswith("file:")] == []


async def measured(directory: Path, text: str, width: int) -> dict[str, Any]:
    """Returns what a browser measures of the page in a frame of that width."""
    frame = directory / "frame.html"
    frame.write_text(MEASURED.format(width=width, page=html.escape(text)), encoding="utf-8")
    dom = await chromium(directory, "--dump-dom", frame.as_uri())
    found = re.search(r"<pre>(\{.*?\})</pre>", dom)
    assert found is not None, dom[-500:]
    answer: dict[str, Any] = json.loads(found[1])
    return answer


async def chromium(directory: Path, *arguments: str) -> str:
    """Returns the output of a headless browser, which keeps its data in `directory`."""
    assert BROWSER is not None
    process = await asyncio.create_subprocess_exec(
        BROWSER,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--window-size=1400,1000",
        f"--user-data-dir={directory / 'browser'}",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    printed, _complaints = await process.communicate()
    return printed.decode()


def test_a_page_of_an_interrupted_run_says_so_first() -> None:
    assert '<ul class="finding"><li>It was interrupted' in page(compared(complete=False))
    assert "It was interrupted" not in page(compared())
