import { call, consumerPath, get } from "./api.js";
import { ask, every, fail, field, h, keyed, number, say, select, table, time } from "./dom.js";
import { Spark } from "./spark.js";
import { t } from "./text.js";

const kinds = ["rate", "window", "quota", "pace", "idle_reset"];

export function consumer(to, id) {
  const spark = new Spark(id, true);
  const use = table("Use", ["Token", "Limit", "#Remaining", "#Full again in", "#Admitted", "#Refused"]);
  const refill = h("button", {
    type: "button",
    click: async () => {
      try {
        await call("DELETE", consumerPath(id, "usage"));
        say(t("All buckets of {0} are full again.", id));
      } catch (error) { fail(error); }
    },
  }, t("Fill all buckets again"));
  const form = settings(id), secrets = tokens(id);
  to.append(
    h("section", {}, h("h2", {}, t("Of late")), spark.element, h("p", {}, h("span", { class: "key admitted" }, t("admitted")), " ", h("span", { class: "key refused" }, t("refused")))),
    h("section", {}, h("h2", {}, t("Use")), use.element, refill),
    form.element, secrets.element);
  form.load();
  secrets.load();
  return every(2000, async () => {
    const usage = await spark.feed();
    keyed(use.body, usage, (u) => u.token + " " + u.limit, (u) => {
      const cells = ["remaining", "reset", "admitted", "refused"].map(() => h("td", { class: "number" }));
      return { element: h("tr", {}, h("td", { class: "id" }, u.token || t("all tokens")), h("td", {}, u.limit), cells), cells };
    }, (row, u) => [u.remaining, u.reset, u.admitted, u.refused].forEach((n, i) => (row.cells[i].textContent = i === 1 ? t("{0} s", number(n)) : number(n))));
  });
}

// limitForm edits one limit; what it has no field for stays as it is.
function limitForm(limit, remove) {
  const kind = select(kinds.find((k) => k in limit) ?? "rate", kinds.map((k) => [k, k]));
  const value = h("input", { class: "short", value: limit[kind.value] ?? "", required: true, placeholder: "100/s" });
  const burst = h("input", { class: "short", type: "number", min: 1, value: limit.burst ?? "" });
  const per = select(limit.per ?? "token", [["token", t("token")], ["consumer", t("consumer")]]);
  const mode = select(limit.mode ?? "enforce", [["enforce", "enforce"], ["shadow", "shadow"]]);
  const wait = h("input", { class: "short", value: limit.max_wait ?? "", placeholder: "0s" });
  const element = h("fieldset", {}, h("legend", {}, t("Limit")), h("div", { class: "line" }, field("Kind", kind), field("Value", value), field("Burst", burst),
    field("Per", per), field("Mode", mode), field("Hold requests up to", wait), h("button", { type: "button", class: "danger", click: () => remove(part) }, t("Remove the limit"))));
  const read = () => {
    const l = { ...limit };
    for (const k of kinds) delete l[k];
    l[kind.value] = value.value.trim();
    const set = (key, v, standard) => { if (v && v !== standard) l[key] = v; else delete l[key]; };
    set("burst", Number(burst.value));
    set("per", per.value, "token");
    set("mode", mode.value, "enforce");
    set("max_wait", wait.value.trim());
    // A name that only says what the limit was would say something untrue.
    if (l[kind.value] !== limit[kind.value] && limit.name?.startsWith(kind.value + "-")) delete l.name;
    return l;
  };
  const part = { element, read, value };
  return part;
}

