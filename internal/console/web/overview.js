import { call, get } from "./api.js";
import { ask, every, fail, field, h, keyed, lasted, number, say, select, table, time } from "./dom.js";
import { t } from "./text.js";

export function overview(to) {
  const parts = [refusedNow(), upstreams(), mode(), busiest("Busiest consumers", "admitted"), busiest("Most refused consumers", "refused"), configuration()];
  to.append(h("div", { class: "columns" }, parts.map((p) => p.element)));
  return every(2000, () => Promise.all(parts.map((p) => p.refresh())));
}

// by says what refuses.
function by(r) {
  if (r.reason === "upstream-pressure") return t("The upstream {0} asked for a pause", r.upstream);
  if (r.limit && r.upstream) return t("Limit {0} of the upstream {1}", r.rate, r.upstream);
  if (r.rule) return t("Rule {0}: {1}", r.rule, r.rate);
  if (r.limit) return t("Limit {0}: {1}", r.limit, r.rate);
  if (r.upstream) return t("Budget or queue of the upstream {0}", r.upstream);
  const reasons = { "missing-credentials": t("No token"), "invalid-credentials": t("Unknown, expired or revoked token"), "consumer-disabled": t("The consumer is disabled"), "store-unavailable": t("The store that instances share is away") };
  return reasons[r.reason] ?? r.reason;
}

// refusedNow is for whoever is paged: who, by what, since when, and whether
// Tollgate or an upstream is the reason.
function refusedNow() {
  const list = table("Refused now", ["Consumer", "Token", "Refused by", "Reason", "Since", "#Refused", "#Refused/s"]);
  const told = h("p", { role: "status" });
  let was = new Map(), at = 0;
  const key = (r) => [r.consumer, r.token, r.api, r.reason, r.limit, r.rule, r.upstream, r.since].join(" ");
  const refresh = async () => {
    const { refusals: all } = await get("/v1/refusals?n=20");
    const now = performance.now(), counts = new Map(all.map((r) => [key(r), r.refused]));
    const text = all.length === 0 ? t("Nobody is being refused.") : "";
    if (told.textContent !== text) told.textContent = text;
    list.element.hidden = all.length === 0;
    keyed(list.body, all, key, (r) => {
      const cells = { since: h("td"), refused: h("td", { class: "number" }), rate: h("td", { class: "number" }) };
      const who = r.consumer ? h("a", { href: "#/consumers/" + encodeURIComponent(r.consumer) }, r.consumer) : t("nobody known");
      const outside = r.reason === "upstream-pressure";
      return { element: h("tr", {}, h("td", { class: "id" }, who), h("td", { class: "id" }, r.token), h("td", {}, by(r)), h("td", { class: outside ? "bad" : "" }, outside ? t("upstream") : "Tollgate"), cells.since, cells.refused, cells.rate), cells };
    }, (row, r) => {
      row.cells.since.textContent = `${time(r.since)} (${lasted(r.since)})`;
      row.cells.refused.textContent = number(r.refused);
      row.cells.rate.textContent = was.has(key(r)) ? number(((r.refused - was.get(key(r))) * 1000) / (now - at)) : "";
    });
    [was, at] = [counts, now];
  };
  return { element: h("section", { class: "wide" }, h("h2", {}, t("Refused now")), told, list.element), refresh };
}

// mode is the global switch.
function mode() {
  const modes = select("enforce", [["enforce", t("enforce: refuse what is over its limit")], ["shadow", t("shadow: decide and count, refuse nobody")], ["off", t("off: do not even decide")]]);
  const limit = h("input", { class: "short", placeholder: "20/s" });
  const level = select("info", ["debug", "info", "warn", "error"].map((l) => [l, l]));
  let known = {};
  const refresh = async () => {
    const now = await get("/v1/settings");
    // What somebody is just changing stays.
    if (modes.value === (known.mode ?? modes.value)) modes.value = now.mode;
    if (limit.value === (known.default_limit ?? "")) limit.value = now.default_limit;
    if (level.value === (known.log_level ?? level.value)) level.value = now.log_level;
    known = now;
  };
  const form = h("form", {
    class: "line",
    submit: async (event) => {
      event.preventDefault();
      if (modes.value !== "enforce" && modes.value !== known.mode && !(await ask(t("No limit will hold for anybody. Go on?"), t("Switch to {0}", modes.value)))) return;
      try {
        known = (await call("PUT", "/v1/settings", { mode: modes.value, default_limit: limit.value, log_level: level.value })).body;
        say(t("The settings are in force."));
      } catch (error) { fail(error); }
    },
  }, field("Mode", modes), field("Default limit", limit), field("Log level", level), h("button", { class: "first" }, t("Apply")));
  return { element: h("section", {}, h("h2", {}, t("Limits everywhere")), form), refresh };
}

