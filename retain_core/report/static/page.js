// The page's own script: draws the charts, walks through their marks, filters the changed answers.
// Data come from one JSON block and reach the document through textContent only.
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const tip = document.getElementById("tip");

function element(tag, text, name) {
  const made = document.createElement(tag);
  if (text !== undefined && text !== null) made.textContent = String(text);
  if (name) made.className = name;
  return made;
}

// What a mark says, beside it: a list of names and values.
function show(value, x, y) {
  const known = Object.entries(value).filter(([, said]) => said !== null && said !== "" && said !== "null" && said !== "NaN");
  const list = element("dl");
  for (const [name, said] of known) list.append(element("dt", name), element("dd", said));
  tip.replaceChildren(list);
  tip.hidden = false;
  const room = document.documentElement.clientWidth;
  tip.style.left = Math.max(8, Math.min(x + 14, room - tip.offsetWidth - 12) + window.scrollX) + "px";
  const above = y + 14 + tip.offsetHeight > document.documentElement.clientHeight;
  tip.style.top = (above ? Math.max(4, y - tip.offsetHeight - 12) : y + 14) + window.scrollY + "px";
}
function hide() { tip.hidden = true; }

// Arrow keys walk from mark to mark, in the order in which they were drawn.
function walk(plot) {
  let place = -1;
  plot.addEventListener("keydown", (event) => {
    const marks = [...plot.querySelectorAll(".mark-symbol path")].filter((mark) => mark.__data__ && mark.__data__.tooltip);
    const move = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -place, End: marks.length - 1 - place }[event.key];
    if (event.key === "Escape") hide();
    if (move === undefined || !marks.length) return;
    event.preventDefault();
    place = (place + move + marks.length) % marks.length;
    const box = marks[place].getBoundingClientRect();
    show(marks[place].__data__.tooltip, box.right, box.bottom);
  });
  plot.addEventListener("blur", hide);
}

// Where there is little room, labels stand above their marks instead of beside them.
const narrow = window.matchMedia("(max-width: 40rem)");
function fitted(spec) {
  const said = spec.usermeta && spec.usermeta.narrow;
  if (!said || !narrow.matches) return spec;
  const layer = structuredClone(spec.layer).filter((part) => part.mark.type !== "text");
  for (const part of layer) if (part.encoding.y && part.encoding.y.axis) part.encoding.y.axis = null;
  return { ...spec, padding: said.padding, height: said.height, layer: [layer[0], ...said.layer, ...layer.slice(1)] };
}

async function draw(plot) {
  const spec = { ...fitted(data.charts[plot.dataset.chart]), datasets: data.datasets };
  const handler = (_, event, item, value) => {
    if (value && typeof value === "object") show(value, event.clientX, event.clientY);
    else hide();
  };
  try {
    // Expressions are interpreted, not compiled: the page forbids making code from text.
    const made = await vegaEmbed(plot, spec, { mode: "vega-lite", ast: true, renderer: "svg", actions: false, defaultStyle: false, tooltip: handler });
    views[plot.dataset.chart] = made.view;
  } catch (error) {
    plot.replaceChildren(element("p", `This chart could not be drawn${data.alone ? "" : "; its SVG file lies beside the page"}.`, "bad"));
    console.error(error);
  }
}
const views = (window.views = {});

// Changed answers: filter, then one page at a time.
const EACH = 20;
function changedAnswers() {
  const list = document.getElementById("items-list");
  if (!list) return;
  const field = (name) => document.getElementById("f-" + name);
  const before = document.getElementById("items-before"), after = document.getElementById("items-after");
  let page = 0;
  for (const name of ["benchmark", "method"]) {
    const values = [...new Set(data.items.map((row) => row[name]))].sort();
    for (const value of values) field(name).append(element("option", value));
    field(name).closest("label").hidden = values.length < 2;
  }

  function card(row) {
    const made = element("article", null, "item"), title = element("h3");
    const about = [row.benchmark, [row.method, row.rate].filter(Boolean).join(" "), row.seed === null ? "" : "seed " + row.seed];
    title.append(element("b", row.direction, row.direction), about.filter(Boolean).map((said) => " · " + said).join(""));
    const texts = element("dl");
    for (const [name, key, whole] of [["question", "prompt", 1], [data.sides[0], "base_response"], [data.sides[1], "response"], ["right answer", "target"]]) {
      const part = element("div", null, whole ? "whole" : ""), said = element("dd", row[key] === null ? "(none)" : row[key]);
      said.dir = "auto";
      part.append(element("dt", name), said);
      texts.append(part);
    }
    made.append(title, texts);
    return made;
  }
  function refresh() {
    const words = field("text").value.toLowerCase();
    const wanted = ["benchmark", "method", "direction"].filter((name) => field(name).value);
    const found = data.items.filter((row) =>
      wanted.every((name) => row[name] === field(name).value) &&
      (!words || ["prompt", "base_response", "response", "target"].some((key) => (row[key] || "").toLowerCase().includes(words))));
    const pages = Math.max(1, Math.ceil(found.length / EACH));
    page = Math.min(page, pages - 1);
    document.getElementById("items-count").textContent =
      found.length ? `n: ${found.length} changed answers, page ${page + 1} of ${pages}` : "n: 0, nothing matches";
    list.replaceChildren(...found.slice(page * EACH, (page + 1) * EACH).map(card));
    before.disabled = page === 0;
    after.disabled = page >= pages - 1;
  }
  document.getElementById("filters").addEventListener("submit", (event) => event.preventDefault());
  for (const name of ["text", "benchmark", "method", "direction"])
    field(name).addEventListener("input", () => { page = 0; refresh(); });
  before.addEventListener("click", () => { page -= 1; refresh(); });
  after.addEventListener("click", () => { page += 1; refresh(); });
  refresh();
}

// On paper everything is open; charts are as wide as the page and forests lower, so that their words stay of one size.
const PAPER = 690;
const heights = {};
let opened = [];
window.addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details:not([open])")];
  for (const part of opened) part.open = true;
  for (const [name, view] of Object.entries(views)) {
    const { height } = (data.charts[name].usermeta || {}).paper || {};
    heights[name] = view.height();
    view.width(PAPER).height(height || view.height()).run();
  }
});
window.addEventListener("afterprint", () => {
  for (const part of opened) part.open = false;
  for (const [name, view] of Object.entries(views)) view.height(heights[name]);
  window.dispatchEvent(new Event("resize"));
});

changedAnswers();
// One after the other, the first screen first, so that the page can be read meanwhile; `document.body.dataset.drawn` says when all are there.
const plots = document.querySelectorAll("[data-chart]");
plots.forEach(walk);
(async () => {
  for (const plot of plots) {
    await new Promise((done) => setTimeout(done));
    await draw(plot);
  }
  document.body.dataset.drawn = "yes";
})();
narrow.addEventListener("change", async () => { for (const plot of plots) await draw(plot); });
