// Recent streams, kept while this view is looked at, and what every filter did to one of them.

import { act, ask, confirmed } from "./api.js";
import { el, fill, keyed, say, split } from "./dom.js";
import * as format from "./format.js";
import { labelled } from "./logs.js";

const KEEP_SECONDS = 60;
const RENEW_MS = 20000;
let watching = false;
let renewed = 0;

export function streamsView(main, [id = ""]) {
  const button = el("button", { type: "button", class: "main", "aria-keyshortcuts": "w" }, "Watch");
  const sample = el("select", {}, [[1, "every stream"], [0.1, "1 in 10"], [0.01, "1 in 100"]].map(([value, text]) => el("option", { value }, text)));
  const bodies = el("input", { type: "checkbox" });
  const search = el("input", { type: "search", placeholder: "path, status, filter", "aria-keyshortcuts": "/" });
  const left = el("span", { class: "note" });
  const body = el("tbody");
  const none = el("p", { class: "empty" });
  const detail = el("section", { class: "card detail", "aria-label": "Stream", tabindex: "-1", hidden: true });
  fill(
    main, el("h1", {}, "Streams"),
    el("div", { class: "row controls" }, button, labelled("Keep", sample), el("label", { class: "check" }, bodies, el("span", {}, "first bytes of bodies")), labelled("Search", search), left),
    el("div", { class: "split-view" },
      el("section", { class: "card list" }, el("div", { class: "scroll" }, el("table", { class: "streams" }, el("thead", {}, el("tr", {}, ["Time", "Request", "Status", "Duration", "Filters"].map((title, i) => el("th", { scope: "col", class: i > 1 ? "number" : null }, title)))), body)), none),
      detail),
  );
  let streams = [];
  let shown = "";
  const renew = () => {
    renewed = Date.now();
    return ask("/tap", "PUT", { seconds: KEEP_SECONDS, sample: Number(sample.value), bodies: bodies.checked });
  };
  const toggle = async () => {
    if (!watching && bodies.checked && !(await confirmed({ title: "Keep bodies?", text: "The first 512 bytes of bodies may hold what nobody should see. They stay in the workers' memory until newer streams push them out.", yes: "Keep them" }))) return;
    watching = !watching;
    if (watching) await renew().catch(() => (watching = false));
    else await act("/tap", "DELETE", undefined, "streams are no longer kept");
    showTap();
  };
  button.onclick = toggle;
  for (const control of [sample, bodies]) control.addEventListener("change", () => watching && renew());
  const showTap = () => {
    button.textContent = watching ? "Stop" : "Watch";
    button.className = watching ? "danger" : "main";
    say(left, watching ? "Watching. It ends a minute after this view is left." : "");
  };
  const show = () => {
    const text = search.value.toLowerCase();
    const wanted = streams.filter((one) => !text || `${one.method} ${one.path} ${one.status} ${one.answered_by} ${one.request_id} ${one.route} ${one.details}`.toLowerCase().includes(text));
    keyed(body, wanted, (one) => one.id, makeRow, updateRow);
    none.hidden = wanted.length > 0;
    say(none, streams.length ? "No stream fits." : watching ? "No stream yet: send a request." : "Press Watch (w) to keep what comes from now on. Each stream that is kept costs some 0.2 ms of CPU.");
    for (const row of body.children) row.classList.toggle("open", row.known_ === shown);
  };
  search.addEventListener("input", show);
  showTap();
  const open = async (wanted) => {
    shown = wanted;
    detail.hidden = !wanted;
    if (!wanted) return;
    try {
      showStream(detail, await ask(`/streams/${wanted}`));
    } catch (error) {
      fill(detail, el("p", { class: "empty" }, error.status === 404 ? "It is no longer kept: newer streams have pushed it out." : error.message));
    }
  };
  if (id) open(id).then(() => detail.focus({ preventScroll: true }));
  const update = async () => {
    if (watching && Date.now() - renewed > RENEW_MS) renew().catch(() => {});
    try {
      const answer = await ask("/streams");
      if (answer.tap.on !== watching) {
        watching = answer.tap.on;
        showTap();
      }
      streams = answer.streams;
      show();
      const row = streams.find((one) => one.id === shown);
      if (row?.running) open(shown);
    } catch {
      return; // the bar says that nobody answers
    }
  };
  update();
  update.keys = { w: toggle, j: () => move(body, 1), k: () => move(body, -1), Escape: () => id && (location.hash = "#/streams") };
  return update;
}

function move(body, step) {
  const links = [...body.querySelectorAll("a")];
  const at = links.indexOf(document.activeElement);
  links[Math.min(Math.max(at + step, 0), links.length - 1)]?.focus();
}

function makeRow(one) {
  const cells = [el("td", { class: "number" }), el("td", { class: "number" }), el("td", { class: "number" })];
  const row = el(
    "tr", {},
    el("td", {}, el("time", {}, format.clock(one.time))),
    el("td", { class: "request" }, el("a", { href: `#/streams/${one.id}` }, el("b", {}, one.method), " ", one.path), el("small", {}, [one.route || "no route", one.answered_by && `by ${one.answered_by}`].filter(Boolean).join(" · "))),
    cells,
  );
  row.known_ = one.id;
  row.cells_ = cells;
  row.addEventListener("click", () => (location.hash = `#/streams/${one.id}`));
  return row;
}

function updateRow(row, one) {
  const [status, duration, filters] = row.cells_;
  const word = one.status || (one.running ? "…" : "none");
  if (status.textContent !== String(word)) fill(status, el("span", { class: `status s${String(one.status)[0]}` }, word));
  say(duration, one.running ? "running" : format.seconds(one.duration_seconds));
  say(filters, format.seconds(one.filter_seconds));
}

