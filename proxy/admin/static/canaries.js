// Canaries: the share of the clients that meets the other version, and both sides' figures.

import { act, ask } from "./api.js";
import { el, fill, keyed, say } from "./dom.js";
import * as format from "./format.js";

export function canariesView(main) {
  const list = el("div", { class: "canaries" });
  const none = el("p", { class: "empty" }, "No filter has a canary. A filter's canary key names another version and a weight.");
  fill(main, el("h1", {}, "Canaries"), list, none);
  let asked = 0;
  return () => {
    if (Date.now() - asked < 1500) return;
    asked = Date.now();
    ask("/canaries").then((found) => {
      const canaries = Object.values(found);
      keyed(list, canaries, (one) => one.filter, makeCanary, updateCanary);
      none.hidden = canaries.length > 0;
    }, () => {});
  };
}

function makeCanary(one) {
  const path = `/canaries/${encodeURIComponent(one.filter)}`;
  const slider = el("input", { type: "range", min: 0, max: 100, step: 1, value: Math.round(one.weight * 100), "aria-label": `Weight of the canary of ${one.filter}, percent` });
  const weight = el("output", {}, format.percent(one.weight));
  const state = el("span", { class: "badge" });
  const next = el("p", { class: "note" });
  const facts = el("p", { class: "note break" });
  const figures = el("div", { class: "scroll" });
  const promote = el("button", { type: "button", class: "main" }, "Promote");
  const rollback = el("button", { type: "button", class: "danger" }, "Roll back");
  slider.oninput = () => say(weight, `${slider.value} %`);
  slider.onchange = () => act(path, "PUT", { weight: Number(slider.value) / 100, by: "page" }, `${one.filter}: ${slider.value} % meet the canary`);
  promote.onclick = () => act(`${path}/promote`, "POST", { by: "page" }, `${one.filter}: the canary serves everybody`);
  rollback.onclick = () => act(`${path}/rollback`, "POST", { by: "page" }, `${one.filter}: nobody meets the canary`);
  const node = el("section", { class: "card" },
    el("div", { class: "row" }, el("h2", {}, el("a", { href: `#/filters/${encodeURIComponent(one.filter)}` }, one.filter)), state, el("span", { class: "grow" }), promote, rollback), facts,
    el("div", { class: "row slider" }, slider, weight), figures, next);
  node.parts_ = { slider, weight, state, next, figures, facts };
  return node;
}

function updateCanary(node, one) {
  const { slider, weight, state, next, figures, facts } = node.parts_;
  say(state, one.state.replace("_", " "));
  state.className = `badge ${one.state}`;
  if (document.activeElement !== slider) {
    slider.value = Math.round(one.weight * 100);
    say(weight, format.percent(one.weight));
  }
  say(facts, [one.wasm, one.sticky ? `sticky by ${Object.keys(one.sticky).find((key) => one.sticky[key])}` : "each stream by chance", one.by && `decided by ${one.by}${one.since ? `, ${format.ago(one.since)}` : ""}`].filter(Boolean).join(" · "));
  say(next, [...(one.evidence || []), one.next].filter(Boolean).join(" "));
  next.hidden = !next.textContent;
  const sides = [["live", one.live], ["canary", one.canary]].filter(([, side]) => side);
  if (sides.length) {
    const keys = Object.keys(sides[0][1]);
    fill(figures, el("table", {}, el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Side"), keys.map((key) => el("th", { scope: "col", class: "number" }, key.replace("_seconds", "").replaceAll("_", " "))))),
      el("tbody", {}, sides.map(([side, values]) => el("tr", {}, el("th", { scope: "row" }, side), keys.map((key) => el("td", { class: "number" }, shown(key, values[key]))))))));
  }
}

function shown(key, value) {
  if (typeof value !== "number") return value === undefined || value === null ? "" : String(value);
  return /seconds|p99|p50/.test(key) ? format.seconds(value) : format.count(Math.round(value * 1000) / 1000);
}
