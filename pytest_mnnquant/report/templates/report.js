"use strict";
/* Search, sorting, the choice of variant and layer, colours, printing; and when a chart is drawn. */

const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const root = document.documentElement;

/* --- charts: drawn when they come into view, since the library takes a moment to load --- */

async function unpacked(id) {
  const code = atob(document.getElementById(id).textContent);
  const packed = new Uint8Array(code.length);
  for (let place = 0; place < code.length; place++) packed[place] = code.charCodeAt(place);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

let models = null, loading = null;
const load = () => loading ??= Promise.all([unpacked("library"), unpacked("data")]).then(([library, data]) => {
  const script = document.createElement("script");
  script.textContent = library;
  document.head.append(script);
  models = JSON.parse(data);
});

const isDark = () => !matchMedia("print").matches && !root.dataset.printing &&
  (root.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";

function chosen(figure) {
  const section = figure.closest(".model"), model = models[section.dataset.model];
  const variant = model.variants[section.querySelector("select.variant").value];
  return {model, variant, layer: section.querySelector("select.layer").value, figure};
}

function draw(figure, width = null) {
  const colours = COLOURS[isDark() ? "dark" : "light"], chart = CHARTS[figure.dataset.chart]({...chosen(figure), colours});
  let plot = figure.querySelector(".plot");
  figure.hidden = chart === null;
  if (chart === null) return;
  figure.querySelector(".nothing")?.remove();
  if (typeof chart === "string") {
    if (plot) { Plotly.purge(plot); plot.remove(); }
    figure.append(Object.assign(document.createElement("p"), {className: "nothing muted", textContent: chart}));
    return;
  }
  const isNew = !plot;
  if (isNew) {
    plot = Object.assign(document.createElement("div"), {className: "plot"});
    plot.setAttribute("role", "img");
    figure.append(plot);
  }
  plot.setAttribute("aria-label", chart.says);
  const axis = {gridcolor: colours.line, zerolinecolor: colours.line, fixedrange: true};
  const layout = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: {color: colours.text, size: 13, family: "inherit"},
    showlegend: true, dragmode: false,
    margin: {l: 60, r: 16, t: 30, b: 50}, autosize: width === null, ...(width === null ? {} : {width}), ...chart.layout,
    legend: {orientation: "h", y: 1.02, yanchor: "bottom", x: 0, ...chart.layout.legend},
    xaxis: {...axis, ...chart.layout.xaxis}, yaxis: {...axis, ...chart.layout.yaxis},
  };
  Plotly.react(plot, chart.traces, layout, {displayModeBar: false, responsive: true, showTips: false});
  if (isNew)
    plot.on("plotly_click", ({points: [point]}) => point?.customdata && pick(figure.closest(".model"), point.customdata));
}

const drawn = () => all("figure.chart").filter((figure) => figure.querySelector(".plot, .nothing"));
const visible = new IntersectionObserver((entries) => {
  for (const {isIntersecting, target} of entries)
    if (isIntersecting) {
      visible.unobserve(target);
      load().then(() => draw(target));
    }
}, {rootMargin: "300px"});

/* --- the variant and the layer that a model's charts show --- */

function showVariant(section) {
  const value = section.querySelector("select.variant").value, layer = section.querySelector("select.layer");
  for (const part of all(".layers", section)) part.hidden = part.dataset.variant !== value;
  const shown = section.querySelector(`.layers[data-variant="${value}"]`), before = layer.value;
  layer.replaceChildren(...all(".pick", shown).map((button) => new Option(button.textContent, button.value)));
  const first = shown.querySelector("tr:has(strong) .pick") ?? shown.querySelector(".fault .pick");  // the most to blame
  if (all("option", layer).some((option) => option.value === before)) layer.value = before;
  else if (first) layer.value = first.value;
  redraw(section, ["map", "losses", "weights", "activations"]);
}

function redraw(section, names) {
  for (const figure of drawn()) if (section.contains(figure) && names.includes(figure.dataset.chart)) draw(figure);
}

function pick(section, name) {
  section.querySelector("select.layer").value = name;
  redraw(section, ["weights", "activations"]);
}

for (const section of all(".model")) {
  const variant = section.querySelector("select.variant");
  if (!variant) continue;
  variant.addEventListener("change", () => showVariant(section));
  section.querySelector("select.layer").addEventListener("change", (event) => pick(section, event.target.value));
  section.addEventListener("click", (event) => {
    const button = event.target.closest(".pick");
    if (!button) return;
    pick(section, button.value);
    section.querySelector("select.layer").focus({preventScroll: true});
    section.querySelector(".pair").scrollIntoView({block: "center"});
  });
  showVariant(section);
}

/* --- sorting --- */

const key = (row, column) => {
  const cell = row.cells[column], value = cell.dataset.value;
  if (value !== undefined) return Number(value);
  return cell.classList.contains("number") ? NaN : cell.textContent.trim().toLowerCase();
};

function compared(a, b) {
  if (typeof a === "string") return a.localeCompare(b);
  return Number.isNaN(a) ? (Number.isNaN(b) ? 0 : Infinity) : Number.isNaN(b) ? -Infinity : a === b ? 0 : a - b;
}

function sort(heading) {
  const table = heading.closest("table"), column = heading.cellIndex, body = table.tBodies[0];
  const down = heading.getAttribute("aria-sort") === "ascending", sign = down ? -1 : 1;
  for (const other of all("thead th", table)) other.setAttribute("aria-sort", "none");
  heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  const rows = [...body.rows].map((row) => [key(row, column), row]);
  rows.sort(([a], [b]) => {  // What was not measured stays at the end.
    const order = compared(a, b);
    return Number.isNaN(a) || Number.isNaN(b) ? order : sign * order;
  });
  body.append(...rows.map(([, row]) => row));
}

for (const button of all("button.sort")) button.addEventListener("click", () => sort(button.closest("th")));

/* --- search --- */

const search = document.getElementById("search"), found = document.getElementById("found");
let parts = null, timer = 0;

function seek() {
  parts ??= all(".searched").flatMap((part) => part.tBodies ? [...part.tBodies[0].rows] : [part])
    .map((part) => [part, part.textContent.toLowerCase()]);
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  for (const [part, text] of parts) {
    part.hidden = !words.every((word) => text.includes(word));
    count += !part.hidden && part.closest(".layers[hidden]") === null;
  }
  found.textContent = words.length ? `“${search.value.trim()}” is in ${count} of the rows, findings and rules` : "";
}

search.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(seek, 120); });
search.addEventListener("keydown", (event) => { if (event.key === "Escape") { search.value = ""; seek(); } });
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && !event.target.closest("input, select")) { event.preventDefault(); search.focus(); }
});

