// The chain as a picture: requests flow through the filters to the services, with what each filter does and costs.

import { el, fill, keyed, say, spark, split } from "./dom.js";
import * as format from "./format.js";
import { speed, speeds, store, total } from "./store.js";

export function chainView(main) {
  const tiles = el("div", { class: "tiles" });
  const pipe = el("ol", { class: "pipe" });
  const times = el("section", { class: "card times", "aria-label": "Where the time goes" });
  const table = el("tbody");
  fill(
    main,
    el("h1", {}, "Chain"),
    tiles,
    el("section", { class: "card flow", "aria-label": "The filters in order" }, pipe),
    times,
    el("section", { class: "card" }, el("h2", {}, "Filters in figures"), el("div", { class: "scroll" }, el(
      "table", {},
      el("thead", {}, el("tr", {}, ["Filter", "State", "Calls/s", "Time p50", "p90", "p99", "Fuel p50", "p99", "Memory", "Faults", "Refused host calls"].map((title, i) => el("th", { scope: "col", class: i > 1 ? "number" : null }, title)))),
      table,
    ))),
  );
  const parts = makeTiles(tiles);
  return () => {
    if (!store.overview) return;
    const figures = store.overview.figures;
    showTiles(parts, figures);
    const stops = [{ end: "clients" }, ...store.names.filter((name) => !name.includes("@")).map((name) => ({ name })), { end: "services" }];
    keyed(pipe, stops, (stop) => stop.end || `filter ${stop.name}`, makeStop, updateStop);
    pipe.classList.toggle("flowing", speed((one) => one.requests) > 0);
    const mean = (key) => {
      const requests = speed((one) => one.requests);
      return requests ? speed((one) => one[`${key}_sum`]) / requests : figures.requests ? figures[key].sum / figures.requests : 0;
    };
    fill(times, el("h2", {}, "Where the time of a stream goes"), split(
      [{ name: "Penstock and waiting for the client", value: mean("own"), kind: "own" }, { name: "filters", value: mean("filters"), kind: "filters" }, { name: "upstream", value: mean("upstream"), kind: "upstream" }],
      format.seconds,
    ));
    keyed(table, inOrder(store.names), (name) => name, makeRow, updateRow);
  };
}

/** Other versions (NAME@canary) stand below the one that they are of. */
function inOrder(names) {
  const own = (name) => name.split("@")[0];
  const first = names.filter((name) => !name.includes("@"));
  return [...names].sort((left, right) => first.indexOf(own(left)) - first.indexOf(own(right)) || left.length - right.length);
}

const TILES = [
  ["Requests", "/s", (figures) => format.rate(speed((one) => one.requests)), (one) => one.requests],
  ["Errors", "5xx/s", (figures) => format.rate(speed((one) => one.errors)), (one) => one.errors],
  ["Duration p50", "", (figures) => format.seconds(figures.duration.p50)],
  ["Duration p99", "", (figures) => format.seconds(figures.duration.p99)],
  ["Streams", "now", (figures) => format.count(figures.streams)],
  ["Connections", "now", (figures) => format.count(figures.connections)],
  ["Memory", "", (figures) => format.bytes(figures.memory_bytes)],
];

function makeTiles(parent) {
  return TILES.map(([title, unit, value, of]) => {
    const number = el("b", {}, "–");
    const line = el("div", { class: "tile-line" });
    parent.append(el("div", { class: "tile" }, el("span", {}, title), el("div", {}, number, unit && el("small", {}, ` ${unit}`)), line));
    return { number, line, value, of };
  });
}

function showTiles(parts, figures) {
  for (const part of parts) {
    say(part.number, part.value(figures));
    if (part.of) fill(part.line, spark(speeds(part.of)));
  }
}

export function dot(state) {
  return el("i", { class: `dot ${state}`, "aria-hidden": "true" });
}

