// The last log lines, by filter.

import { ask } from "./api.js";
import { el, fill, keyed } from "./dom.js";
import { store } from "./store.js";

const LEVELS = ["debug", "info", "warning", "error"];
const HIDDEN = new Set(["time", "level", "event", "logger", "number", "worker", "filter", "message"]);

export function lineRow(line) {
  const more = Object.entries(line).filter(([key, value]) => !HIDDEN.has(key) && value !== null);
  const text = line.message ?? "";
  return el(
    "li", { class: line.level },
    el("time", { datetime: line.time }, line.time.slice(11, 23)),
    el("span", { class: "level" }, line.level),
    el("span", { class: "who" }, line.filter),
    el("span", { class: "text" }, line.event === "filter_log" ? text : [el("b", {}, line.event), " ", text]),
    el("span", { class: "more" }, more.map(([key, value]) => `${key}=${value}`).join("  ")),
  );
}

export function logsView(main, [wanted = ""]) {
  const filter = el("select", { id: "log-filter" });
  const level = el("select", { id: "log-level" }, LEVELS.map((name) => el("option", { value: name }, name === "debug" ? "all levels" : `${name} and above`)));
  const search = el("input", { id: "log-search", type: "search", placeholder: "text or request id", "aria-keyshortcuts": "/" });
  const pause = el("button", { type: "button", "aria-pressed": "false" }, "Pause");
  const lines = el("ol", { class: "log tall", tabindex: "0", "aria-label": "Log lines, newest first" });
  const none = el("p", { class: "empty", hidden: true }, "No line. Filters' lines below the log level are not written at all: see Gateway.");
  fill(
    main, el("h1", {}, "Logs"),
    el("div", { class: "row controls" }, labelled("Filter", filter), labelled("Level", level), labelled("Search", search), pause),
    el("section", { class: "card" }, lines, none),
  );
  let paused = false;
  let asked = 0;
  let found = [];
  pause.onclick = () => {
    paused = !paused;
    pause.textContent = paused ? "Go on" : "Pause";
    pause.setAttribute("aria-pressed", String(paused));
  };
  const show = () => {
    const least = LEVELS.indexOf(level.value);
    const text = search.value.toLowerCase();
    const shown = found.filter((line) => Math.max(LEVELS.indexOf(line.level), line.level === "critical" ? 3 : 0) >= least && (!text || JSON.stringify(line).toLowerCase().includes(text)));
    keyed(lines, shown.slice(-300).reverse(), (line) => `${line.filter} ${line.worker} ${line.number}`, lineRow);
    none.hidden = shown.length > 0;
  };
  for (const control of [level, search]) control.addEventListener("input", show);
  filter.addEventListener("input", () => (location.hash = filter.value ? `#/logs/${encodeURIComponent(filter.value)}` : "#/logs"));
  return () => {
    if (filter.options.length !== store.names.length + 1) {
      fill(filter, el("option", { value: "" }, "all filters"), store.names.map((name) => el("option", { value: name }, name)));
      filter.value = wanted;
    }
    if (paused || Date.now() - asked < 1500) return;
    asked = Date.now();
    const names = wanted ? [wanted] : store.names;
    Promise.all(names.map((name) => ask(`/filters/${encodeURIComponent(name)}/logs`).catch(() => []))).then((answers) => {
      found = answers.flat().sort((left, right) => (left.time < right.time ? -1 : 1));
      show();
    });
  };
}

export function labelled(text, control) {
  return el("label", {}, el("span", {}, text), control);
}
