// Keeps the page live and serves the keyboard. Without this script, everything is still there: reload the page by hand.
"use strict";

const LIVE_MILLISECONDS = 2000;
const GO = { o: "/", r: "/runs", m: "/messages", f: "/failures", t: "/tasks", a: "/audit" };

/** Whether the last refresh failed. */
let isAway = false;

/** Describes a focused element, so that its successor can be found: its row, and its number in there. */
function place(element) {
  const row = element.closest("tr[data-key]");
  const scope = row ?? element.closest("[data-live]");
  const all = [...scope.querySelectorAll("a, button, .scroll")];
  return { key: row?.dataset.key, number: all.indexOf(element) };
}

/** Replaces a part of the page. Keeps the focus, the selected row and how far it is scrolled. */
function replace(part, other) {
  if (part.innerHTML === other.innerHTML) return;
  const focused = part.contains(document.activeElement) ? document.activeElement : null;
  // What a person types stays as it is.
  if (focused?.matches("input, textarea, select")) return;
  const kept = focused && focused !== part ? place(focused) : null;
  const chosen = part.querySelector("tr.selected")?.dataset.key;
  const scrolled = [...part.querySelectorAll(".scroll")].map((one) => one.scrollLeft);
  part.innerHTML = other.innerHTML;
  part.querySelectorAll(".scroll").forEach((one, index) => (one.scrollLeft = scrolled[index] ?? 0));
  const row = (key) => rows().find((one) => one.dataset.key === key);
  if (chosen) row(chosen)?.classList.add("selected");
  if (kept && kept.number >= 0) {
    const scope = kept.key ? row(kept.key) : part;
    scope?.querySelectorAll("a, button, .scroll")[kept.number]?.focus({ preventScroll: true });
  }
}

/** Fetches this page again and replaces the parts that are marked as live. */
async function refresh() {
  if (document.hidden || !document.querySelector("[data-live]")) return;
  try {
    const response = await fetch(new URL(location.pathname + location.search, location.origin));
    const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
    for (const part of document.querySelectorAll("[data-live]")) {
      const other = fresh.getElementById(part.id);
      if (other) replace(part, other);
    }
    if (!response.ok) say("the daemon answers with an error", true);
    else if (isAway) say("", false);
    isAway = !response.ok;
  } catch {
    isAway = true;
    say("no connection to the daemon: what you see is old", true);
  }
}

/** Refreshes again and again, each time after the last answer. */
async function live() {
  await refresh();
  setTimeout(live, LIVE_MILLISECONDS);
}

const rows = () => [...document.querySelectorAll("tr[data-key]")];
const selected = () => document.querySelector("tr.selected");

function select(row) {
  if (!row) return;
  selected()?.classList.remove("selected");
  row.classList.add("selected");
  row.scrollIntoView({ block: "nearest" });
}

function move(step) {
  const all = rows();
  const at = all.indexOf(selected());
  select(all[Math.min(Math.max(at + step, 0), all.length - 1)]);
}

/** Says the result of an action, for people and for screen readers. */
function say(text, isError) {
  const state = document.getElementById("connection");
  state.textContent = text;
  state.className = isError ? "bad" : "good";
}

/** Where the text of a field is kept while the browser asks for the token. */
const kept = (field) => `${location.pathname}#${field.id}`;

async function post(path, body, field) {
  // The header tells the daemon that this is its own page: no other site can send it.
  const headers = { "Content-Type": "application/json", "X-Loopabull-Action": "1" };
  const url = new URL(path, location.origin);
  const response = await fetch(url, { method: "POST", headers, body: JSON.stringify(body) });
  if (response.status === 401) {
    // The browser asks for the token there, and comes back.
    if (field) sessionStorage.setItem(kept(field), field.value);
    location.assign(new URL("/sign-in?to=" + encodeURIComponent(location.pathname + location.search), location.origin));
    throw new Error("an action needs the operator's token");
  }
  const text = await response.text();
  let answer = {};
  try {
    answer = JSON.parse(text);
  } catch {
    answer.error = text;
  }
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

/** Carries out what a button says. */
async function act(button) {
  const body = JSON.parse(button.dataset.body);
  let question = button.dataset.question;
  const field = button.dataset.text ? document.getElementById(button.dataset.text) : null;
  if (field) body.body = field.value;
  try {
    if (button.dataset.reason) {
      body.reason = prompt(button.dataset.reason);
      if (body.reason === null) return;
    } else if (body.verdict) {
      const found = await post(button.dataset.post, { ...body, verdict: "count" });
      question = question.replace("COUNT", found.count);
      if (found.count === 0) {
        say("There are no such dead letters.", false);
        return;
      }
    }
    if (!button.dataset.reason && !confirm(question)) return;
    button.disabled = true;
    say((await post(button.dataset.post, body, field)).said, false);
    button.disabled = false;
    button.blur();
    await refresh();
  } catch (error) {
    say(error.message, true);
  } finally {
    button.disabled = false;
  }
}

let pending = "";

function press(event) {
  const help = document.getElementById("help");
  if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
  if (event.target.matches("input, textarea, select")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  if (pending === "g" && GO[event.key]) {
    location.href = GO[event.key];
    return;
  }
  pending = event.key;
  if (event.key === "/") {
    const search = document.querySelector("input[type=search]");
    if (!search) {
      location.href = "/runs#search";
      return;
    }
    event.preventDefault();
    search.focus();
  } else if (event.key === "j") move(1);
  else if (event.key === "k") move(-1);
  else if (event.key === "o" || (event.key === "Enter" && event.target === document.body)) {
    selected()?.querySelector("a")?.click();
  } else if (event.key === "?") help.showModal();
}

document.addEventListener("keydown", press);
document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-post]");
  if (button) act(button);
});
document.getElementById("help-button").addEventListener("click", () => {
  document.getElementById("help").showModal();
});
for (const field of document.querySelectorAll("textarea")) {
  const text = sessionStorage.getItem(kept(field));
  if (text === null) continue;
  sessionStorage.removeItem(kept(field));
  field.value = text;
  field.closest("details").open = true;
}
if (location.hash === "#search") document.querySelector("input[type=search]")?.focus();
setTimeout(live, LIVE_MILLISECONDS);
