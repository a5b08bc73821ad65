// What a reader may do with the page: sort and search its tables, enlarge its figures, read values off them.
// Without it the page says the same.
"use strict";

const digits = { "⁰": 0, "¹": 1, "²": 2, "³": 3, "⁴": 4, "⁵": 5, "⁶": 6, "⁷": 7, "⁸": 8, "⁹": 9, "⁻": "-" };

// The number that a cell is, with its unit or interval; NaN where it is anything else.
const number = (text) => {
  const plain = text.split(/[\n[]/)[0].replace(/[ ,\u2009\u202f\u00a0]/g, "").replace(/−/g, "-").replace(/^≤|%$/g, "");
  const power = plain.replace(/(?:^|·)10([⁻⁰¹²³⁴-⁹]+)$/, (found, raised) => `${found[0] === "·" ? "" : 1}e${[...raised].map((c) => digits[c]).join("")}`);
  return power === "" ? NaN : Number(power);
};

// What is no number comes last, whichever way the column is sorted.
const before = (a, b, sign) => {
  const [x, y] = [number(a), number(b)];
  if (!Number.isNaN(x) && !Number.isNaN(y)) return sign * (x - y);
  if (Number.isNaN(x) !== Number.isNaN(y)) return Number.isNaN(x) ? 1 : -1;
  return sign * a.localeCompare(b, undefined, { numeric: true });
};

function sortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (row) => row.cells[column].innerText.trim();
      const rows = [...table.tBodies[0].rows].sort((a, b) => before(value(a), value(b), down ? -1 : 1));
      table.tBodies[0].append(...rows);
    });
  });
}

function searchable(input) {
  const rows = [...document.getElementById(input.getAttribute("aria-controls")).tBodies[0].rows];
  if (rows.length < 8) return;  // all are in sight
  const count = input.closest("p").querySelector("output");
  input.closest("p").hidden = false;
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/);
    for (const row of rows) row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
    const shown = rows.filter((row) => !row.hidden).length;
    count.textContent = `${shown} of ${rows.length}`;
  });
}

// --- figures ---------------------------------------------------------------------------------------------------

const between = (low, high, part, scale) =>
  scale === "log" ? low * (high / low) ** part : low + (high - low) * part;

function read(svg, event) {
  const [left, top, right, bottom] = svg.dataset.frame.split(" ").map(Number);
  const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
  const across = (at.x - left) / (right - left);
  const up = (bottom - at.y) / (bottom - top);
  if (Math.min(across, up) < 0 || Math.max(across, up) > 1) return "";
  const value = ([scale, low, high], part) => between(Number(low), Number(high), part, scale).toPrecision(4);
  const [x, y] = [value(svg.dataset.x.split(" "), across), value(svg.dataset.y.split(" "), up)];
  return `${svg.dataset.across} ${Number(x)}, value ${Number(y)}`;
}

function readable(svg, output) {
  svg.addEventListener("pointermove", (event) => { output.textContent = read(svg, event); });
  svg.addEventListener("pointerleave", () => { output.textContent = ""; });
}

function enlargeable(panel, dialog) {
  const svg = panel.querySelector("svg");
  const button = document.createElement("button");
  button.className = "enlarge";
  button.textContent = "enlarge";
  button.setAttribute("aria-label", `enlarge: ${svg.getAttribute("aria-label")}`);
  const output = document.createElement("output");
  const tools = document.createElement("p");
  tools.className = "tools";
  tools.append(output, button);
  panel.append(tools);
  if (svg.dataset.frame) readable(svg, output);
  button.addEventListener("click", () => {
    const place = dialog.querySelector("div");
    const mark = document.createComment("");
    svg.replaceWith(mark);  // moved, not copied: its ids stay unique
    place.append(svg, output);
    dialog.addEventListener("close", () => { mark.replaceWith(svg); tools.prepend(output); button.focus(); }, { once: true });
    dialog.showModal();
  });
}

document.querySelectorAll("table.sortable").forEach(sortable);
document.querySelectorAll("input[type=search]").forEach(searchable);
const dialog = document.getElementById("enlarged");
document.querySelectorAll(".panels > div").forEach((panel) => enlargeable(panel, dialog));
dialog.addEventListener("click", ({ target }) => { if (target === dialog || target.closest("p button")) dialog.close(); });
document.querySelectorAll("a[href^='#']").forEach((link) => link.addEventListener("click", () => {
  const closed = document.getElementById(link.hash.slice(1))?.closest("details:not([open])");
  if (closed) closed.open = true;
}));
