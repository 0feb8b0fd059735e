// The demo page. It speaks the session protocol by hand, in the open, so that you can read what a client has to do:
// send the tokens it was given, take new ones from replies, and on a 401 refresh once for all waiting calls and try again.
"use strict";

const $ = (selector) => document.querySelector(selector);
const PLANS = ["free", "pro", "team"];
const REMEMBERED = "fastverify-demo-user";  // that there may be a session in cookies, which this script cannot see

// In cookie mode the browser keeps both tokens where this script cannot see them; in header mode they are here.
const tokens = { mode: "cookie", access: null, refresh: null, antiCsrf: null };
let front = null;          // what the server tells scripts about the session: {uid, ate, up}; never proof of anything
let refreshing = null;     // the refresh under way, shared by every call that waits for it

// ---- the protocol ---------------------------------------------------------------------------------------------------

function requestHeaders(bearer) {
  const headers = { "st-auth-mode": tokens.mode, rid: "session" };
  if (tokens.mode === "header" && bearer) headers.authorization = `Bearer ${bearer}`;
  if (tokens.antiCsrf) headers["anti-csrf"] = tokens.antiCsrf;
  return headers;
}

function takeTokens(response) {
  const seen = [];
  const isRefresh = response.ok && response.url.endsWith("/auth/session/refresh");
  const access = response.headers.get("st-access-token");
  const refresh = response.headers.get("st-refresh-token");
  const antiCsrf = response.headers.get("anti-csrf");
  const next = response.headers.get("front-token");
  if (access !== null) { tokens.access = access || null; }
  if (refresh !== null) { tokens.refresh = refresh || null; if (refresh) seen.push("new refresh token"); }
  else if (isRefresh && tokens.mode === "header") seen.push("the refresh token stays: it is still fresh");
  if (antiCsrf) tokens.antiCsrf = antiCsrf;
  if (next === "remove") { signedOut(); seen.push("tokens cleared"); }
  else if (next) {
    front = JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(next), (c) => c.charCodeAt(0))));
    seen.unshift("new access token");
    if (tokens.mode === "cookie") localStorage.setItem(REMEMBERED, front.uid);
  }
  return seen.join(", ");
}

// One request as it is, without a second try. A quiet one stays out of the log.
async function send(method, path, { body, bearer = tokens.access, quiet = false, note = "" } = {}) {
  const began = performance.now();
  const headers = requestHeaders(bearer);
  if (body) headers["content-type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { method, headers, body: body && JSON.stringify(body), cache: "no-store" });
  } catch {
    if (!quiet) log("—", method, path, performance.now() - began, "the demo has been stopped");
    return { ok: false, status: 0, data: { message: "no answer" }, took: 0 };
  }
  const took = performance.now() - began;
  const data = await response.json().catch(() => ({}));
  const changed = takeTokens(response);
  if (!quiet) log(response.status, method, path, took, [note, data.message, changed].filter(Boolean).join(" · "));
  show();
  return { ok: response.ok, status: response.status, data, took };
}

function refresh() {
  refreshing ??= send("POST", "/auth/session/refresh", { bearer: tokens.refresh, note: "refresh" })
    .finally(() => { refreshing = null; });
  return refreshing;
}

async function call(method, path, options) {
  const answer = await send(method, path, options);
  if (answer.status !== 401 || !front) return answer;
  const renewed = await refresh();
  return renewed.ok ? send(method, path, { ...options, note: "again, with the new token" }) : answer;
}

// ---- what the page shows --------------------------------------------------------------------------------------------

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function log(status, method, path, took, note) {
  const line = element("li", {},
    element("span", { className: status < 400 ? "status" : "status bad", textContent: status }),
    element("span", { textContent: `${method} ${path}` }),
    element("span", { className: "took", textContent: `${took.toFixed(1)} ms` }));
  if (note) line.append(element("span", { className: "note", textContent: note }));
  $("#log").prepend(line);
  while ($("#log").children.length > 60) $("#log").lastChild.remove();
  $("#log-empty").hidden = true;
}

function show() {
  const signedIn = front !== null;
  $("#state").textContent = signedIn ? `signed in as ${front.uid}` : "signed out";
  $("#state").classList.toggle("in", signedIn);
  $("#session-card").hidden = $("#sessions-card").hidden = !signedIn;
  $("#sign-in-card").hidden = signedIn;
}

function signedOut() {
  front = tokens.access = tokens.refresh = tokens.antiCsrf = null;
  localStorage.removeItem(REMEMBERED);
  $("#claims").replaceChildren();
}

