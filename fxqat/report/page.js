"use strict";
// Tables: a click on a head sorts by it, words in a search field filter. Graph: move, zoom, search, follow the data.

const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const byId = (id) => document.getElementById(id);

// ---- tables

function cellValue(row, column, kind) {
  const cell = row.cells[column];
  const text = cell.dataset.v ?? cell.textContent.trim();
  if (kind === "s") return text.toLowerCase();
  if (text === "∞") return Infinity;
  const value = parseFloat(text);
  return Number.isNaN(value) ? null : value;
}

function sortBy(head, kind) {
  const table = head.closest("table"), body = table.tBodies[0], column = head.cellIndex;
  const up = head.getAttribute("aria-sort") === "none" || !head.hasAttribute("aria-sort") ? kind === "s" : head.getAttribute("aria-sort") === "descending";
  all("th[aria-sort]", table.tHead).forEach((other) => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const keyed = all("tr", body).map((row) => [cellValue(row, column, kind), row]);
  keyed.sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null); // what has no number stays below
    const order = kind === "s" ? a.localeCompare(b, undefined, { numeric: true }) : a - b;
    return up ? order : -order;
  });
  body.append(...keyed.map(([, row]) => row));
}

for (const button of all("button[data-sort]")) {
  button.addEventListener("click", () => sortBy(button.closest("th"), button.dataset.sort));
}

function filter(input) {
  const rows = all(`table[data-name="${input.dataset.table}"] tbody tr`);
  const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const row of rows) {
    row.dataset.text ??= row.textContent.toLowerCase();
    row.hidden = !words.every((word) => row.dataset.text.includes(word));
    shown += !row.hidden;
  }
  byId(`count-${input.dataset.table}`).textContent = words.length ? `${shown} of ${rows.length}` : "";
}

for (const input of all("input[data-table]")) input.addEventListener("input", () => filter(input));

// ---- copy

for (const button of all("button[data-copy]")) {
  button.addEventListener("click", async () => {
    const source = byId(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(source.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(source); // a page opened from a file may have no clipboard
      button.textContent = "Selected";
    }
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
}

// ---- graph: the view

const net = byId("net"), panel = byId("panel");
const whole = { x: net.viewBox.baseVal.x, y: net.viewBox.baseVal.y, w: net.viewBox.baseVal.width, h: net.viewBox.baseVal.height };
let view = { x: whole.x, y: whole.y, w: whole.w, h: whole.h };

function show(next) {
  view = next;
  net.setAttribute("viewBox", `${view.x} ${view.y} ${view.w} ${view.h}`);
}

function unitsPerPixel() {
  const { width, height } = net.getBoundingClientRect();
  return Math.max(view.w / width, view.h / height);
}

function zoom(factor, x = view.x + view.w / 2, y = view.y + view.h / 2) {
  const w = Math.min(Math.max(view.w * factor, 160), whole.w * 1.4), by = w / view.w;
  show({ x: x - (x - view.x) * by, y: y - (y - view.y) * by, w, h: view.h * by });
}

function toGraph(event) {
  const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(net.getScreenCTM().inverse());
  return [point.x, point.y];
}

function centre(node, near = false) {
  const { e, f } = node.transform.baseVal.consolidate().matrix, { width, height } = node.getBBox();
  const w = near ? Math.min(view.w, 900) : view.w, h = (view.h / view.w) * w;
  show({ x: e + width / 2 - w / 2, y: f + height / 2 - h / 2, w, h });
}

const fit = () => show({ x: whole.x, y: whole.y, w: whole.w, h: whole.h });
const zooms = { in: () => zoom(0.7), out: () => zoom(1 / 0.7), fit };
for (const button of all("button[data-zoom]")) button.addEventListener("click", zooms[button.dataset.zoom]);

// A wheel scrolls the page; with Ctrl, or a pinch on a trackpad, it zooms.
net.addEventListener("wheel", (event) => {
  if (!event.ctrlKey && !event.metaKey) return;
  event.preventDefault();
  zoom(Math.exp(event.deltaY * 0.004), ...toGraph(event));
}, { passive: false });

const touches = new Map();
let moved = 0;
const spread = () => { const [a, b] = [...touches.values()]; return Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY); };

net.addEventListener("pointerdown", (event) => {
  touches.set(event.pointerId, event);
  moved = 0;
});
net.addEventListener("pointermove", (event) => {
  const before = touches.get(event.pointerId);
  if (!before) return;
  const apart = touches.size === 2 ? spread() : 0;
  touches.set(event.pointerId, event);
  const dx = event.clientX - before.clientX, dy = event.clientY - before.clientY;
  moved += Math.abs(dx) + Math.abs(dy);
  if (moved > 4) { net.classList.add("moving"); net.setPointerCapture(event.pointerId); }
  if (apart) return zoom(apart / Math.max(spread(), 1), ...toGraph(event));
  const unit = unitsPerPixel();
  show({ ...view, x: view.x - dx * unit, y: view.y - dy * unit });
});
for (const name of ["pointerup", "pointercancel"]) {
  net.addEventListener(name, (event) => { touches.delete(event.pointerId); net.classList.remove("moving"); });
}

// ---- graph: the sites

const nodes = all(".node", net), details = JSON.parse(byId("sites").textContent);
const nodeOf = Object.fromEntries(nodes.map((node) => [node.dataset.site, node]));
const edges = all(".edges path", net);
let chosen = null;

function choose(node) {
  chosen?.classList.remove("chosen");
  chosen = node;
  node.classList.add("chosen");
  const site = node.dataset.site;
  for (const edge of edges) edge.classList.toggle("lit", edge.dataset.a === site || edge.dataset.b === site);
  const title = Object.assign(document.createElement("h3"), { textContent: site });
  const list = document.createElement("dl");
  for (const [name, value] of Object.entries(details[site])) {
    list.append(Object.assign(document.createElement("dt"), { textContent: name }), Object.assign(document.createElement("dd"), { textContent: value }));
  }
  panel.replaceChildren(title, list);
}

function inSight(node) {
  const a = node.getBoundingClientRect(), b = net.getBoundingClientRect();
  return a.left >= b.left && a.right <= b.right && a.top >= b.top && a.bottom <= b.bottom;
}

// Down and up follow the data; left and right go through what the same site reads or feeds.
function step(key) {
  if (!chosen) return nodes[0];
  const site = chosen.dataset.site;
  const after = edges.filter((edge) => edge.dataset.a === site).map((edge) => edge.dataset.b);
  const before = edges.filter((edge) => edge.dataset.b === site).map((edge) => edge.dataset.a);
  if (key === "ArrowDown") return nodeOf[after[0]];
  if (key === "ArrowUp") return nodeOf[before[0]];
  const beside = before.length ? edges.filter((edge) => edge.dataset.a === before[0]).map((edge) => edge.dataset.b) : [site];
  const index = beside.indexOf(site) + (key === "ArrowRight" ? 1 : -1);
  return nodeOf[beside[(index + beside.length) % beside.length]];
}

net.addEventListener("click", (event) => {
  const node = event.target.closest(".node");
  if (node && moved <= 4) choose(node);
});
net.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const does = { "+": zooms.in, "=": zooms.in, "-": zooms.out, 0: fit, Home: () => go(nodes[0]), End: () => go(nodes.at(-1)) };
  if (event.key.startsWith("Arrow")) go(step(event.key));
  else if (does[event.key]) does[event.key]();
  else return;
  event.preventDefault();
});

