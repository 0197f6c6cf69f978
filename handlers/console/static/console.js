// Keeps the page as it is now: the event stream names what changed, and that part alone is fetched and exchanged.
"use strict";
(() => {
  const events = document.body.dataset.events;
  const live = document.getElementById("live");
  const said = document.getElementById("said");
  const parts = [...document.querySelectorAll("[data-live]")];
  const waiting = new Map();
  const clock = { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" };
  const form = (options) => new Intl.DateTimeFormat(undefined, options);
  const forms = new Map([false, true].map((exact) => {
    const time = exact ? { ...clock, fractionalSecondDigits: 3 } : clock;
    const day = { ...time, day: "numeric", month: "short" };
    return [exact, { today: form(time), year: form(day), ever: form({ ...day, year: "numeric" }) }];
  }));

  function localize(within) {
    const now = new Date();
    for (const time of within.querySelectorAll("time[datetime]")) {
      const at = new Date(time.dateTime);
      if (Number.isNaN(at.getTime())) continue;
      const by = forms.get(time.closest(".exact") !== null);
      const same = at.toDateString() === now.toDateString() ? "today" : at.getFullYear() === now.getFullYear() ? "year" : "ever";
      time.textContent = by[same].format(at);
    }
  }

  function states(part) {
    return new Map([...part.querySelectorAll("tr[data-key]")].map((row) => [row.dataset.key, row.dataset.state]));
  }

  // what the page would be, without what it added itself
  function plain(part) {
    const copy = part.cloneNode(true);
    copy.querySelectorAll("tr.fresh").forEach((row) => row.removeAttribute("class"));
    copy.querySelectorAll("details").forEach((one) => { one.open = false; });
    return copy.innerHTML.trim();
  }

  function exchange(part, html) {
    const next = document.createElement("div");
    next.innerHTML = html;
    localize(next);
    if (plain(next) === plain(part)) return false;  // a click under way is not lost
    const before = states(part);
    const reachable = "a, summary, [tabindex]";
    const focused = part.contains(document.activeElement) ? document.activeElement : null;
    const place = [...part.querySelectorAll(reachable)].indexOf(focused);
    const open = [...part.querySelectorAll("details")].map((one) => one.open);
    part.replaceChildren(...next.childNodes);
    part.querySelectorAll("details").forEach((one, number) => { one.open = open[number] ?? false; });
    if (focused) {
      const now = [...part.querySelectorAll(reachable)];
      const href = focused.getAttribute("href");
      const same = now.find((link) => href && link.getAttribute("href") === href) || now[place] || now[0];
      same?.focus({ preventScroll: true });
    }
    for (const row of part.querySelectorAll("tr[data-key]")) {
      if (before.get(row.dataset.key) !== row.dataset.state) row.classList.add("fresh");
    }
    return true;
  }

  const took = new Map();
  async function refresh(part) {
    const began = performance.now();
    try {
      const answer = await fetch(part.dataset.source, { credentials: "same-origin", cache: "no-store" });
      if (answer.redirected || answer.status === 401) return ended();
      if (!answer.ok) return tell("late", `Waiting: the gateway answers ${answer.status}`);
      const html = await answer.text();
      took.set(part.dataset.live, performance.now() - began);
      if (exchange(part, html)) say(part);
      tell("on", "Live");
    } catch {
      tell("late", "Waiting for the gateway");
    }
  }

  // soon after the first of many changes, and once more when it is quiet: audit records follow events. What takes the
  // gateway long is asked for less often
  function plan(part) {
    const name = part.dataset.live;
    const long = took.get(name) ?? 0;
    const timers = waiting.get(name) || {};
    timers.soon ||= setTimeout(() => { timers.soon = 0; refresh(part); }, Math.max(300, 4 * long));
    clearTimeout(timers.after);
    timers.after = setTimeout(() => refresh(part), Math.max(2000, 8 * long));
    waiting.set(name, timers);
  }

  function say(part) {
    const title = part.closest("section")?.querySelector("h1, h2")?.textContent || "The page";
    said.textContent = `${title.trim()}: updated at ${forms.get(false).today.format(new Date())}`;
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