function showLife() {
  if (!front) return;
  const left = (front.ate - Date.now()) / 1000;
  const whole = front.up.exp - front.up.iat;
  $("#life-bar").style.width = `${Math.max(0, Math.min(100, (100 * left) / whole))}%`;
  $("#life-bar").classList.toggle("over", left <= 0);
  $("#life-text").textContent = left > 0 ? `${Math.ceil(left)} s left of ${whole}` : "expired; the next call refreshes it";
}

function showClaims(claims) {
  const instant = (name, value) => (["exp", "iat"].includes(name) ? `${value}  (${new Date(value * 1000).toLocaleTimeString()})` : JSON.stringify(value));
  $("#claims").replaceChildren(...Object.entries(claims).map(([name, value]) =>
    element("tr", {}, element("th", { textContent: name }), element("td", { textContent: instant(name, value) }))));
}

async function showSessions() {
  if (!front) return;
  const { ok, data } = await send("GET", "/api/sessions", { quiet: true });
  if (!ok || !front) return;
  $("#whose").textContent = front.uid;
  $("#sessions").replaceChildren(...data.sessions.map((one) => {
    const title = element("b", { textContent: one.device || "unknown device" });
    if (one.current) title.append(element("span", { className: "badge", textContent: "this one" }));
    const when = (seconds) => new Date(seconds * 1000).toLocaleTimeString();
    return element("li", {}, title,
      element("small", { className: "mono", textContent: one.handle }),
      element("small", { textContent: `since ${when(one.created_at)}, last refresh ${when(one.last_seen_at)}` }),
      element("button", { textContent: "End", onclick: () => act(() => call("POST", `/api/sessions/${one.handle}/revoke`)) }));
  }));
}

function showVerdict(id, { status, user, message, nanoseconds }) {
  const time = nanoseconds < 1e5 ? `${nanoseconds} ns a call` : `${(nanoseconds / 1e6).toFixed(1)} ms over HTTP`;
  const box = $(id);
  box.className = `verifier ${status === 200 ? "good" : "bad"}`;
  box.querySelector("output").textContent = status === 200 ? `${status} · ${user}\n${time}` : `${status} · ${message}`;
}

// Both verifiers are asked about the same token, and nothing is refreshed or cleared by asking.
async function probe() {
  if (!front) return;
  const { ok, data } = await send("GET", "/api/verdicts", { quiet: true });
  if (!ok || !front) return;
  showVerdict("#verifier-site", data.site);
  showVerdict("#verifier-service", data.service);
  if (data.site.claims) showClaims(data.site.claims);
  // Ended elsewhere: once both know, an ordinary call is answered with 401, and clears the tokens.
  const ended = (verdict) => verdict.message === "unauthorised";
  if (ended(data.site) && ended(data.service)) await send("GET", "/api/me", { note: "the session has ended" });
}

// ---- what a person can do -------------------------------------------------------------------------------------------

const actions = {
  call: () => call("GET", "/api/me"),
  burst: () => Promise.all(Array.from({ length: 20 }, () => call("GET", "/api/me"))),
  refresh,
  plan: () => call("POST", "/api/plan", { body: { plan: PLANS[(PLANS.indexOf(front.up.plan) + 1) % PLANS.length] } }),
  "sign-out": () => call("POST", "/auth/signout"),
  "revoke-all": () => call("POST", "/api/sessions/revoke-all"),
};

async function act(action) {
  await action();
  await Promise.all([probe(), showSessions()]);
  show();
}

$("#sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  const form = new FormData(event.target);
  tokens.mode = form.get("mode");
  act(() => send("POST", "/api/sign-in", { body: { user: form.get("user"), plan: "free" }, bearer: null }));
});

for (const button of document.querySelectorAll("[data-do]")) {
  const name = button.dataset.do;
  button.addEventListener("click", () => {
    if (name === "clear") { $("#log").replaceChildren(); $("#log-empty").hidden = false; } else act(actions[name]);
  });
}

setInterval(showLife, 250);
setInterval(() => { if (!document.hidden && !refreshing) probe().then(showSessions); }, 1500);

// A session in cookies outlives a reload: ask, and let a refresh find out if the access token is too old.
async function resume() {
  const { status, data } = await send("GET", "/api/me", { quiet: true });
  if (status === 200) front = data.front;
  else if (data.message === "try refresh token") await refresh();
  else signedOut();
  show();
  if (front) await Promise.all([probe(), showSessions()]);
}

if (localStorage.getItem(REMEMBERED)) resume();
