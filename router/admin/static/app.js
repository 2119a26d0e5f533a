/* Behaviours of the admin pages, bound to data-… attributes (docs/frontend.md lists them). Loaded in <head> without defer,
   so that the theme is set before the first paint. No eval, no inline handler, no markup made from strings: the CSP forbids
   them. Every page works as plain links and forms without this file. */
(() => {
  "use strict";

  const root = document.documentElement;
  const all = (selector, within = document) => within.querySelectorAll(selector);
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  root.classList.add("js");

  // ---- words: the page carries them translated, placeholders as {name}

  let words;
  function say(key, values = {}) {
    words ??= JSON.parse(document.getElementById("words")?.textContent ?? "{}");
    return (words[key] ?? key).replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
  }

  function announce(text) {
    const live = document.getElementById("live");
    if (!live) return;
    live.textContent = "";
    setTimeout(() => { live.textContent = text; }, 50); // a change after a pause is read even when the text is the same
  }

  function undoForm({ url, fields, label }) {
    const form = Object.assign(document.createElement("form"), { method: "post", action: url, className: "mt-2" });
    for (const [name, value] of Object.entries({ csrf_token: csrf().content, ...fields }))
      form.append(Object.assign(document.createElement("input"), { type: "hidden", name, value }));
    form.append(Object.assign(document.createElement("button"), { className: "btn btn-sm btn-secondary", textContent: label }));
    return form;
  }
  function toast(message, level = "success", undo = null) {
    const template = document.getElementById(`toast-${level}`) ?? document.getElementById("toast-info");
    const box = document.getElementById("toasts");
    if (!template || !box) return;
    const note = template.content.firstElementChild.cloneNode(true);
    note.querySelector(".text").textContent = message;
    if (undo) note.querySelector(".text").append(undoForm(undo));
    box.append(note);
    while (box.children.length > 4) box.firstElementChild.remove();
    if (level !== "danger") removeLater(note, undo ? 20000 : 8000);
  }
  function removeLater(note, milliseconds) { // not while somebody reads or uses it
    setTimeout(() => (note.matches(":hover, :focus-within") ? removeLater(note, 2000) : note.remove()), milliseconds);
  }

  // ---- theme: light, dark, or as the system says

  const dark = matchMedia("(prefers-color-scheme: dark)");
  function chosenTheme() {
    try { return localStorage.getItem("theme") ?? "auto"; } catch { return "auto"; } // storage may be forbidden
  }
  function showTheme(choice = chosenTheme()) {
    root.dataset.bsTheme = choice === "auto" ? (dark.matches ? "dark" : "light") : choice;
    for (const button of all("[data-theme]")) button.setAttribute("aria-pressed", String(button.dataset.theme === choice));
    for (const icon of all("[data-theme-icon]")) icon.toggleAttribute("hidden", icon.dataset.themeIcon !== choice);
  }
  showTheme();
  dark.addEventListener("change", () => showTheme());
  addEventListener("storage", (event) => { if (event.key === "theme") showTheme(); });

  // ---- relative times: <time datetime data-relative> "3 s ago", <time datetime data-clock> "4:07"

  const steps = [["second", 60], ["minute", 60], ["hour", 24], ["day", 7]];
  const format = new Intl.RelativeTimeFormat(root.lang || "en", { numeric: "always", style: "narrow" });
  const days = new Intl.NumberFormat(root.lang || "en", { style: "unit", unit: "day", unitDisplay: "short" });
  let skew = 0; // the server's clock less ours: ages must not depend on a wrong clock on the desk

  function relative(seconds) {
    let value = seconds;
    for (const [unit, size] of steps) {
      if (Math.abs(value) < size) return format.format(Math.trunc(value) || (seconds > 0 ? 0 : -0), unit);
      value /= size;
    }
    return null; // older than a week: the date says more
  }
  function clock(seconds) {
    const s = Math.max(0, Math.floor(seconds));
    const two = (n) => String(n).padStart(2, "0");
    if (s >= 86400) return days.format(Math.floor(s / 86400));
    return s < 3600 ? `${Math.floor(s / 60)}:${two(s % 60)}` : `${Math.floor(s / 3600)}:${two(Math.floor(s / 60) % 60)}:${two(s % 60)}`;
  }
  function tick() {
    if (document.hidden) return;
    const now = Date.now() + skew;
    for (const time of all("time[data-relative], time[data-clock]")) {
      const seconds = (Date.parse(time.dateTime) - now) / 1000;
      if (Number.isNaN(seconds)) continue;
      time.title ||= time.textContent.trim();
      const text = ("clock" in time.dataset ? clock(Math.abs(seconds)) : relative(seconds)) ?? time.title;
      if (time.textContent !== text) time.textContent = text;
    }
  }

  // ---- confirmation: data-confirm on a form or submit button, hx-confirm on anything of htmx

  function ask({ confirm, confirmTitle, confirmAction }) {
    const dialog = document.getElementById("ask");
    if (!dialog?.showModal) return Promise.resolve(window.confirm(confirm));
    dialog.querySelector(".title").textContent = confirmTitle || say("sure");
    dialog.querySelector(".text").textContent = confirm;
    dialog.querySelector(".yes").textContent = confirmAction || say("yes");
    dialog.returnValue = "";
    dialog.showModal();
    return new Promise((resolve) => {
      dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
    });
  }

  // ---- the session: looked at before a form leaves the page. Where it has ended, who opened the page signs in again over it,
  //      and only then is sent what was typed: template#sign-in[data-session][data-user] holds the dialog

  const signIn = () => document.getElementById("sign-in");
  const csrf = () => document.querySelector('meta[name="csrf-token"]');
  let token, signingIn;
  let hasDeclined = false; // to sign in: a poll does not ask again
  async function isSame() { // who opened the page is signed in: then all its forms get the token of that session
    const { session, user } = signIn().dataset;
    const now = await (await fetch(session, { signal: AbortSignal.timeout(5000) })).json();
    token = now.token;
    if (String(now.user) !== user) return false;
    for (const field of all('input[name="csrf_token"]')) field.value = token;
    csrf().content = token;
    hasDeclined = false;
    return true;
  }
  async function isSignedIn({ isPoll = false, sendsAnyway = false } = {}) { // sendsAnyway: if the server is slow to say so
    try {
      if (await isSame()) return true;
    } catch (error) {
      if (sendsAnyway && error.name === "TimeoutError") return true;
      if (!isPoll) toast(say("lost"), "danger");
      return false;
    }
    signingIn ??= new Promise((resolve) => {
      const dialog = signIn().content.firstElementChild.cloneNode(true);
      document.body.append(dialog);
      dialog.querySelector("[name=csrf_token]").value = token;
      dialog.addEventListener("close", () => {
        signingIn = undefined;
        dialog.remove();
        hasDeclined = dialog.returnValue !== "yes";
        resolve(!hasDeclined);
      });
      dialog.showModal();
    });
    return signingIn;
  }
  async function signInBy(form) {
    let problem = say("lost");
    try {
      if (await isSame()) return form.closest("dialog").close("yes"); // signed in in another tab meanwhile
      form.elements.csrf_token.value = token;
      const answer = await fetch(form.action, { method: "POST", body: new FormData(form), redirect: "manual" });
      if (answer.type === "opaqueredirect" && await isSame()) return form.closest("dialog").close("yes");
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      problem = page.getElementById("problem")?.textContent.trim() ?? say("error");
    } catch { /* the server does not answer */ }
    form.querySelector(".problem").hidden = false;
    form.querySelector(".problem .text").textContent = problem;
    form.querySelector("[name=password]").select();
  }

  const passed = new WeakSet(); // forms that were asked about, and whose session was looked at
  document.addEventListener("submit", async (event) => {
    const { target: form, submitter } = event;
    if (passed.delete(form) || submitter?.formMethod === "dialog") return;
    const isInDialog = form.closest("dialog");
    const asks = submitter?.dataset.confirm ? submitter : form;
    const leaves = signIn() && form.matches('[method="post"]:not([hx-post])');
    if (!asks.dataset.confirm && !leaves) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    if (isInDialog) return signInBy(form);
    if (asks.dataset.confirm && !await ask(asks.dataset)) return;
    if ("anybody" in form.dataset) {
      await isSame().catch(() => {});
      form.elements.csrf_token.value = token ?? csrf().content;
    } else if (leaves && !await isSignedIn({ sendsAnyway: true })) return;
    passed.add(form);
    form.requestSubmit(submitter);
  }, true);
  document.addEventListener("htmx:confirm", (event) => {
    const { ctx, issueRequest, dropRequest } = event.detail;
    if (!ctx.confirm) return;
    event.preventDefault();
    ask({ ...ctx.sourceElement.dataset, confirm: ctx.confirm }).then((yes) => (yes ? issueRequest() : dropRequest()));
  });

  // ---- unsaved changes: form[data-guard]

  const guard = (target) => (target.form ?? target.closest?.("form"))?.closest("form[data-guard]");
  for (const type of ["input", "change", "reorder"]) {
    document.addEventListener(type, (event) => {
      const form = guard(event.target);
      if (form && !event.target.closest("[data-unguarded]")) form.dataset.dirty = "";
    });
  }
  document.addEventListener("submit", (event) => { // htmx prevents the plain submit; its swap brings a clean form
    if (!event.defaultPrevented) delete event.target.dataset.dirty;
  });
  document.addEventListener("htmx:after:request", ({ detail: { ctx } }) => {
    if (ctx.response.status >= 400) return;
    hasDeclined = false; // to sign in: somebody is signed in again
    if (ctx.sourceElement.matches("form[data-guard]")) delete ctx.sourceElement.dataset.dirty;
  });
  addEventListener("beforeunload", (event) => { if (document.querySelector("form[data-dirty]")) event.preventDefault(); });

  // ---- order by hand: [data-reorder] > [data-item], with .grip and buttons [data-move]; DOM order is the posted order

  function settle(list) {
    const items = [...list.children].filter((item) => item.matches("[data-item]"));
    items.forEach((item, index) => {
      for (const button of all("[data-move]", item)) {
        button.disabled = index === (["up", "top"].includes(button.dataset.move) ? 0 : items.length - 1);
      }
    });
    return items;
  }
  function reordered(list, item) {
    const items = settle(list);
    announce(say("moved", { item: item.dataset.item, place: items.indexOf(item) + 1, count: items.length }));
    list.dispatchEvent(new CustomEvent("reorder", { bubbles: true }));
  }
  function move(button) {
    const item = button.closest("[data-item]");
    const list = item.closest("[data-reorder]");
    const way = button.dataset.move;
    const items = settle(list);
    const place = items.indexOf(item);
    const other = items[{ up: place - 1, down: place + 1, top: 0, bottom: items.length - 1 }[way]];
    if (!other || other === item) return;
    if (["up", "top"].includes(way)) other.before(item); else other.after(item);
    reordered(list, item);
    (button.disabled ? item.querySelector("[data-move]:not(:disabled)") : button)?.focus();
  }
  function enliven(within = document) {
    for (const list of all("[data-reorder]", within)) {
      settle(list);
      if (window.Sortable && !window.Sortable.get(list)) {
        window.Sortable.create(list, {
          handle: ".grip",
          draggable: "[data-item]",
          animation: calm.matches ? 0 : 140,
          onEnd: ({ item, oldIndex, newIndex }) => { if (oldIndex !== newIndex) reordered(list, item); },
        });
      }
    }
    tick();
    showTheme();
  }

  // ---- rows: #list[data-row-list] holds [data-row]s and <template data-kind>s; button[data-rows=list][data-add-row=kind]
  //      adds one, [data-remove-row] within it removes it

  function addRow(button) {
    const rows = document.getElementById(button.dataset.rows);
    const template = rows.querySelector(`template[data-kind="${button.dataset.addRow}"]`);
    const index = Number(rows.dataset.next ?? all("[data-row]", rows).length);
    rows.dataset.next = index + 1;
    const row = template.content.firstElementChild.cloneNode(true);
    for (const node of [row, ...all("*", row)]) {
      for (const { name, value } of node.attributes) {
        if (value.includes("__index__")) node.setAttribute(name, value.replaceAll("__index__", index));
      }
    }
    rows.append(row);
    settle(rows);
    row.querySelector("input:not([type=hidden]), select, textarea")?.focus();
    announce(say("row_added"));
    row.dispatchEvent(new Event("change", { bubbles: true }));
  }
  function removeRow(button) {
    const row = button.closest("[data-row]");
    const rows = row.closest("[data-row-list]");
    const next = row.nextElementSibling?.closest("[data-row]") ?? row.previousElementSibling?.closest("[data-row]");
    const form = row.closest("form");
    row.remove();
    settle(rows);
    (next?.querySelector("[data-remove-row]") ?? document.querySelector(`[data-add-row][data-rows="${rows.id}"]`))?.focus();
    announce(say("row_removed"));
    form?.dispatchEvent(new Event("change", { bubbles: true }));
  }

  // ---- copying

  async function copy(button) {
    const source = document.getElementById(button.dataset.copy);
    const text = source.value ?? source.textContent.trim();
    try {
      await navigator.clipboard.writeText(text);
    } catch { // over plain http the clipboard API is missing
      const field = document.createElement("textarea");
      field.value = text;
      document.body.append(field);
      field.select();
      const copied = document.execCommand("copy");
      field.remove();
      button.focus();
      if (!copied) return toast(say("copy_failed"), "warning");
    }
    const signs = all(".icon", button);
    signs.forEach((sign) => { sign.toggleAttribute("hidden"); });
    setTimeout(() => signs.forEach((sign) => { sign.toggleAttribute("hidden"); }), 1600);
    announce(say("copied"));
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const { theme, move: way, addRow: kind, removeRow: gone, copy: what, dismiss } = button.dataset;
    if (theme) {
      try { localStorage.setItem("theme", theme); } catch { /* for this page only, then */ }
      showTheme(theme);
    } else if (way && button.closest("[data-reorder]")) {
      event.preventDefault();
      move(button);
    } else if (kind !== undefined) {
      event.preventDefault();
      addRow(button);
    } else if (gone !== undefined) {
      event.preventDefault();
      removeRow(button);
    } else if (what) {
      copy(button);
    } else if (dismiss !== undefined) {
      button.closest(".note").remove();
    }
  });

  // ---- htmx: CSRF token, no refreshes in hidden tabs, messages for failures

  const polls = '[hx-trigger*="every"]';
  document.addEventListener("htmx:config:request", (event) => {
    const { ctx } = event.detail;
    if (document.hidden && ctx.sourceEvent?.type === "every") return event.preventDefault();
    if (csrf() && ctx.request.method !== "GET") ctx.request.headers["X-CSRFToken"] = csrf().content;
  });
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) return;
    tick();
    for (const poll of all(polls)) window.htmx?.trigger(poll, "every", {}, false);
  });

  let lost = false;
  function reach(ok, element) { // a poll that fails dims what it could not renew, and says so once
    for (const poll of ok ? all(".stale") : [element]) poll.classList.toggle("stale", !ok);
    const banner = document.getElementById("lost");
    if (banner) banner.hidden = ok;
    if (lost === ok) announce(say(ok ? "back" : "lost"));
    lost = !ok;
  }
  const sessionOf = (csrfToken) => csrfToken?.split(".")[0]; // what follows is the time and the signature
  async function failed(event) {
    const { ctx } = event.detail;
    if (!ctx) return;
    const status = ctx.response?.status;
    const isPoll = ctx.sourceEvent?.type === "every";
    if (isPoll) reach(false, ctx.sourceElement);
    if (status === 401 && isPoll && hasDeclined) return;
    if (status === 401 || (status === 400 && !isPoll && !ctx.isRepeated)) {
      const before = sessionOf(ctx.request.headers["X-CSRFToken"]);
      const { sourceElement: source, sourceEvent, request, target, swap, select } = ctx; // before htmx changes it for the error
      const isRenewed = await isSignedIn({ isPoll }) && sessionOf(csrf().content) !== before && !ctx.isRepeated;
      if (isRenewed && isPoll) return reach(true);
      const again = { source, event: sourceEvent, target, swap, select, confirm: null, isRepeated: true };
      if (isRenewed) return window.htmx.ajax(request.method, request.action, again);
      if (status === 401) return;
    }
    if (isPoll || status === 409 || status === 422) return; // swapped: the form itself says what is wrong
    toast(say(status ? `error_${status}` : "lost").replace(/^error_.*/, say("error")), "danger");
  }
  document.addEventListener("htmx:error", failed);
  document.addEventListener("htmx:response:error", failed);
  document.addEventListener("htmx:after:swap", (event) => {
    const { ctx } = event.detail;
    if (ctx?.response?.status < 400 && lost) reach(true);
    if (ctx?.hx?.retarget) document.getElementById("main").focus(); // another page
    enliven();
  });
  document.addEventListener("toast", (event) => {
    document.querySelector(":popover-open")?.hidePopover(); // what was done in it is done
    toast(event.detail.message ?? event.detail.value, event.detail.level, event.detail.undo);
  });

  document.addEventListener("DOMContentLoaded", () => {
    const now = Date.parse(root.dataset.now ?? "");
    if (!Number.isNaN(now)) skew = now - Date.now();
    enliven();
    setInterval(tick, 1000);
    document.querySelector("[data-error-summary]")?.focus();
  });
})();
