// One filter: its state, what it may do, what it did, what it said; out of the chain and in again.

import { act, ask, confirmed } from "./api.js";
import { dot } from "./chain.js";
import { el, fill, keyed, say, spark } from "./dom.js";
import * as format from "./format.js";
import { lineRow } from "./logs.js";
import { speeds, store, total } from "./store.js";

export function filterView(main, [name]) {
  const state = el("span", { class: "state-line" });
  const button = el("button", { type: "button", class: "danger" });
  const reason = el("p", { class: "note bad", hidden: true });
  const facts = el("dl", { class: "facts" });
  const budgets = el("dl", { class: "facts" });
  const grants = el("dl", { class: "facts" });
  const figures = el("div", { class: "figures" });
  const traps = el("tbody");
  const errors = el("tbody");
  const quiet = el("p", { class: "empty" }, "No line at the log level that is set.");
  const lines = el("ol", { class: "log", tabindex: "0", hidden: true, "aria-label": `Last lines about ${name}` });
  fill(
    main,
    el("nav", { class: "crumbs", "aria-label": "Breadcrumb" }, el("a", { href: "#/chain" }, "Chain"), " / ", name),
    el("div", { class: "row" }, el("h1", {}, name), state, el("span", { class: "grow" }), button),
    reason,
    figures,
    el("div", { class: "columns" },
      el("section", { class: "card" }, el("h2", {}, "Facts"), facts),
      el("section", { class: "card" }, el("h2", {}, "Budgets"), budgets),
      el("section", { class: "card" }, el("h2", {}, "Grants"), grants)),
    el("div", { class: "columns" },
      el("section", { class: "card" }, el("h2", {}, "Last faults"), el("div", { class: "scroll" }, table(["When", "Worker", "Callback", "Reason", "Message"], traps))),
      el("section", { class: "card" }, el("h2", {}, "Host calls that were refused"), el("div", { class: "scroll" }, table(["Function", "Status", "Count"], errors)))),
    el("section", { class: "card" }, el("div", { class: "row" }, el("h2", {}, "Log"), el("a", { class: "grow right", href: `#/logs/${encodeURIComponent(name)}` }, "all of it")), quiet, lines),
  );
  button.onclick = async () => {
    if (store.filters[name]?.state === "quarantined") await act(`/filters/${encodeURIComponent(name)}/resume`, "POST", {}, `${name} is in again`);
    else await takeOut(name);
  };
  let asked = 0;
  return () => {
    const filter = store.filters[name];
    if (!filter) {
      if (store.overview) fill(main, el("h1", {}, name), el("p", { class: "empty" }, "There is no filter of that name. ", el("a", { href: "#/chain" }, "Back to the chain")));
      return;
    }
    fill(state, dot(filter.state), ` ${filter.state}`, filter.degraded_workers.length > 0 && el("small", {}, ` on workers ${filter.degraded_workers.join(", ")}`));
    const out = filter.state === "quarantined";
    say(button, out ? "Resume" : "Take out");
    button.className = out ? "main" : "danger";
    reason.hidden = !filter.reason;
    say(reason, [filter.since && `since ${format.clock(filter.since)}`, filter.reason].filter(Boolean).join(": "));
    showFigures(figures, name, filter.figures);
    rows(facts, [
      ["Kind", filter.kind === "component" ? "component" : `proxy-wasm ${filter.abi || ""}`], ["Version", filter.version || "not told"],
      ["Digest", filter.digest], ["Source", filter.source], ["If it fails", filter.on_failure === "open" ? "goes on without it" : "answers 503"],
      ["Callbacks", (filter.callbacks || []).join(", ")],
    ]);
    if (filter.budgets) {
      const { fuel, memory_bytes: memory, deadline_seconds: deadline, limits, quarantine } = filter.budgets;
      rows(budgets, [
        ["Fuel per call", fuel.toLocaleString("en")], ["Memory", `${format.bytes(filter.figures.memory_bytes)} used, ${format.bytes(memory)} each VM`],
        ["CPU time per call", format.seconds(deadline)], ["Body held", limits.body_buffer], ["Log lines", limits.log_lines], ["Pause", limits.pause],
        ["Quarantine", quarantine ? `${quarantine.faults} faults in ${quarantine.window}` : "never"],
      ]);
      const { allowed_hosts: hosts, host_functions: functions, env, ...more } = filter.grants;
      rows(grants, [
        ["May call", (hosts || []).join(", ") || "nobody"], ["Host functions", functions ? functions.join(", ") : "all that need no grant"],
        ["Environment", Object.keys(env || {}).join(", ") || "none"],
        ...Object.entries(more).filter(([, value]) => value && (typeof value !== "object" || Object.keys(value).length)).map(([key, value]) => [key, typeof value === "string" ? value : JSON.stringify(value)]),
      ]);
    }
    keyed(traps, filter.traps, (trap) => `${trap.time} ${trap.worker}`, (trap) => el("tr", {}, [format.clock(trap.time), trap.worker, trap.callback, trap.reason, trap.message].map((text) => el("td", {}, text))));
    empty(traps, 5, "No faults.");
    keyed(errors, filter.figures.host_call_errors, (one) => `${one.function} ${one.status}`, (one) => el("tr", {}, el("td", {}, one.function), el("td", {}, one.status), el("td", { class: "number" }, one.count)), (row, one) => say(row.lastChild, one.count));
    empty(errors, 3, "None.");
    if (Date.now() - asked > 2000) {
      asked = Date.now();
      ask(`/filters/${encodeURIComponent(name)}/logs`).then((found) => {
        const shown = found.slice(-30).reverse();
        keyed(lines, shown, (line) => `${line.worker} ${line.number}`, lineRow);
        lines.hidden = !shown.length;
        quiet.hidden = shown.length > 0;
      }, () => {});
    }
  };
}