// upstreams are those that Tollgate paces, with how long a pause still lasts.
function upstreams() {
  const states = { open: t("open"), held: t("held: a queue has formed"), frozen: t("frozen: paused"), probing: t("probing") };
  const list = table("Upstreams under pressure", ["Upstream", "State", "#Goes on in", "#Violations", ""]);
  const none = h("p", { class: "dim" }, t("No upstream is configured."));
  const refresh = async () => {
    const { upstreams: all } = await get("/v1/upstreams");
    none.hidden = all.length > 0;
    list.element.hidden = all.length === 0;
    keyed(list.body, all, (u) => u.id, (u) => {
      const cells = { state: h("td"), left: h("td", { class: "number" }), violations: h("td", { class: "number" }) };
      const end = h("button", {
        type: "button", "aria-label": t("End the pause of {0}", u.id),
        click: async () => {
          try {
            await call("DELETE", `/v1/upstreams/${encodeURIComponent(u.id)}/pressure`);
            say(t("The pause of {0} has ended.", u.id));
          } catch (error) { fail(error); }
        },
      }, t("End the pause"));
      return { element: h("tr", {}, h("td", { class: "id" }, u.id), cells.state, cells.left, cells.violations, h("td", {}, end)), cells, end };
    }, (row, u) => {
      row.cells.state.textContent = states[u.state] ?? u.state;
      row.cells.state.className = u.state === "open" ? "" : "bad";
      const left = u.until ? Math.max(0, (new Date(u.until) - Date.now()) / 1000) : 0;
      row.cells.left.textContent = left > 0 ? t("{0} s", number(Math.ceil(left))) : "";
      row.cells.violations.textContent = number(u.violations);
      row.end.hidden = u.state === "open";
    });
  };
  return { element: h("section", {}, h("h2", {}, t("Upstreams under pressure")), none, list.element), refresh };
}

function busiest(title, by) {
  const list = table(title, ["Consumer", "#Admitted", "#Refused"]);
  const none = h("p", { class: "dim" }, t("Nobody yet."));
  const refresh = async () => {
    const { top } = await get(`/v1/top?by=${by}&n=10`);
    const all = top.filter((c) => c[by] > 0);
    none.hidden = all.length > 0;
    list.element.hidden = all.length === 0;
    keyed(list.body, all, (c) => c.consumer, (c) => {
      const cells = { admitted: h("td", { class: "number" }), refused: h("td", { class: "number" }) };
      return { element: h("tr", {}, h("td", { class: "id" }, h("a", { href: "#/consumers/" + encodeURIComponent(c.consumer) }, c.consumer)), cells.admitted, cells.refused), cells };
    }, (row, c) => {
      row.cells.admitted.textContent = number(c.admitted);
      row.cells.refused.textContent = number(c.refused);
    });
  };
  return { element: h("section", {}, h("h2", {}, t(title)), none, list.element), refresh };
}

function configuration() {
  const loaded = h("p"), files = h("ul"), error = h("pre", { class: "bad", role: "alert" });
  const refresh = async () => {
    const c = await get("/v1/config");
    loaded.textContent = t("In force since {0}.", time(c.loaded_at));
    if (files.childElementCount !== c.files.length) files.replaceChildren(...c.files.map((f) => h("li", {}, h("code", {}, f))));
    const text = c.last_error ? t("The files as they are now are not in force:") + "\n" + c.last_error : "";
    if (error.textContent !== text) error.textContent = text;
  };
  return { element: h("section", {}, h("h2", {}, t("Configuration")), loaded, files, error), refresh };
}
