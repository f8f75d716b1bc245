import { call, consumerPath, get } from "./api.js";
import { every, fail, field, h, number, say, table } from "./dom.js";
import { Spark } from "./spark.js";
import { t } from "./text.js";

const perPage = 20;

export const limitText = (l) => Object.entries(l).filter(([k]) => !["burst", "name"].includes(k)).map(([k, v]) => (k === "rate" ? v : `${k} ${typeof v === "object" ? JSON.stringify(v) : v}`)).join(" ");

// consumers is the list, a page at a time: the server searches and cuts.
export function consumers(to, query) {
  const pages = [""]; // the tokens of the pages up to this one
  let sparks = [], next = "", loading = 0, pause;
  const search = h("input", { type: "search", value: query.get("q") ?? "", autocomplete: "off", spellcheck: "false" });
  const list = table("Consumers", ["Consumer", "Limits", "Of late", "#Admitted/s", "#Refused/s", ""]);
  const none = h("p", { class: "dim", hidden: true }, t("No consumer is called so."));
  const back = h("button", { type: "button", click: () => { pages.pop(); load(true); } }, t("Previous page"));
  const on = h("button", { type: "button", click: () => { pages.push(next); load(true); } }, t("Next page"));

  function row(c) {
    const spark = new Spark(c.id);
    const admitted = h("td", { class: "number" }), refused = h("td", { class: "number" });
    spark.show = () => {
      admitted.textContent = number(spark.rates.admitted);
      refused.textContent = number(spark.rates.refused);
    };
    sparks.push(spark);
    const limits = c.limits.length ? c.limits.map(limitText).join(", ") : c.plan ? t("plan {0}", c.plan) : t("default");
    return h("tr", {}, h("td", { class: "id" }, h("a", { href: "#/consumers/" + encodeURIComponent(c.id) }, c.id)), h("td", {}, limits),
      h("td", {}, spark.element), admitted, refused, h("td", { class: "bad" }, c.disabled ? t("disabled") : ""));
  }

  async function load(announce) {
    const mine = ++loading;
    try {
      const parameters = new URLSearchParams({ page_size: perPage, page_token: pages.at(-1), q: search.value.trim() });
      const page = await get("/v1/consumers?" + parameters);
      if (mine !== loading) return; // a later one is on its way
      sparks = [];
      next = page.next_page_token;
      list.body.replaceChildren(...page.consumers.map(row));
      none.hidden = page.consumers.length > 0;
      list.element.hidden = page.consumers.length === 0;
      back.disabled = pages.length === 1;
      on.disabled = !next;
      if (announce) say(t("Page {0}, {1} consumers", pages.length, page.consumers.length));
      await feed();
    } catch (error) { fail(error); }
  }

  const feed = () => Promise.all(sparks.map(async (s) => { await s.feed(); s.show(); }));

  search.addEventListener("input", () => {
    clearTimeout(pause);
    pause = setTimeout(() => {
      pages.length = 1;
      history.replaceState(null, "", "#/consumers" + (search.value ? "?q=" + encodeURIComponent(search.value) : ""));
      load(true);
    }, 200);
  });
  to.append(
    h("form", { class: "card line", role: "search", submit: (e) => e.preventDefault() }, field("Search by id", search)),
    h("section", {}, list.element, none, h("div", { class: "line" }, back, on, h("span", { class: "key admitted" }, t("admitted")), h("span", { class: "key refused" }, t("refused")))),
    add());
  load(false);
  const stop = every(2000, () => sparks.some((s) => s.last) ? feed() : undefined);
  return () => { stop(); clearTimeout(pause); loading++; };
}

// add makes a consumer and goes to it.
function add() {
  const id = h("input", { required: true, pattern: "[A-Za-z0-9._@\\-]{1,128}", autocomplete: "off", spellcheck: "false" });
  const limit = h("input", { class: "short", placeholder: "100/s" });
  return h("section", {}, h("h2", {}, t("Add a consumer")), h("form", {
    class: "line",
    submit: async (event) => {
      event.preventDefault();
      try {
        await call("PUT", consumerPath(id.value), { limits: limit.value ? [{ rate: limit.value }] : [] }, { "if-none-match": "*" });
        location.hash = "#/consumers/" + encodeURIComponent(id.value);
      } catch (error) { fail(error); }
    },
  }, field("Id", id), field("Limit (empty: the default)", limit), h("button", { class: "first" }, t("Add"))));
}