function settings(id) {
  let limits = [], etag = "";
  const rows = h("div");
  const plan = h("input", { class: "short" });
  const labels = h("textarea", { rows: 3, spellcheck: "false", placeholder: "team=payments" });
  const disabled = h("input", { type: "checkbox" });
  const drop = (part) => { limits = limits.filter((l) => l !== part); part.element.remove(); more.focus(); };
  const put = (limit) => { const part = limitForm(limit, drop); limits.push(part); rows.append(part.element); return part; };
  const more = h("button", { type: "button", click: () => put({}).value.focus() }, t("Add a limit"));
  const load = async () => {
    try {
      const answer = await call("GET", consumerPath(id)), c = answer.body;
      etag = answer.etag;
      limits = [];
      rows.replaceChildren();
      c.limits.forEach(put);
      plan.value = c.plan;
      labels.value = Object.entries(c.labels).map(([k, v]) => `${k}=${v}`).join("\n");
      disabled.checked = c.disabled;
    } catch (error) { fail(error); }
  };
  const form = h("form", {
    submit: async (event) => {
      event.preventDefault();
      try {
        const pairs = labels.value.split("\n").filter((l) => l.trim()).map((l) => [l.split("=")[0].trim(), l.slice(l.indexOf("=") + 1).trim()]);
        await call("PUT", consumerPath(id), { plan: plan.value.trim(), limits: limits.map((l) => l.read()), labels: Object.fromEntries(pairs), disabled: disabled.checked }, { "if-match": etag });
        say(t("{0} is changed; the next decision uses it.", id));
        await load();
      } catch (error) { fail(error.status === 409 ? new Error(t("Somebody else has changed {0} meanwhile: load the page again.", id)) : error); }
    },
  }, rows, h("p", {}, more), h("p", { class: "line" }, field("Plan (its limits count where none stand above)", plan), h("label", { class: "check" }, disabled, t("Disabled: answer 403"))),
    h("p", {}, field("Labels, one key=value a line", labels)),
    h("p", { class: "line" }, h("button", { class: "first" }, t("Save")), h("button", {
      type: "button", class: "danger",
      click: async () => {
        if (!(await ask(t("Remove {0} and all its tokens?", id), t("Remove the consumer")))) return;
        try {
          await call("DELETE", consumerPath(id));
          location.hash = "#/consumers";
        } catch (error) { fail(error); }
      },
    }, t("Remove the consumer"))));
  return { element: h("section", {}, h("h2", {}, t("Limits")), form), load };
}

// showOnce shows a secret until the dialog is closed; then it is nowhere any more.
function showOnce(issued) {
  const secret = h("output", { class: "secret" }, issued.token);
  const dialog = h("dialog", { "aria-label": t("The secret of {0}", issued.id), close: () => dialog.remove() },
    h("h2", {}, t("The secret of {0}", issued.id)), h("p", {}, t("It is shown this once. Tollgate keeps only its hash.")), secret,
    h("div", { class: "line" },
      h("button", { type: "button", class: "first", click: async (e) => { await navigator.clipboard.writeText(issued.token); e.target.textContent = t("Copied"); } }, t("Copy")),
      h("button", { type: "button", click: () => dialog.close() }, t("Close"))));
  document.body.append(dialog);
  dialog.showModal();
}

function tokens(id) {
  const list = table("Tokens", ["Token", "Made", "Expires", "Old secret works until", ""]);
  const change = (f) => async () => { try { await f(); await load(); } catch (error) { fail(error); } };
  const rotate = (token) => change(async () => {
    if (!(await ask(t("Give {0} a new secret? The old one works for another hour.", token), t("Rotate")))) return;
    showOnce((await call("POST", consumerPath(id, "tokens", token, "rotate"), { overlap: "1h" })).body);
  });
  const revoke = (token) => change(async () => {
    if (!(await ask(t("Revoke {0}? Requests with it are refused at once.", token), t("Revoke")))) return;
    await call("DELETE", consumerPath(id, "tokens", token));
    say(t("{0} is revoked.", token));
  });
  const load = async () => {
    try {
      const { tokens: all } = await get(consumerPath(id, "tokens"));
      list.body.replaceChildren(...all.map((k) => h("tr", {}, h("td", { class: "id" }, k.id), h("td", {}, k.created ? time(k.created) : ""), h("td", {}, time(k.expires)), h("td", {}, k.previous_until ? time(k.previous_until) : ""),
        h("td", {}, h("div", { class: "line" }, h("button", { type: "button", "aria-label": t("Rotate {0}", k.id), click: rotate(k.id) }, t("Rotate")), h("button", { type: "button", class: "danger", "aria-label": t("Revoke {0}", k.id), click: revoke(k.id) }, t("Revoke")))))));
    } catch (error) { fail(error); }
  };
  const name = h("input", { class: "short", required: true, pattern: "[A-Za-z0-9._@\\-]{1,128}", autocomplete: "off", spellcheck: "false" });
  const expires = h("input", { type: "datetime-local" });
  const form = h("form", {
    class: "line",
    submit: (event) => {
      event.preventDefault();
      change(async () => {
        const issued = (await call("POST", consumerPath(id, "tokens"), { id: name.value, ...(expires.value && { expires: new Date(expires.value).toISOString() }) })).body;
        name.value = "";
        showOnce(issued);
      })();
    },
  }, field("Token id", name), field("Expires (empty: never)", expires), h("button", { class: "first" }, t("Issue a token")));
  return { element: h("section", {}, h("h2", {}, t("Tokens")), list.element, form), load };
}