// One stream

function showStream(node, one) {
  const own = Math.max(0, one.duration_seconds - one.filter_seconds - one.upstream_seconds);
  fill(
    node,
    el("div", { class: "row" }, el("h2", { class: "break" }, `${one.method} ${one.path}`), el("span", { class: "grow" }), el("a", { class: "button", href: "#/streams", "aria-label": "Close the stream" }, "Close")),
    el("p", { class: "outcome" }, el("span", { class: `status s${String(one.status)[0]}` }, one.status || "no status"), " ", outcome(one)),
    split([{ name: "Penstock and client", value: own, kind: "own" }, { name: "filters", value: one.filter_seconds, kind: "filters" }, { name: "upstream", value: one.upstream_seconds, kind: "upstream" }], format.seconds),
    el("dl", { class: "facts wide" }, [
      ["When", new Date(one.time * 1000).toISOString()], ["Request id", one.request_id], ["Client", one.client], ["Authority", one.authority],
      ["Route", one.route || "none"], ["Upstream", one.upstream ? `${one.upstream} (${one.cluster})` : one.cluster || "none"],
      ["Bodies", `${format.bytes(one.bytes_received)} in, ${format.bytes(one.bytes_sent)} out`], ["Worker", one.worker],
    ].map(([key, value]) => el("div", {}, el("dt", {}, key), el("dd", {}, value)))),
    el("h3", {}, "What each filter did"),
    one.filters.length ? el("ol", { class: "steps" }, one.filters.map((filter) => filterSteps(one, filter))) : el("p", { class: "empty" }, "No filter takes part on this route."),
    gatewaySteps(one),
    one.steps_left_out > 0 && el("p", { class: "note" }, `${one.steps_left_out} more steps are not kept.`),
    el("h3", {}, "Request head"), heads(one.heads.request, "as it came", "to the upstream"),
    el("h3", {}, "Response head"), heads(one.heads.response, "as it came", "to the client"),
  );
}

function outcome(one) {
  const by = one.answered_by ? ` by ${one.answered_by}` : "";
  if (one.running) return "is running";
  return one.details === "via_upstream" ? "answered by the upstream" : `answered here${by}: ${one.details || "no details"}${one.flags ? ` (${one.flags})` : ""}`;
}

function filterSteps(one, filter) {
  const steps = one.steps.filter((step) => step.filter === filter.name);
  const changes = steps.reduce((sum, step) => sum + (step.changes?.length || 0) + (step.body?.changed ? 1 : 0), 0);
  const told = [filter.calls ? format.plural(filter.calls, "call") : "not called", format.seconds(filter.seconds), `fuel ${format.count(filter.fuel)}`, filter.held_seconds && `held ${format.seconds(filter.held_seconds)}`, changes ? format.plural(changes, "change") : "changed nothing", filter.faults && format.plural(filter.faults, "fault")];
  return el("li", {}, el(
    "details", { open: changes > 0 || filter.faults > 0 || one.answered_by === filter.name, class: filter.faults ? "failed" : null },
    el("summary", {}, el("b", {}, filter.name), el("span", { class: "told" }, told.filter(Boolean).join(" · ")), el("span", { class: "grow" }), el("a", { href: `#/filters/${encodeURIComponent(filter.name)}` }, "filter")),
    steps.map(stepRow),
  ));
}

function gatewaySteps(one) {
  const names = new Set(one.filters.map((filter) => filter.name));
  const own = one.steps.filter((step) => !names.has(step.filter));
  return own.length ? [el("h3", {}, "Penstock's own"), own.map(stepRow)] : null;
}

function stepRow(step) {
  const facts = [
    step.seconds !== undefined && format.seconds(step.seconds), step.fuel !== undefined && `fuel ${format.count(step.fuel)}`,
    step.action && step.action !== "Continue" && step.action, step.held_seconds !== undefined && `held ${format.seconds(step.held_seconds)}`,
    step.body && (step.body.changed ? `body ${format.bytes(step.body.bytes_before)} → ${format.bytes(step.body.bytes_after)}` : `body ${format.bytes(step.body.bytes_before)}`),
    step.end_of_stream && !step.callback.startsWith("on_log") && "end of stream",
  ].filter(Boolean);
  return el(
    "div", { class: step.failed ? "step failed" : "step" },
    el("div", { class: "step-head" }, el("code", {}, step.callback), el("span", { class: "told" }, facts.join(" · ")), el("span", { class: "grow" }), el("time", {}, `+${format.seconds(step.at_seconds)}`)),
    step.failed && el("p", { class: "bad" }, "It failed here: see its log."),
    step.reply && el("p", { class: "reply" }, `answers ${step.reply.status}, ${format.bytes(step.reply.body_bytes)}: ${step.reply.details || "no details"}`),
    step.changes?.length > 0 && el("pre", { class: "diff" }, step.changes.map((line) => el("span", { class: /^\w+ \+/.test(line) ? "plus" : "minus" }, line + "\n"))),
    step.body?.before !== undefined && (step.body.changed || step.body.bytes_before > 0) && el("div", { class: "bodies" }, el("pre", {}, step.body.before), step.body.changed && el("pre", { class: "after" }, step.body.after)),
  );
}

function heads(head, before, after) {
  if (!head.before && !head.after) return el("p", { class: "empty" }, "There was none.");
  return el("div", { class: "columns" }, [[before, head.before], [after, head.after]].map(([title, pairs]) => el("div", {}, el("h4", {}, title), pairs ? el("dl", { class: "head" }, pairs.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)))) : el("p", { class: "empty" }, "It did not get there."))));
}

