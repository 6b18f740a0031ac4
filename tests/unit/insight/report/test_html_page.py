from __future__ import annotations

import json
import re
import uuid
from html.parser import HTMLParser

import pytest

from docmill.insight.report.comparison import compare
from docmill.insight.report.cost import Prices, cost_of
from docmill.insight.report.html_page import render
from docmill.insight.report.report_data import read_report
from docmill.insight.report.to_json import to_json
from docmill.storage.database import Database
from docmill.storage.reads.batch_timeline import Duration
from docmill.storage.states import AttemptOutcome, BatchState
from tests.unit.insight.report.batches import Try, add_samples, failed, store, store_many

PRICES = Prices(per_hour=0.5, per_kwh=0.3, watts=200, currency="EUR")
_VOID = {"meta", "link", "img", "br", "hr", "input", "path", "use"}


class Page(HTMLParser):
    """A page's tags, attributes and text, as a browser would read them."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.styles: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == [], "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in _VOID or tag in ("path", "use"):
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        (self.styles if self._open[-1:] == ["style"] else self.words).append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words).replace("\u00a0", " "))

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.attributes if key == name]


@pytest.fixture(scope="package")
def full_page(database: Database) -> str:
    """A page with every section: two batches, failures, samples, costs."""
    workers = [uuid.uuid4().hex[:8] for _ in range(2)]
    tries = [
        *[Try(at / 2, waited=at / 3, energy=5.0, cached=20, vram=1 << 30, worker=workers[at % 2]) for at in range(40)],
        *[failed(at, "engine_died", "the engine process ended with signal 9") for at in range(3)],
        Try(9, outcome=AttemptOutcome.REUSED, reused_from=1),
        Try(9, level=1),
    ]
    failed_documents = [("c.bin", "it is not text")]
    stored = store(database, tries, failed_documents=failed_documents, notes={"customer": "Ægir & søn"})
    for worker in workers:
        add_samples(database, worker, [(at, (2 + at) << 28, 150.0, 1 << 30) for at in range(0, 22, 2)])
    numbers = read_report(database, stored.batch)
    earlier = read_report(database, store(database, [Try(at) for at in range(9)]).batch)
    cost = cost_of(numbers, PRICES)
    return render(numbers, cost, compare(numbers, earlier, cost, cost_of(earlier, PRICES)))


def test_the_page_is_self_contained(full_page: str) -> None:
    page = Page(full_page)
    assert not {"script", "link", "img", "iframe", "object", "embed", "image", "base", "video"} & set(page.tags)
    references = [
        v for name in ("src", "srcset", "href", "xlink:href", "action", "data", "poster") for v in page.values(name)
    ]
    assert references
    ids = page.values("id")
    assert len(ids) == len(set(ids)), "ids are the figures' own"
    assert {reference.partition("#")[::2] for reference in references} <= {("", i) for i in ids}
    for target in re.findall(r"url\(\s*['\"]?([^)'\"]+)", full_page):
        assert target.removeprefix("#") in ids
    assert not re.search(r"@import|@font-face|expression\(|javascript:", full_page)
    addresses = set(re.findall(r"https?://[^\s\"'<)]+", full_page))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}, (
        "XML namespaces, which are not fetched"
    )


def test_the_page_shows_the_measurements(full_page: str) -> None:
    text = Page(full_page).text
    for expected in (
        "42 of 45 jobs succeeded", "3 jobs failed", "customer Ægir & søn", "a model", "Throughput and occupancy",
        "decode (writing) 2.00 s 2.00 s 2.00 s 2.00 s 2.00 s", "merge, level 1", "engine_died 3 3",
        "c.bin it is not text", "Slowest jobs", "peak VRAM", "energy, assumed", "200 W all the time",
        "this batch earlier this / earlier", "Tokens by document", "Memory over time", "Processors over time",
        "tokens reused 110 from 1 identical job",
    ):  # fmt: skip
        assert expected in text


def test_every_figure_has_a_title_and_a_description(full_page: str) -> None:
    page = Page(full_page)
    figures = page.tags.count("svg")
    assert figures == page.tags.count("figure") == page.tags.count("figcaption") == 8
    assert page.values("role") == ["img"] * figures
    for labels in page.values("aria-labelledby"):
        for label in labels.split():
            assert re.search(rf'id="{label}">[^<]{{10,}}<', full_page)
    assert 'name="viewport" content="width=device-width' in full_page
    assert not re.search(r'<svg[^>]* (width|height)="', full_page), "the page sizes them"
    assert "#0" not in "".join(re.findall(r"<svg.*?</svg>", full_page, re.DOTALL)), "their colours are the page's"
    assert "@media print" in full_page
    assert "prefers-color-scheme: dark" in full_page


NASTY = [
    "<script>alert(1)</script>.txt", '"><img src=x onerror=alert(1)>', "{{ 7 * 7 }}{% raw %}", r"$\frac{1}$ $x_$",
    "a\x01b\x1b[31m", "東京/naïve café 👩‍🚀.txt", "</style></title></svg>", "x" * 500,
]  # fmt: skip


def test_names_and_messages_are_escaped(database: Database) -> None:
    tries = [Try(at, document=at) for at in range(len(NASTY))]
    tries += [failed(at, name, name) for at, name in enumerate(NASTY[:4])]
    stored = store(
        database, tries, documents=NASTY, failed_documents=[(name, name) for name in NASTY], model=NASTY[0],
        task=NASTY[1], notes=dict.fromkeys(NASTY[:3], NASTY[0]),
    )  # fmt: skip
    numbers = read_report(database, stored.batch)
    page = Page(render(numbers, None, None))
    assert not {"script", "img"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    joined = "".join(page.words)
    for name in NASTY:
        assert name in joined
    assert " 49" not in joined
    assert (page.tags.count("style"), page.tags.count("html")) == (1, 1)


def test_a_batch_without_documents_has_a_page(database: Database) -> None:
    numbers = read_report(database, store(database, [], documents=(), state=BatchState.FAILED).batch)
    cost = cost_of(numbers, PRICES)
    page = Page(render(numbers, cost, compare(numbers, numbers, cost, cost)))
    assert "No job of this batch ran." in page.text
    assert "svg" not in page.tags


def test_a_batch_with_only_failures_has_a_page(database: Database) -> None:
    tries = [failed(at, "out_of_memory", "the cache does not fit") for at in range(5)]
    numbers = read_report(
        database, store(database, tries, documents=(), failed_documents=[("a.txt", "all failed")]).batch
    )
    text = Page(
        render(numbers, cost_of(numbers, PRICES), compare(numbers, numbers, *[cost_of(numbers, PRICES)] * 2))
    ).text
    assert "0 of 5 jobs succeeded" in text
    assert "out_of_memory 5 5 the cache does not fit" in text
    assert "a.txt all failed" in text
    assert "Slowest jobs" not in text


def test_a_running_batch_is_reported_so_far(database: Database) -> None:
    runs = Try(0, ended=None, outcome=AttemptOutcome.RUNNING, queue=None, prefill=None, decode=None, completion=None)
    waits = store(database, [], state=BatchState.VALIDATING).batch
    assert "No job of this batch has run yet." in Page(render(read_report(database, waits), None, None)).text
    first = read_report(database, store(database, [runs], state=BatchState.IN_PROGRESS).batch)
    assert "So far 0 of 1 job succeeded" in Page(render(first, cost_of(first, PRICES), None)).text
    later = read_report(database, store(database, [runs, Try(0)], state=BatchState.IN_PROGRESS).batch)
    text = Page(render(later, None, None)).text
    assert "in progress" in text
    assert "So far 1 of 2 jobs succeeded" in text
    assert "the batch was still running" in text


def test_a_single_job_that_took_no_time_has_a_page(database: Database) -> None:
    instant = Try(0, queue=0.0, prefill=0.0, decode=0.0, waited=0.0, prompt=0, completion=0)
    numbers = read_report(database, store(database, [instant]).batch)
    assert "1 of 1 job succeeded" in Page(render(numbers, None, None)).text


def test_json_has_the_same_numbers(database: Database) -> None:
    numbers = read_report(database, store(database, [Try(at, waited=None) for at in range(10)]).batch)
    cost = cost_of(numbers, PRICES)
    record = json.loads(json.dumps(to_json(numbers, cost, compare(numbers, numbers, cost, cost))))
    assert record["durations"]["decode"] == {"count": 10, "mean": 2.0, "p50": 2.0, "p90": 2.0, "p99": 2.0, "max": 2.0}
    assert "wait" not in record["durations"]
    assert (record["prompt_tokens"], record["completion_tokens"], record["cached_tokens"]) == (1000, 100, None)
    assert record["tokens_per_s"] == pytest.approx(1100 / 12)
    assert record["against"]["measures"]["tokens_per_s"]["ratio"] == 1.0
    assert record["cost"]["energy_basis"] == "assumed"
    assert (record["attempts"], record["jobs"]["succeeded"]) == ({"succeeded": 10}, 10)


def test_the_page_stays_small_with_a_hundred_thousand_attempts(sqlite: Database) -> None:
    numbers = read_report(sqlite, store_many(sqlite, 100_000))
    assert numbers.durations[Duration.WAIT].count == 99_800
    assert numbers.durations[Duration.WAIT].at(0.99) == pytest.approx(1980.02, rel=1e-4)
    html = render(numbers, cost_of(numbers, PRICES), None)
    assert "99,800 of 100,000 jobs succeeded" in Page(html).text
    assert len(html) < 150_000
    assert len(json.dumps(to_json(numbers, None, None))) < 60_000
