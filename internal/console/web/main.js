import { call, get } from "./api.js";
import { h, field, fail, say } from "./dom.js";
import { t, translate } from "./text.js";
import { overview } from "./overview.js";
import { consumers } from "./consumers.js";
import { consumer } from "./consumer.js";

const main = document.getElementById("main");
let leave = () => {};

// The pages, by what stands behind the #. Each fills an element and returns how
// to stop what goes on in it.
function page() {
  const [path, query] = location.hash.replace(/^#/, "").split("?");
  const parts = path.split("/").filter(Boolean).map(decodeURIComponent);
  if (parts[0] === "consumers" && parts[1] !== undefined) return { title: parts[1], show: (to) => consumer(to, parts[1]) };
  if (parts[0] === "consumers") return { title: t("Consumers"), show: (to) => consumers(to, new URLSearchParams(query)) };
  return { title: t("Overview"), show: overview };
}

async function route(focus) {
  leave();
  leave = () => {};
  fail();
  const { title, show } = page();
  document.title = `${title} · Tollgate`;
  for (const a of document.querySelectorAll("nav a")) {
    const here = a.hash === "#/" ? !location.hash.startsWith("#/consumers") : location.hash.startsWith(a.hash);
    if (here) a.setAttribute("aria-current", "page");
    else a.removeAttribute("aria-current");
  }
  const to = h("div", {}, h("h1", {}, title));
  main.replaceChildren(to);
  if (focus) main.focus();
  leave = show(to);
}

function signIn() {
  leave();
  leave = () => {};
  document.getElementById("sign-out").hidden = true;
  const token = h("input", { type: "password", autocomplete: "current-password", required: true, autofocus: true });
  main.replaceChildren(h("h1", {}, t("Sign in")), h("form", {
    class: "card line",
    submit: async (event) => {
      event.preventDefault();
      try {
        await call("POST", "/console/session", { token: token.value });
        await begin();
      } catch (error) {
        token.value = "";
        token.focus();
        fail(error.status === 401 ? new Error(t("This is not the admin token.")) : error);
      }
    },
  }, field("Admin token", token), h("button", { class: "first" }, t("Sign in"))));
  token.focus();
}

async function begin() {
  const { sign_in: state } = await get("/console/session");
  if (state === "needed") return signIn();
  document.getElementById("sign-out").hidden = state !== "done";
  return route(false);
}

document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
document.getElementById("sign-out").addEventListener("click", async () => {
  await call("DELETE", "/console/session");
  signIn();
  say(t("You are signed out."));
});
addEventListener("hashchange", () => { say(""); route(true); });
addEventListener("signed-out", signIn);
translate(document);
begin().catch(fail);
