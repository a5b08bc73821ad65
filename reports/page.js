// What a reader may do with the page: sort and search its tables, enlarge its figures, read values off them.
// Without it the page says the same.
"use strict";

const number = (text) => {
  const found = text.replace(/[ ,\u2009\u202f]/g, "").replace("−", "-").match(/^-?[\d.]+(e[-+]?\d+)?/i);
  return found ? Number(found[0]) : NaN;
};

const before = (a, b) => {
  const [x, y] = [number(a), number(b)];
  if (!Number.isNaN(x) && !Number.isNaN(y)) return x - y;
  if (Number.isNaN(x) !== Number.isNaN(y)) return Number.isNaN(x) ? 1 : -1;
  return a.localeCompare(b, undefined, { numeric: true });
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
      const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
      const rows = [...table.tBodies[0].rows].sort((a, b) => before(value(a), value(b)));
      table.tBodies[0].append(...(down ? rows.reverse() : rows));
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