function go(node) {
  if (!node) return;
  choose(node);
  if (!inSight(node)) centre(node);
}

// ---- graph: search and colour

const finder = byId("find-node");
let found = [], at = 0;

finder.addEventListener("input", () => {
  const words = finder.value.toLowerCase().split(/\s+/).filter(Boolean);
  const text = (node) => `${node.dataset.site} ${node.textContent} ${details[node.dataset.site].Operation}`.toLowerCase();
  found = words.length ? nodes.filter((node) => words.every((word) => text(node).includes(word))) : [];
  at = 0;
  net.classList.toggle("finding", found.length > 0);
  for (const node of nodes) node.classList.toggle("found", found.includes(node));
  byId("count-node").textContent = words.length ? `${found.length} found${found.length ? "; Enter goes from one to the next" : ""}` : "";
});
finder.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !found.length) return;
  choose(found[at]);
  centre(found[at], true);
  byId("count-node").textContent = `${at + 1} of ${found.length}: ${found[at].dataset.site}`;
  at = (at + 1) % found.length;
});

const steps = {
  error: ["25 dB and more", "20 to 25 dB", "15 to 20 dB", "10 to 15 dB", "less than 10 dB"],
  share: ["less than 0.5 %", "0.5 to 1 %", "1 to 2 %", "2 to 5 %", "5 % and more"],
  work: ["less than 0.5 %", "0.5 to 1 %", "1 to 2 %", "2 to 5 %", "5 % and more"],
};
const paint = byId("paint");

function swatch(colour, words, dashed = false) {
  const item = document.createElement("span"), box = document.createElement("span");
  box.className = dashed ? "swatch dashed" : "swatch";
  box.style.background = colour;
  item.append(box, words);
  return item;
}

function colour() {
  net.setAttribute("class", `by-${paint.value}${net.classList.contains("finding") ? " finding" : ""}`);
  const items = steps[paint.value]
    ? steps[paint.value].map((words, level) => swatch(`var(--l${level})`, words))
    : [swatch("var(--int)", "integers")];
  byId("legend").replaceChildren(...items, swatch("transparent", "dashed outline: float", true));
}

paint.addEventListener("change", colour);
colour();
if (net.clientWidth < 640) { // a phone begins where the data does; Fit shows all
  const w = Math.min(whole.w, 430);
  show({ x: whole.x, y: whole.y, w, h: (w * net.clientHeight) / Math.max(net.clientWidth, 1) });
}