function makeStop(stop) {
  if (stop.end) {
    const words = { clients: ["Clients", "downstream"], services: ["Services", "upstream"] }[stop.end];
    const figure = el("span", { class: "end-figure" });
    const node = el("li", { class: `end ${stop.end}` }, el("div", { class: "end-box" }, el("b", {}, words[0]), el("small", {}, words[1]), figure));
    node.figure = figure;
    return node;
  }
  const parts = {
    dot: dot(""), calls: el("b"), line: el("div", { class: "card-line" }),
    cells: Array.from({ length: 4 }, () => el("td", { class: "number" })), faults: el("span"), canary: el("span", { class: "badge", hidden: true }),
  };
  const link = el(
    "a", { class: "filter", href: `#/filters/${encodeURIComponent(stop.name)}` },
    el("span", { class: "filter-head" }, parts.dot, el("span", { class: "filter-name" }, stop.name)),
    el("span", { class: "filter-rate" }, el("span", {}, parts.calls, el("small", {}, " calls/s")), parts.canary, parts.faults),
    parts.line,
    el("table", {}, el("thead", {}, el("tr", {}, el("th"), ["p50", "p99"].map((title) => el("th", { class: "number" }, title)))), el("tbody", {},
      el("tr", {}, el("td", {}, "time"), parts.cells.slice(0, 2)), el("tr", {}, el("td", {}, "fuel"), parts.cells.slice(2)))),
  );
  const node = el("li", {}, link);
  node.parts = parts;
  node.link = link;
  return node;
}

function updateStop(node, stop) {
  if (stop.end) {
    const figures = store.overview.figures;
    say(node.figure, stop.end === "clients" ? `${format.count(figures.connections)} connections` : `${format.count(figures.upstream_connections)} connections`);
    return;
  }
  const { parts, link } = node;
  const filter = store.filters[stop.name];
  const figures = filter.figures;
  const own = (one) => one.filters[stop.name]?.calls;
  const faults = total(figures.failures);
  parts.dot.className = `dot ${filter.state}`;
  link.classList.toggle("down", filter.state !== "ready");
  const canary = filter.canary;
  parts.canary.hidden = !canary;
  if (canary) say(parts.canary, canary.state === "running" ? `canary ${format.percent(canary.weight)}` : `canary ${canary.state.replace("_", " ")}`);
  say(parts.calls, format.rate(speed(own)));
  fill(parts.line, spark(speeds(own), { width: 160, height: 32 }));
  const shown = [format.seconds(figures.seconds.p50), format.seconds(figures.seconds.p99), format.count(Math.round(figures.fuel.p50)), format.count(Math.round(figures.fuel.p99))];
  parts.cells.forEach((cell, i) => say(cell, shown[i]));
  say(parts.faults, filter.state !== "ready" ? filter.state : faults ? format.plural(faults, "fault") : "");
  parts.faults.className = "bad";
  link.setAttribute("aria-label", `${stop.name}: ${filter.state}, ${format.rate(speed(own))} calls a second, ${faults} faults`);
}

function makeRow(name) {
  const cells = Array.from({ length: 10 }, (_, i) => el("td", { class: i ? "number" : null }));
  const node = el("tr", {}, el("th", { scope: "row" }, el("a", { href: `#/filters/${encodeURIComponent(name)}` }, name)), cells);
  node.cells_ = cells;
  return node;
}

function updateRow(node, name) {
  const filter = store.filters[name];
  const { seconds, fuel, failures, memory_bytes: memory, host_call_errors: refused } = filter.figures;
  const [state, ...others] = node.cells_;
  if (state.dataset.state !== filter.state) {
    state.dataset.state = filter.state;
    fill(state, dot(filter.state), ` ${filter.state}`);
  }
  const values = [
    format.rate(speed((one) => one.filters[name]?.calls)), format.seconds(seconds.p50), format.seconds(seconds.p90), format.seconds(seconds.p99),
    format.count(Math.round(fuel.p50)), format.count(Math.round(fuel.p99)), format.bytes(memory), format.count(total(failures)),
    format.count(refused.reduce((sum, one) => sum + one.count, 0)),
  ];
  others.forEach((cell, i) => say(cell, values[i]));
  others[7].classList.toggle("bad", total(failures) > 0);
}
