"""The interactive page: what it embeds, that nothing gets out of it, and in a browser that it does what it says."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.front_kit import HOSTILE, MODES, hostile_front, network_front

from rlaas.decisions import resolve
from rlaas.errors import InvalidInputError
from rlaas.fronts import Candidate, Front
from rlaas.objectives import Mode, Preference
from rlaas.plots import FrontView, page, write_plot
from rlaas.plots.page import embedded, page_document

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
in_a_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium here")


class Elements(HTMLParser):
    """The elements of a page with their attributes and texts."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str | None], str]] = []
        self._open: list[int] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs), ""))
        if tag not in ("meta", "br", "input"):
            self._open.append(len(self.found) - 1)

    def handle_endtag(self, tag: str) -> None:
        self._open.pop()

    def handle_data(self, data: str) -> None:
        if self._open:
            tag, attributes, text = self.found[self._open[-1]]
            self.found[self._open[-1]] = (tag, attributes, text + data)

    def of(self, tag: str) -> list[tuple[dict[str, str | None], str]]:
        return [(attributes, text) for name, attributes, text in self.found if name == tag]


def view_of(front: Front, **more: Any) -> FrontView:
    return FrontView.of(front, choices={name: resolve(front, mode=mode) for name, mode in MODES.items()}, **more)


def hostile_view() -> FrontView:
    front = hostile_front()
    mode = Mode(name="</script><b>mode</b>", preference=Preference.uniform(front.objectives))
    return FrontView.of(front, choices={mode.name: resolve(front, mode=mode)}, baselines=front.candidates[:2])


def data_of(text: str) -> dict[str, Any]:
    (content,) = [content for attributes, content in Elements(text).of("script") if attributes.get("id")]
    document: dict[str, Any] = json.loads(content)
    return document


def test_hostile_names_arrive_as_they_are_and_nowhere_else() -> None:
    view = hostile_view()
    text = page(view)
    elements = Elements(text)
    assert len(elements.of("script")) == 2
    assert not elements.of("img")
    assert not elements.of("b")
    readable = [name.replace("\ud800", "\N{REPLACEMENT CHARACTER}") for name in HOSTILE]
    assert [c["name"] for c in data_of(text)["candidates"]] == readable
    assert data_of(text) == page_document(view)
    assert text.isascii() or "\u2028" not in text
    text.encode("utf-8")  # a lone surrogate would not go


@given(st.recursive(st.text() | st.floats(allow_nan=False, allow_infinity=False) | st.none(), st.lists, max_leaves=20))
def test_embedded_json_cannot_end_its_element(value: Any) -> None:
    text = embedded(value)
    assert json.loads(text) == value
    assert text.isascii()
    assert not set("<>&") & set(text)


def test_nothing_is_fetched_and_only_the_pages_own_script_may_run() -> None:
    text = page(view_of(network_front()))
    without_namespace = text.replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?:|//[a-z]+\.|@import|url\((?!#)|\bsrc=|<link|fetch\(|XMLHttp", without_namespace)
    elements = Elements(text)
    policy = next(a["content"] or "" for a, _ in elements.of("meta") if a.get("http-equiv"))
    assert policy.startswith("default-src 'none'; ")
    (style,) = [content for _, content in elements.of("style")]
    (script,) = [content for attributes, content in elements.of("script") if not attributes]
    for directive, content in (("style-src", style), ("script-src", script)):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    assert "innerHTML" not in script


def test_the_document_holds_what_the_front_says() -> None:
    front = network_front(20)
    baseline = Candidate(name="b", kind="configuration", mean=(9.0, 9.0, 200.0, 0.7), half_width=(math.inf,) * 4)
    view = view_of(front, baselines=[baseline])
    document = data_of(page(view))
    assert [o["name"] for o in document["objectives"]] == list(front.names)
    for row, candidate, goodness in zip(document["candidates"], front.candidates, view.goodness(), strict=True):
        assert row["mean"] == list(candidate.mean)
        np.testing.assert_allclose(row["goodness"], goodness, rtol=1e-15)
        assert row["modes"] == view.modes_by_candidate().get(candidate.name, [])
    assert document["baselines"][0]["half_width"] == [None] * 4
    assert {m["name"]: m["candidate"] for m in document["modes"]} == view.chosen


