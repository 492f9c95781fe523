"use strict";
(() => {
  const data = JSON.parse(document.getElementById("front-data").textContent);
  const { objectives, candidates, baselines, style } = data;
  const STEPS = 1000;
  const byId = (id) => document.getElementById(id);

  // Texts only ever become text nodes or attributes: a name is never read as markup.
  function fill(node, attributes, children) {
    for (const [key, value] of Object.entries(attributes)) {
      if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value);
    }
    node.append(...children);
    return node;
  }
  const html = (name, attributes = {}, ...children) => fill(document.createElement(name), attributes, children);
  const svg = (name, attributes = {}, ...children) =>
    fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);

  const short = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}\u2026` : text);
  const number = (value) => String(Number(value.toPrecision(4)));
  const amount = (j, value) => `${number(value)} ${objectives[j].unit}`.trimEnd();
  const interval = (row, j) => {
    const half = row.half_width[j];
    return half === null ? number(row.mean[j]) : `${number(row.mean[j])} \u00b1 ${Number(half.toPrecision(2))}`;
  };
  const falling = (j) => objectives[j].direction === "minimize";
  const better = (j) => (falling(j) ? "lower is better" : "higher is better");
  const heading = (j, most = 60) =>
    short(objectives[j].unit ? `${objectives[j].name} [${objectives[j].unit}]` : objectives[j].name, most);

  // ---- what is shown -------------------------------------------------------------------------------------------

  const column = (j) => candidates.map((c) => c.mean[j]);
  const worst = objectives.map((_, j) => column(j).reduce((a, b) => (falling(j) ? Math.max(a, b) : Math.min(a, b))));
  const best = objectives.map((_, j) => column(j).reduce((a, b) => (falling(j) ? Math.min(a, b) : Math.max(a, b))));
  const state = {
    steps: objectives.map(() => 0),
    ranges: objectives.map(() => null),
    rectangle: null,
    x: data.pair[0],
    y: data.pair[1],
    active: null,
    sort: { key: null, down: false },
  };

  // At the loosest step there is no bound at all, at the tightest it is the best value itself: rounding hides nothing.
  function bound(j) {
    if (state.steps[j] === 0) return null;
    if (state.steps[j] === STEPS) return best[j];
    return worst[j] + (state.steps[j] / STEPS) * (best[j] - worst[j]);
  }
  function kept(c) {
    for (let j = 0; j < objectives.length; j += 1) {
      const limit = bound(j);
      if (limit !== null && (falling(j) ? c.mean[j] > limit : c.mean[j] < limit)) return false;
      const range = state.ranges[j];
      if (range && (c.goodness[j] < range[0] || c.goodness[j] > range[1])) return false;
    }
    const r = state.rectangle;
    return !r || [["x", r.x], ["y", r.y]].every(([at, [low, high]]) => c.mean[r[`${at}At`]] >= low && c.mean[r[`${at}At`]] <= high);
  }
  const shownBaselines = () => (byId("show-baselines").checked ? baselines : []);

  // ---- scales --------------------------------------------------------------------------------------------------

  function domain(values) {
    let low = values[0], high = values[0];
    for (const v of values) { low = Math.min(low, v); high = Math.max(high, v); }
    const margin = 0.05 * (high - low) || 0.05 * Math.abs(high) || 0.5;
    return [low - margin, high + margin];
  }
  function ticks([low, high], count) {
    const raw = (high - low) / count;
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((f) => f * power).find((s) => s >= raw) ?? raw;
    const found = [];
    for (let k = Math.ceil(low / step); k * step <= high && found.length < 50; k += 1) found.push(k * step + 0);
    return found;
  }
  const scale = ([low, high], [from, to]) => (v) => from + ((v - low) / (high - low)) * (to - from);
  function rowsForAxes() {
    const inside = byId("fit").checked ? candidates.filter(kept) : candidates;
    return inside.length && byId("fit").checked ? inside : [...candidates, ...shownBaselines()];
  }

  // ---- marks ---------------------------------------------------------------------------------------------------

  const look = (kind) => style.kinds[kind] ?? [style.baseline, "o"];
  function mark(kind, x, y, size = 5) {
    const [colour, shape] = look(kind);
    const common = { fill: colour, stroke: "#fff", "stroke-width": 0.8, class: "mark" };
    if (shape === "s") return svg("rect", { ...common, x: x - size, y: y - size, width: 2 * size, height: 2 * size });
    if (shape === "D") {
      const d = 1.3 * size;
      return svg("path", { ...common, d: `M${x} ${y - d}L${x + d} ${y}L${x} ${y + d}L${x - d} ${y}Z` });
    }
    return svg("circle", { ...common, cx: x, cy: y, r: size });
  }
  const cross = (x, y, size = 4) =>
    svg("path", { d: `M${x - size} ${y - size}L${x + size} ${y + size}M${x - size} ${y + size}L${x + size} ${y - size}`, stroke: style.baseline, "stroke-width": 2, fill: "none" });

  const drawn = candidates.map(() => []); // the nodes of each candidate, in every view
  function follow(node, i) {
    node.addEventListener("pointerenter", () => focus(i));
    drawn[i].push(node);
    return node;
  }

  function drawScatter() {
    const plot = byId("scatter");
    const [width, height] = [620, 440], [left, right, top, low] = [66, 14, 12, 50];
    plot.replaceChildren();
    plot.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const { x: a, y: b } = state, rows = rowsForAxes();
    const dx = domain(rows.map((r) => r.mean[a])), dy = domain(rows.map((r) => r.mean[b]));
    const sx = scale(dx, [left, width - right]), sy = scale(dy, [height - low, top]);
    const clip = svg("clipPath", { id: "inside" }, svg("rect", { x: left, y: top, width: width - left - right, height: height - top - low }));
    const body = svg("g", { "clip-path": "url(#inside)" });
    plot.append(svg("defs", {}, clip));
    for (const t of ticks(dx, 7)) plot.append(svg("line", { class: "grid", x1: sx(t), x2: sx(t), y1: top, y2: height - low }), svg("text", { class: "tick", x: sx(t), y: height - low + 16, "text-anchor": "middle" }, number(t)));
    for (const t of ticks(dy, 6)) plot.append(svg("line", { class: "grid", x1: left, x2: width - right, y1: sy(t), y2: sy(t) }), svg("text", { class: "tick", x: left - 6, y: sy(t) + 4, "text-anchor": "end" }, number(t)));
    plot.append(
      svg("path", { class: "axis", fill: "none", d: `M${left} ${top}V${height - low}H${width - right}` }),
      svg("text", { x: (left + width - right) / 2, y: height - 10, "text-anchor": "middle" }, `${heading(a)} (${better(a)})`),
      svg("text", { x: 0, y: 0, "text-anchor": "middle", transform: `translate(14 ${(top + height - low) / 2}) rotate(-90)` }, `${heading(b, 36)} (${better(b)})`),
      body,
    );
    for (const r of shownBaselines()) body.append(fill(cross(sx(r.mean[a]), sy(r.mean[b])), {}, [svg("title", {}, `baseline ${r.name}`)]));
    const labels = [];
    candidates.forEach((c, i) => {
      const px = sx(c.mean[a]), py = sy(c.mean[b]), [colour] = look(c.kind), group = svg("g", {});
      const [hx, hy] = [c.half_width[a], c.half_width[b]];
      if (hx !== null) group.append(svg("line", { class: "bar", stroke: colour, x1: sx(c.mean[a] - hx), x2: sx(c.mean[a] + hx), y1: py, y2: py }));
      if (hy !== null) group.append(svg("line", { class: "bar", stroke: colour, x1: px, x2: px, y1: sy(c.mean[b] - hy), y2: sy(c.mean[b] + hy) }));
      const point = follow(mark(c.kind, px, py), i);
      point.addEventListener("click", () => focus(i));
      group.append(point);
      if (c.modes.length) {
        const end = px > (left + width) / 2;
        group.append(svg("circle", { class: "ring", cx: px, cy: py, r: 9 }));
        const label = svg("text", { class: "mode-label halo", x: px + (end ? -12 : 12), y: py - 6, "text-anchor": end ? "end" : "start" }, short(c.modes.join(", "), 40));
        drawn[i].push(label);
        labels.push(label);
      }
      drawn[i].push(group);
      body.append(group);
    });
    body.append(...labels); // above every point
    const within = (v, [from, to]) => v >= from && v <= to;
    const gone = [...candidates, ...shownBaselines()].filter((row) => !within(row.mean[a], dx) || !within(row.mean[b], dy));
    const names = gone.slice(0, 12).map((row) => short(row.name, 40)).join(", ");
    const more = gone.length > 12 ? ` and ${gone.length - 12} more` : "";
    byId("outside").textContent = gone.length ? `${gone.length} outside the picture: ${names}${more}` : "";
    const r = state.rectangle;
    if (r && r.xAt === a && r.yAt === b) {
      const [x0, x1, y0, y1] = [sx(r.x[0]), sx(r.x[1]), sy(r.y[1]), sy(r.y[0])];
      body.append(svg("rect", { class: "brush", x: x0, y: y0, width: x1 - x0, height: y1 - y0 }));
    }
    onDrag(plot, (from, to) => {
      const back = (p, q, [lo, hi], [f, t]) => [p, q].map((v) => lo + ((v - f) / (t - f)) * (hi - lo)).sort((m, n) => m - n);
      state.rectangle = far(from, to)
        ? { xAt: a, yAt: b, x: back(from.x, to.x, dx, [left, width - right]), y: back(from.y, to.y, dy, [height - low, top]) }
        : null;
    });
  }

  function drawParallel() {
    const plot = byId("parallel");
    const m = objectives.length, width = Math.max(620, 130 * m), height = 440, [left, right, top, low] = [70, 40, 52, 14];
    plot.replaceChildren();
    plot.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const rows = rowsForAxes();
    const dg = domain(rows.flatMap((r) => r.goodness));
    const sg = scale(dg, [height - low, top]);
    const at = (j) => (m === 1 ? width / 2 : left + (j / (m - 1)) * (width - left - right));
    const path = (r) => (m === 1 ? `M${at(0) - 20} ${sg(r.goodness[0])}h40` : r.goodness.map((g, j) => `${j ? "L" : "M"}${at(j).toFixed(1)} ${sg(g).toFixed(1)}`).join(""));
    const clip = svg("clipPath", { id: "within" }, svg("rect", { x: 0, y: top, width, height: height - top - low }));
    const body = svg("g", { "clip-path": "url(#within)" });
    plot.append(svg("defs", {}, clip), body);
    for (const r of shownBaselines()) body.append(svg("path", { class: "line baseline", d: path(r), stroke: style.baseline }));
    const order = candidates.map((_, i) => i).sort((p, q) => candidates[p].modes.length - candidates[q].modes.length);
    for (const i of order) {
      const c = candidates[i], chosen = c.modes.length > 0;
      const line = svg("path", { class: chosen ? "line chosen" : "line", d: path(c), stroke: chosen ? style.accent : look(c.kind)[0] });
      line.addEventListener("click", () => focus(i));
      body.append(follow(line, i));
    }
    for (let j = 0; j < m; j += 1) {
      const o = objectives[j], x = at(j);
      plot.append(svg("line", { class: "axis", x1: x, x2: x, y1: top, y2: height - low }));
      const anchor = m > 1 && j === 0 ? "start" : m > 1 && j === m - 1 ? "end" : "middle";
      const shift = anchor === "start" ? -left + 4 : anchor === "end" ? right - 4 : 0;
      plot.append(svg("text", { x: x + shift, y: 16, "text-anchor": anchor }, heading(j, 22)), svg("text", { class: "tick", x: x + shift, y: 32, "text-anchor": anchor }, better(j)));
      for (const t of ticks(dg, 5)) {
        const exact = o.low + (falling(j) ? 1 - t : t) * (o.high - o.low);
        const value = Math.abs(exact) < 1e-9 * (o.high - o.low) ? 0 : exact; // what rounding leaves of zero
        plot.append(svg("line", { class: "axis", x1: x - 3, x2: x + 3, y1: sg(t), y2: sg(t) }), svg("text", { class: "tick halo", x: x - 6, y: sg(t) + 4, "text-anchor": "end" }, o.unit.length > 8 ? number(value) : amount(j, value)));
      }
      const range = state.ranges[j];
      if (range) plot.append(svg("rect", { class: "brush", x: x - 8, width: 16, y: sg(range[1]), height: sg(range[0]) - sg(range[1]) }));
    }
    onDrag(plot, (from, to) => {
      const nearest = objectives.map((_, j) => j).sort((p, q) => Math.abs(at(p) - from.x) - Math.abs(at(q) - from.x))[0];
      const value = (y) => dg[0] + ((height - low - y) / (height - low - top)) * (dg[1] - dg[0]);
      state.ranges[nearest] = far(from, to) ? [value(from.y), value(to.y)].sort((p, q) => p - q) : null;
    });
  }

  // ---- petals --------------------------------------------------------------------------------------------------

  function flower(c, title) {
    const m = objectives.length, [width, height] = [370, 230], [cx, cy] = [width / 2, height / 2], rim = 68;
    const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Petals of ${c.name}` });
    for (const share of [0.5, 1]) picture.append(svg("circle", { cx, cy, r: share * rim, fill: "none", stroke: "#ddd" }));
    objectives.forEach((_, j) => {
      const angle = (2 * Math.PI * j) / m - Math.PI / 2, half = Math.min((0.9 * Math.PI) / m, 1);
      const length = rim * Math.min(1, Math.max(0, c.goodness[j]));
      const point = (a, r) => `${(cx + r * Math.cos(a)).toFixed(2)} ${(cy + r * Math.sin(a)).toFixed(2)}`;
      const d = `M${cx} ${cy}L${point(angle - half, length)}A${length} ${length} 0 0 1 ${point(angle + half, length)}Z`;
      picture.append(svg("path", { d, fill: style.palette[j % style.palette.length], "fill-opacity": 0.85, stroke: "#fff" }));
      const [lx, ly] = [cx + (rim + 12) * Math.cos(angle), cy + (rim + 16) * Math.sin(angle)];
      const anchor = Math.abs(Math.cos(angle)) < 0.3 ? "middle" : Math.cos(angle) > 0 ? "start" : "end";
      picture.append(
        svg("text", { x: lx, y: ly - 2, "text-anchor": anchor }, short(objectives[j].name, 16)),
        svg("text", { class: "tick", x: lx, y: ly + 12, "text-anchor": anchor }, short(amount(j, c.mean[j]), 18)),
      );
    });
    return html("figure", {}, html("figcaption", {}, html("strong", {}, title), title ? html("br") : "", c.name), picture);
  }
  function drawPetals() {
    const named = new Map(candidates.map((c) => [c.name, c]));
    const flowers = data.flowers.map(([name, title]) => flower(named.get(name), title));
    const extra = state.active === null ? null : candidates[state.active];
    if (extra && !data.flowers.some(([name]) => name === extra.name)) flowers.push(flower(extra, "in focus"));
    byId("petals").replaceChildren(...flowers);
  }

  // ---- dragging ------------------------------------------------------------------------------------------------

  const far = (from, to) => Math.abs(from.x - to.x) > 4 || Math.abs(from.y - to.y) > 4;
  const drags = new Map();
  function onDrag(plot, apply) {
    const known = drags.has(plot);
    drags.set(plot, apply);
    if (known) return;
    let from = null;
    const place = (event) => {
      const p = new DOMPoint(event.clientX, event.clientY).matrixTransform(plot.getScreenCTM().inverse());
      return { x: p.x, y: p.y };
    };
    plot.addEventListener("pointerdown", (event) => { from = place(event); });
    plot.addEventListener("pointerup", (event) => {
      if (from === null) return;
      const to = place(event);
      // A plain click on a candidate is about the candidate and leaves the bounds alone.
      if (far(from, to) || !event.target.closest(".mark, .line")) { drags.get(plot)(from, to); update(); }
      from = null;
    });
    plot.addEventListener("pointercancel", () => { from = null; });
  }

  // ---- bounds, table, details ----------------------------------------------------------------------------------

  const showBound = [];
  function buildSliders() {
    objectives.forEach((o, j) => {
      const input = html("input", { type: "range", id: `slider-${j}`, min: 0, max: STEPS, step: 1, value: 0 });
      const output = html("output", { for: `slider-${j}` });
      showBound.push(() => {
        const limit = bound(j);
        const text = limit === null ? "any" : `${falling(j) ? "at most" : "at least"} ${amount(j, limit)}`;
        input.value = state.steps[j];
        output.textContent = text;
        input.setAttribute("aria-valuetext", text);
      });
      input.addEventListener("input", () => { state.steps[j] = Number(input.value); update(); });
      const label = html("label", { for: `slider-${j}`, title: o.description || null }, html("span", {}, `${heading(j)} (${better(j)})`), output);
      byId("sliders").append(html("div", { class: "slider" }, label, input));
    });
  }

  const cells = [];
  function buildTable() {
    const head = [["name", "candidate", false], ["kind", "kind", false], ...objectives.map((_, j) => [j, heading(j), true]), ["modes", "modes", false]];
    byId("table").tHead.append(html("tr", {}, ...head.map(([key, label, numeric]) => {
      const button = html("button", { type: "button" }, label);
      const cell = html("th", { scope: "col", class: numeric ? null : "text", "aria-sort": "none" }, button);
      button.addEventListener("click", () => {
        state.sort = { key, down: state.sort.key === key ? !state.sort.down : numeric && !falling(key) };
        for (const other of byId("table").tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
        cell.setAttribute("aria-sort", state.sort.down ? "descending" : "ascending");
        sortTable();
      });
      return cell;
    })));
    candidates.forEach((c, i) => {
      const pick = html("button", { type: "button" }, c.name);
      pick.addEventListener("click", () => focus(i));
      pick.addEventListener("focus", () => focus(i));
      const row = html("tr", { class: c.modes.length ? "chosen" : null }, html("td", {}, pick), html("td", { class: "text" }, c.kind),
        ...objectives.map((_, j) => html("td", {}, interval(c, j))), html("td", { class: "text" }, c.modes.join(", ")));
      row.addEventListener("pointerenter", () => focus(i));
      cells.push(row);
      byId("table").tBodies[0].append(row);
    });
  }
  function sortTable() {
    const { key, down } = state.sort;
    const value = (c) => (typeof key === "number" ? c.mean[key] : key === "modes" ? c.modes.join(", ") : c[key]);
    const order = candidates.map((_, i) => i).sort((p, q) => {
      const [a, b] = [value(candidates[p]), value(candidates[q])];
      const found = typeof a === "number" ? a - b : a.localeCompare(b);
      return down ? -found : found;
    });
    byId("table").tBodies[0].append(...order.map((i) => cells[i]));
  }

  function buildModes() {
    if (!data.modes.length) return;
    const list = html("dl");
    for (const mode of data.modes) {
      const i = candidates.findIndex((c) => c.name === mode.candidate);
      const pick = html("button", { type: "button" }, mode.candidate);
      pick.addEventListener("click", () => focus(i));
      list.append(html("dt", {}, mode.name), html("dd", {}, pick, html("br"), mode.why));
    }
    byId("modes").append(html("h2", {}, "Choices of the modes"), list);
    byId("modes").hidden = false;
  }
  function buildLegend() {
    const item = (node, label) => html("span", {}, svg("svg", { width: 18, height: 14, viewBox: "0 0 18 14" }, node), label);
    for (const kind of Object.keys(style.kinds)) if (candidates.some((c) => c.kind === kind)) byId("legend").append(item(mark(kind, 9, 7), kind));
    if (baselines.length) byId("legend").append(item(cross(9, 7), "baseline"));
    if (data.modes.length) byId("legend").append(item(svg("circle", { class: "ring", cx: 9, cy: 7, r: 5.5 }), "chosen by a mode"));
    byId("legend").append(html("span", {}, "bars: 95 % confidence intervals of the means"));
    byId("baselines-tool").hidden = baselines.length === 0;
  }

  function highlight() {
    drawn.forEach((nodes, i) => nodes.forEach((node) => node.classList.toggle("active", i === state.active)));
    cells.forEach((row, i) => row.classList.toggle("active", i === state.active));
  }
  function focus(i) {
    if (state.active === i) return;
    state.active = i;
    highlight();
    const c = candidates[i];
    const values = objectives.map((o, j) => `${o.name} ${interval(c, j)} ${o.unit}`.trimEnd()).join("; ");
    byId("details").replaceChildren(
      html("p", {}, html("strong", {}, c.name), ` (${c.kind}${c.seeds ? `, ${c.seeds} seeds` : ""})${c.modes.length ? `, chosen by ${c.modes.join(", ")}` : ""}`),
      html("p", {}, values),
      html("p", { class: "hint" }, Object.keys(c.parameters).length ? JSON.stringify(c.parameters) : ""),
    );
    drawPetalsIfShown();
  }

  // ---- all together --------------------------------------------------------------------------------------------

  const shows = (view) => data.views.includes(view);
  const drawPetalsIfShown = () => { if (shows("petal")) drawPetals(); };
  function update() {
    drawn.forEach((nodes) => { nodes.length = 0; });
    if (shows("scatter")) drawScatter();
    if (shows("parallel")) drawParallel();
    let count = 0;
    candidates.forEach((c, i) => {
      const inside = kept(c);
      count += inside ? 1 : 0;
      drawn[i].forEach((node) => node.classList.toggle("out", !inside));
      cells[i].classList.toggle("out", !inside);
    });
    showBound.forEach((show) => show());
    byId("count").textContent = `${count} of ${candidates.length} candidates shown`;
    highlight();
  }

  for (const section of document.querySelectorAll("[data-view]")) if (!shows(section.dataset.view)) section.remove();
  if (shows("scatter")) {
    for (const [id, at] of [["x-objective", "x"], ["y-objective", "y"]]) {
      const select = byId(id);
      objectives.forEach((o, j) => select.append(html("option", { value: j, selected: j === state[at] ? "" : null }, heading(j))));
      select.addEventListener("change", () => { state[at] = Number(select.value); state.rectangle = null; update(); });
    }
  }
  byId("clear").addEventListener("click", () => {
    state.steps.fill(0); state.ranges.fill(null); state.rectangle = null; update();
  });
  byId("fit").addEventListener("change", update);
  byId("show-baselines").addEventListener("change", update);
  buildLegend();
  buildModes();
  buildSliders();
  buildTable();
  byId("details").append(html("p", { class: "hint" }, "Point at a candidate, or step through the table, to see its figures here."));
  drawPetalsIfShown();
  update();
})();
