// Keeps the page as it is now: the event stream names what changed, and that part alone is fetched and exchanged.
"use strict";
(() => {
  const events = document.body.dataset.events;
  const live = document.getElementById("live");
  const said = document.getElementById("said");
  const parts = [...document.querySelectorAll("[data-live]")];
  const shown = new Map();
  const waiting = new Map();
  const local = new Intl.DateTimeFormat(undefined, {
    year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit",
  });
  const today = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });

  function localize(within) {
    for (const time of within.querySelectorAll("time[datetime]")) {
      const at = new Date(time.dateTime);
      if (!Number.isNaN(at.getTime())) {
        time.textContent = (at.toDateString() === new Date().toDateString() ? today : local).format(at);
      }
    }
  }

  function states(part) {
    return new Map([...part.querySelectorAll("tr[data-key]")].map((row) => [row.dataset.key, row.dataset.state]));
  }

  function exchange(part, html) {
    const name = part.dataset.live;
    if (shown.get(name) === html) return false;
    const first = !shown.has(name);
    shown.set(name, html);
    const before = states(part);
    const focused = part.contains(document.activeElement) ? document.activeElement : null;
    const links = [...part.querySelectorAll("a, [tabindex]")];
    const mark = focused && { href: focused.getAttribute("href"), place: links.indexOf(focused) };
    part.innerHTML = html;
    localize(part);
    if (mark) {
      const now = [...part.querySelectorAll("a, [tabindex]")];
      const same = now.find((link) => mark.href && link.getAttribute("href") === mark.href) || now[mark.place] || now[0];
      if (same) same.focus({ preventScroll: true });
    }
    if (first) return false;
    for (const row of part.querySelectorAll("tr[data-key]")) {
      if (before.get(row.dataset.key) !== row.dataset.state) row.classList.add("fresh");
    }
    return true;
  }

  async function refresh(part) {
    try {
      const answer = await fetch(part.dataset.source, { credentials: "same-origin", cache: "no-store" });
      if (answer.redirected || answer.status === 401) return ended();
      if (!answer.ok) return tell("late", `Waiting: the gateway answers ${answer.status}`);
      if (exchange(part, await answer.text())) say(part);
      tell("on", "Live");
    } catch {
      tell("late", "Waiting for the gateway");
    }
  }

  // soon after the first of many changes, and once more when it is quiet: audit records follow events
  function plan(part) {
    const name = part.dataset.live;
    const timers = waiting.get(name) || {};
    timers.soon ||= setTimeout(() => { timers.soon = 0; refresh(part); }, 300);
    clearTimeout(timers.after);
    timers.after = setTimeout(() => refresh(part), 2000);
    waiting.set(name, timers);
  }

  function say(part) {
    const title = part.closest("section")?.querySelector("h1, h2")?.textContent || "The page";
    said.textContent = `${title.trim()}: updated at ${today.format(new Date())}`;
  }

  function tell(state, text) {
    live.dataset.state = state;
    live.textContent = text;
  }

  function ended() {
    tell("off", "");
    const again = document.createElement("a");
    again.href = location.href;
    again.textContent = "Session ended: log in";
    live.append(again);
  }

  let source = null;
  function watch() {
    if (document.hidden) {
      source?.close();  // a browser has few connections for one host
      source = null;
      return;
    }
    if (source) return;
    source = new EventSource(events);
    source.addEventListener("open", () => { tell("on", "Live"); parts.forEach(refresh); });
    source.addEventListener("changed", (event) => {
      const names = new Set(JSON.parse(event.data));
      parts.filter((part) => names.has(part.dataset.live)).forEach(plan);
    });
    source.addEventListener("error", () => {
      if (source.readyState !== EventSource.CLOSED) return tell("late", "Waiting for the gateway");
      source = null;
      tell("late", "Waiting for the gateway");
      setTimeout(check, 3000);
    });
  }

  async function check() {
    try {
      const answer = await fetch(events.replace(/live$/, "session"), { credentials: "same-origin", cache: "no-store" });
      if (answer.redirected) return ended();
    } catch { /* the gateway is away: the stream is tried again */ }
    watch();
  }

  localize(document);
  if (events && live) {
    document.addEventListener("visibilitychange", watch);
    watch();
  }
})();