def test_parameters_of_any_type_become_json() -> None:
    odd = {"array": np.arange(2), "number": np.float32(0.5), "nan": math.nan, "path": Path("a"), 3: (1, {2})}
    candidate = Candidate(name="a", kind="policy", mean=(1.0, 1.0), half_width=(0.0, 0.0), parameters=odd)
    front = Front.of("s", hostile_front().objectives, [candidate])
    (row,) = page_document(FrontView.of(front))["candidates"]
    assert row["parameters"] == {"array": [0, 1], "number": 0.5, "nan": None, "path": "a", "3": [1, [2]]}


def test_the_ending_decides_and_a_kind_is_a_part_of_the_page(tmp_path: Path) -> None:
    view = view_of(network_front(9))
    for kind, views in (("page", ["scatter", "parallel", "petal"]), ("petal", ["petal"]), ("scatter", ["scatter"])):
        file = write_plot(view, kind, tmp_path / f"{kind}.html", pair=("energy", "latency"), candidates=["candidate-1"])
        document = data_of(file.read_text(encoding="utf-8"))
        assert document["views"] == views
        assert document["pair"] == [2, 0]
        modes = ", ".join(mode for mode, name in view.chosen.items() if name == "candidate-1")
        assert "emergency" in modes
        assert document["flowers"] == ([["candidate-1", modes]] if "petal" in views else [])


def test_unknown_parts_are_refused() -> None:
    view = FrontView.of(network_front(3))
    with pytest.raises(InvalidInputError, match="unknown view 'pie'; allowed: parallel, petal, scatter"):
        page(view, views=["pie"])
    with pytest.raises(InvalidInputError, match="unknown objective of the pair 'speed'"):
        page(view, pair=("speed", "latency"))


# --- in a browser ------------------------------------------------------------------------------------------------