/* --- colours --- */

const theme = document.getElementById("theme");

function colour(name) {
  if (name === "system") delete root.dataset.theme; else root.dataset.theme = name;
  theme.textContent = `Theme: ${name}`;
  try { localStorage.setItem("mnnquant-theme", name); } catch { /* a browser may keep nothing for files */ }
  drawn().forEach((figure) => draw(figure));
}

theme.addEventListener("click", () => {
  const names = ["system", "light", "dark"];
  colour(names[(names.indexOf(root.dataset.theme ?? "system") + 1) % names.length]);
});
try { colour(localStorage.getItem("mnnquant-theme") ?? "system"); } catch { /* as above */ }
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawn().forEach((figure) => draw(figure)));

/* --- a rule that is linked to is opened --- */

function openTarget() {
  const target = location.hash.startsWith("#rule-") && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  target.hidden = false;
  target.open = true;
  target.scrollIntoView();
}

addEventListener("hashchange", openTarget);
openTarget();

/* --- printing: all charts, in light colours and as wide as a page; all that is folded --- */

const PAGE = 690;
let folded = [];

addEventListener("beforeprint", () => {
  root.dataset.printing = "yes";
  folded = all("details:not([open])");
  for (const details of folded) details.open = true;
  if (models) for (const figure of all("figure.chart")) draw(figure, figure.closest(".pair") ? PAGE / 2 - 10 : PAGE);
});
addEventListener("afterprint", () => {
  delete root.dataset.printing;
  for (const details of folded) details.open = false;
  for (const figure of drawn()) draw(figure);
});
document.getElementById("print").addEventListener("click", () => load().then(() => print()));

for (const figure of all("figure.chart")) visible.observe(figure);
addEventListener("load", () => setTimeout(load, 3000));  // So that a page prints with its charts even if it was not scrolled.
