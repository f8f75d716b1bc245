// What the pages are built of. Text always becomes text nodes: nothing that
// comes from the server is ever read as HTML.
import { t } from "./text.js";

const svgNames = new Set(["svg", "polyline"]);

// h makes an element. A value that is a function listens; null and false leave out.
export function h(name, attributes = {}, ...children) {
  const e = svgNames.has(name) ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") e.addEventListener(key, value);
    else if (value !== null && value !== undefined && value !== false) e.setAttribute(key, value === true ? "" : value);
  }
  e.append(...children.flat().filter((c) => c !== null && c !== undefined && c !== false));
  return e;
}

// table makes a table with a caption for screen readers; columns are texts, and
// those of numbers begin with #; that of buttons has none.
export function table(caption, columns) {
  const body = h("tbody");
  const head = columns.map((c) => (c === "" ? h("td") : c.startsWith("#") ? h("th", { scope: "col", class: "number" }, t(c.slice(1))) : h("th", { scope: "col" }, t(c))));
  return { element: h("div", { class: "scroll" }, h("table", { "aria-label": t(caption) }, h("thead", {}, h("tr", {}, head)), body)), body };
}

// keyed makes the rows of a table those of the items, and leaves a row alone that
// stays: what is focused keeps the focus.
export function keyed(body, items, key, make, update) {
  const rows = body.rowsByKey ?? (body.rowsByKey = new Map());
  const wanted = new Set(items.map(key));
  for (const [k, row] of rows) {
    if (!wanted.has(k)) {
      row.element.remove();
      rows.delete(k);
    }
  }
  const focused = body.contains(document.activeElement);
  items.forEach((item, i) => {
    let row = rows.get(key(item));
    if (!row) rows.set(key(item), (row = make(item)));
    if (!row.element.isConnected || (body.rows[i] !== row.element && !focused)) body.insertBefore(row.element, body.rows[i] ?? null);
    update?.(row, item);
  });
}

// field makes an input with its label.
export function field(label, input) {
  return h("label", {}, t(label), input);
}

export function select(value, options) {
  const e = h("select", {}, options.map(([v, label]) => h("option", { value: v }, label)));
  e.value = value;
  return e;
}

// say tells of something that was done, also to those who do not see it.
export function say(text) {
  document.getElementById("failure").textContent = "";
  document.getElementById("status").textContent = text;
}

export function fail(error) {
  document.getElementById("status").textContent = "";
  document.getElementById("failure").textContent = error ? error.message : "";
}

// ask has the user confirm; the focus goes back to where it was.
export function ask(question, action) {
  return new Promise((resolve) => {
    const dialog = h("dialog", { "aria-label": question, close: () => { dialog.remove(); resolve(dialog.returnValue === "yes"); } },
      h("p", {}, question),
      h("div", { class: "line" },
        h("button", { type: "button", class: "danger", click: () => dialog.close("yes") }, action),
        h("button", { type: "button", autofocus: true, click: () => dialog.close("no") }, t("Cancel"))));
    document.body.append(dialog);
    dialog.showModal();
  });
}

// every calls f now and every so many milliseconds, but not while nobody looks,
// until the returned function is called.
export function every(milliseconds, f) {
  let timer, stopped = false;
  const run = async () => {
    if (!document.hidden) {
      try { await f(); } catch (error) { if (!stopped) fail(error); }
    }
    if (!stopped) timer = setTimeout(run, milliseconds);
  };
  run();
  return () => { stopped = true; clearTimeout(timer); };
}

export const number = (n) => n.toLocaleString(document.documentElement.lang, { maximumFractionDigits: n < 10 ? 1 : 0 });
// lasted is how long it is since a time, in its largest unit.
export function lasted(since) {
  const seconds = Math.max(0, (Date.now() - new Date(since)) / 1000);
  const [unit, length] = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]].find(([, l]) => seconds >= l) ?? ["second", 1];
  return new Intl.NumberFormat(document.documentElement.lang, { style: "unit", unit, unitDisplay: "short" }).format(Math.floor(seconds / length));
}

export const time = (s) => (s ? new Date(s).toLocaleString(document.documentElement.lang) : t("never"));