def dumped(text: str, folder: Path) -> str:
    """The page after its script has run."""
    file = folder / "page.html"
    file.write_text(text, encoding="utf-8")
    assert BROWSER is not None
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-dev-shm-usage",
    ]
    command = [BROWSER, *flags, f"--user-data-dir={folder / 'profile'}", "--dump-dom", file.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def driven(text: str, script: str, folder: Path) -> Any:
    """What ``script`` returns in the page; the page's policy would forbid it, so it is taken out here."""
    unlocked = re.sub(r"<meta http-equiv[^>]*>", "", text)
    driver = (
        "<script>const result = (() => {" + script + "})();"
        "const out = document.createElement('pre'); out.id = 'result'; out.textContent = JSON.stringify(result);"
        "document.body.append(out);</script></body>"
    )
    found = re.search(r'<pre id="result">(.*?)</pre>', dumped(unlocked.replace("</body>", driver), folder), re.DOTALL)
    assert found is not None
    return json.loads(html.unescape(found.group(1)))


@in_a_browser
def test_hostile_names_are_text_in_a_browser(tmp_path: Path) -> None:
    shown = dumped(page(hostile_view()), tmp_path)
    elements = Elements(shown)
    assert elements.of("title")[0][1] != "owned"
    assert "12 of 12 candidates shown" in shown
    names = [text for attributes, text in elements.of("button") if attributes == {"type": "button"}]
    for name in HOSTILE[:9]:
        assert name in names
    assert not elements.of("img")


@in_a_browser
def test_bounds_hide_nothing_at_their_loosest_and_keep_the_best_at_their_tightest(tmp_path: Path) -> None:
    front = network_front(40)
    script = """
      const rows = () => [...document.querySelectorAll("tbody tr")].filter((r) => !r.classList.contains("out"))
        .map((r) => r.querySelector("button").textContent).sort();
      const set = (j, value) => {
        const slider = document.getElementById(`slider-${j}`);
        slider.value = value; slider.dispatchEvent(new Event("input"));
        return [rows(), slider.getAttribute("aria-valuetext")];
      };
      const shown = (id) => [...document.querySelectorAll(`#${id} .mark, #${id} .line:not(.baseline)`)]
        .filter((n) => !n.closest(".out")).length;
      const found = { first: rows(), marks: shown("scatter"), lines: shown("parallel") };
      for (const key of ["tight", "half", "again"]) found[key] = [];
      for (let j = 0; j < 4; j += 1) {
        found.half.push([...set(j, 500), shown("scatter"), shown("parallel")]);
        found.tight.push(set(j, 1000));
        found.again.push(set(j, 0));
      }
      set(0, 700); set(2, 700);
      document.getElementById("clear").click();
      found.cleared = rows();
      return found;
    """
    found = driven(page(view_of(front)), script, tmp_path)
    everybody = sorted(c.name for c in front.candidates)
    assert found["first"] == found["cleared"] == everybody
    assert (found["marks"], found["lines"]) == (len(everybody), len(everybody))
    values = front.values()
    for j, objective in enumerate(front.objectives):
        falls = objective.direction == "minimize"
        worst, best = (values[:, j].max(), values[:, j].min()) if falls else (values[:, j].min(), values[:, j].max())
        assert found["again"][j] == [everybody, "any"]
        limit = worst + 0.5 * (best - worst)
        inside = [c.name for c in front.candidates if (c.mean[j] <= limit if falls else c.mean[j] >= limit)]
        kept, said, marks, lines = found["half"][j]
        assert kept == sorted(inside)
        assert (marks, lines) == (len(inside), len(inside))
        assert said.startswith("at most " if falls else "at least ")
        assert said.endswith(objective.unit)
        assert found["tight"][j][0] == [front.candidates[int(np.argmax(values[:, j] == best))].name]


@in_a_browser
def test_brushes_filter_every_view_and_a_click_takes_them_back(tmp_path: Path) -> None:
    front = network_front(40)
    script = """
      const rows = () => [...document.querySelectorAll("tbody tr")].filter((r) => !r.classList.contains("out")).length;
      const drag = (id, from, to) => {
        const plot = document.getElementById(id), box = plot.getBoundingClientRect();
        for (const [type, [x, y]] of [["pointerdown", from], ["pointerup", to]]) {
          const at = { clientX: box.left + x * box.width, clientY: box.top + y * box.height };
          plot.dispatchEvent(new PointerEvent(type, { bubbles: true, ...at }));
        }
        return rows();
      };
      const corner = [[0.1, 0.05], [0.5, 0.5]];
      const found = { all: rows(), inside: drag("scatter", ...corner) };
      found.outlined = document.querySelectorAll("#scatter .brush").length;
      found.back = drag("scatter", [0.3, 0.3], [0.3, 0.3]);
      found.axis = drag("parallel", [0.11, 0.15], [0.11, 0.5]);
      const point = document.querySelector("#scatter .mark");
      document.getElementById("fit").click();
      found.fitted = rows();
      document.querySelectorAll("tbody tr button")[3].focus();
      found.focus = document.getElementById("details").textContent;
      const select = document.getElementById("x-objective");
      select.value = "2"; select.dispatchEvent(new Event("change"));
      const written = [...document.querySelectorAll("#scatter text")].map((t) => t.textContent);
      found.label = written.filter((t) => t.includes("energy ["));
      [...document.querySelectorAll("th button")].find((b) => b.textContent.startsWith("energy")).click();
      found.order = [...document.querySelectorAll("tbody tr button")].map((b) => b.textContent);
      return found;
    """
    found = driven(page(view_of(front)), script, tmp_path)
    assert found["all"] == found["back"] == 40
    assert 0 < found["inside"] < 40
    assert found["outlined"] == 1
    assert 0 < found["axis"] < 40
    assert found["fitted"] == found["axis"]
    assert found["focus"].startswith("candidate-3 (configuration, 3 seeds")
    assert found["label"] == ["energy [W] (lower is better)"]
    assert found["order"] == [c.name for c in sorted(front.candidates, key=lambda c: c.mean[2])]


@in_a_browser
def test_what_axes_that_fit_leave_out_is_named(tmp_path: Path) -> None:
    lost = Candidate(name="lost <b>", kind="policy", mean=(4.0, -4000.0, 151.0, 0.99), half_width=(0.1,) * 4)
    front = network_front()
    text = page(view_of(Front.of("n", front.objectives, [*front.candidates, lost])))
    script = """
      const said = () => document.getElementById("outside").textContent;
      const before = said();
      const slider = document.getElementById("slider-1");
      slider.value = 1;
      slider.dispatchEvent(new Event("input"));
      document.getElementById("fit").click();
      return [before, said()];
    """
    assert driven(text, script, tmp_path) == ["", "1 outside the picture: lost <b>"]