export async function takeOut(name) {
  const reason = await confirmed({
    title: `Take ${name} out?`, text: "Its streams are answered as its on_failure says, in all workers, until you resume it.", yes: "Take it out",
    input: "Reason", value: "taken out by the operator",
  });
  if (reason) await act(`/filters/${encodeURIComponent(name)}/quarantine`, "POST", { reason: reason.slice(0, 200) }, `${name} is out`);
}

function showFigures(node, name, figures) {
  const shown = [
    ["Calls", format.count(figures.seconds.count), (one) => one.filters[name]?.calls],
    ["Time in it", format.seconds(figures.seconds.sum), (one) => one.filters[name]?.seconds],
    ["Time p99", format.seconds(figures.seconds.p99)],
    ["Fuel p99", format.count(Math.round(figures.fuel.p99))],
    ["Faults", format.count(total(figures.failures)), (one) => one.filters[name]?.failures],
    ["VMs built anew", format.count(figures.vm_rebuilds)],
  ];
  fill(node, el("div", { class: "tiles" }, shown.map(([title, value, of]) => el("div", { class: "tile" }, el("span", {}, title), el("div", {}, el("b", {}, value)), el("div", { class: "tile-line" }, of && spark(speeds(of)))))));
}

export function table(titles, body) {
  return el("table", {}, el("thead", {}, el("tr", {}, titles.map((title) => el("th", { scope: "col", class: title === "Count" ? "number" : null }, title)))), body);
}

function empty(body, columns, text) {
  const has = [...body.children].some((row) => !row.classList.contains("none"));
  let row = body.querySelector(":scope > .none");
  if (has) row?.remove();
  else if (!row) body.append(el("tr", { class: "none" }, el("td", { colspan: columns }, text)));
}

export function rows(node, pairs) {
  keyed(node, pairs, ([key]) => key, ([key]) => el("div", {}, el("dt", {}, key), el("dd")), (row, [, value]) => say(row.lastChild, value));
}
