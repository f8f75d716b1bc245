// How much of what was asked for was admitted and refused of late, as lines.
import { get, consumerPath } from "./api.js";
import { h, number } from "./dom.js";
import { t } from "./text.js";

const kept = 60; // points

// totals sums up a consumer's use: of several limits on a token, each has seen
// what was admitted; what was refused is counted by the one that did.
function totals(usage) {
  const admitted = new Map();
  let refused = 0;
  for (const u of usage) {
    admitted.set(u.token, Math.max(admitted.get(u.token) ?? 0, u.admitted));
    refused += u.refused;
  }
  const shared = admitted.get("") ?? 0; // limits of the whole consumer
  admitted.delete("");
  return { admitted: Math.max(shared, [...admitted.values()].reduce((a, b) => a + b, 0)), refused };
}

// Spark is one consumer's picture; feed it now and then.
export class Spark {
  constructor(id, large) {
    this.id = id;
    this.points = [];
    this.lines = ["admitted", "refused"].map((c) => h("polyline", { class: c }));
    this.element = h("svg", { class: large ? "spark large" : "spark", viewBox: `0 0 ${kept - 1} 20`, preserveAspectRatio: "none", role: "img" }, this.lines);
    this.label(0, 0);
  }

  label(admitted, refused) {
    this.rates = { admitted, refused };
    this.element.setAttribute("aria-label", t("{0} admitted and {1} refused a second", number(admitted), number(refused)));
  }

  // feed asks for the use and draws; it returns the use.
  async feed() {
    const { usage } = await get(consumerPath(this.id, "usage"));
    const now = performance.now(), sum = totals(usage);
    if (this.last) {
      const seconds = (now - this.last.now) / 1000;
      // Counts begin anew when the limit changes.
      const rate = (k) => Math.max(0, sum[k] - this.last.sum[k]) / seconds;
      this.points.push([rate("admitted"), rate("refused")]);
      if (this.points.length > kept) this.points.shift();
      this.draw();
    }
    this.last = { now, sum };
    return usage;
  }

  draw() {
    const top = Math.max(1, ...this.points.flat()), from = kept - this.points.length;
    this.lines.forEach((line, i) =>
      line.setAttribute("points", this.points.map((p, x) => `${from + x},${(19 - (p[i] / top) * 18).toFixed(2)}`).join(" ")));
    this.label(...this.points.at(-1));
  }
}
