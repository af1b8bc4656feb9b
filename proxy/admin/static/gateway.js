// The gateway itself: workers, clusters and endpoints, routes, log level, draining, config.

import { act, ask, confirmed, toast } from "./api.js";
import { dot } from "./chain.js";
import { el, fill, keyed, say } from "./dom.js";
import { rows, table } from "./filter.js";
import * as format from "./format.js";
import { labelled } from "./logs.js";
import { store } from "./store.js";

export function gatewayView(main) {
  const facts = el("dl", { class: "facts wide" });
  const workers = el("tbody");
  const clusters = el("tbody");
  const routes = el("tbody");
  const level = el("select", { id: "level" }, ["debug", "info", "warning", "error"].map((name) => el("option", { value: name }, name)));
  const drain = el("button", { type: "button" }, "Drain");
  const stop = el("button", { type: "button", class: "danger" }, "Stop");
  const reload = el("button", { type: "button", class: "main" }, "Reload");
  const outcome = el("div", { class: "reload" });
  const config = el("pre", { class: "config", tabindex: "0", "aria-label": "The effective config" });
  fill(
    main, el("h1", {}, "Gateway"),
    el("section", { class: "card" }, facts, el("div", { class: "row controls" }, labelled("Log level", level), el("span", { class: "grow" }), reload, drain, stop), outcome),
    el("section", { class: "card" }, el("h2", {}, "Workers"), el("div", { class: "scroll" }, table(["Worker", "State", "Pid", "Since", "Restarts"], workers))),
    el("section", { class: "card" }, el("h2", {}, "Clusters"), el("div", { class: "scroll" }, table(["Endpoint", "Cluster", "State", "Since", "Idle", "Failures", "Last error"], clusters))),
    el("section", { class: "card" }, el("h2", {}, "Routes"), el("div", { class: "scroll" }, table(["Route", "Takes", "Cluster", "Timeout", "Filters"], routes))),
    el("section", { class: "card" }, el("details", {}, el("summary", {}, el("h2", {}, "Config")), config)),
  );
  level.onchange = () => act("/log", "PUT", { level: level.value }, `log level ${level.value}`);
  reload.onclick = async () => {
    reload.disabled = true;
    try {
      const found = await ask("/reload", "POST");
      toast({ ok: `generation ${found.generation} serves`, unchanged: "nothing has changed" }[found.result] || found.result);
    } catch (error) {
      toast(error.status === 409 ? "refused: what served before goes on" : error.message, true);
    }
    reload.disabled = false;
    asked = 0;
  };
  drain.onclick = () => (store.overview.status === "draining" ? act("/drain", "DELETE", undefined, "takes traffic again") : act("/drain", "POST", {}, "/ready says draining"));
  stop.onclick = async () => {
    if (await confirmed({ title: "Stop the gateway?", text: "It stops accepting, lets streams end within the grace, and exits. So does this page's address.", yes: "Stop it" })) act("/drain", "POST", { stop: true }, "the gateway stops");
  };
  ask("/config").then((found) => say(config, JSON.stringify(found, null, 2)), () => {});
  ask("/log").then((found) => (level.value = found.level), () => {});
  let asked = 0;
  return () => {
    if (!store.overview) return;
    const { version, status, uptime_seconds: uptime, figures } = store.overview;
    rows(facts, [["Version", version], ["State", status], ["Up for", format.duration(uptime)], ["Requests", format.count(figures.requests)], ["Rejected", format.count(figures.rejected)], ["VMs", format.count(figures.vms)], ["Memory", format.bytes(figures.memory_bytes)]]);
    drain.textContent = status === "draining" ? "Take traffic again" : "Drain";
    if (Date.now() - asked < 2000) return;
    asked = Date.now();
    ask("/reload").then((found) => showReload(outcome, found), () => {});
    ask("/ready").then((ready) => keyed(workers, ready.workers, (one) => one.slot, () => el("tr", {}, Array.from({ length: 5 }, () => el("td"))), (row, one) => {
      const texts = [`worker ${one.slot}`, null, one.pid ?? "", format.duration(one.uptime_seconds), one.restarts];
      texts.forEach((text, i) => i !== 1 && say(row.children[i], text));
      fill(row.children[1], dot(one.state), ` ${one.state}`);
    }), () => {});
    ask("/clusters").then((found) => keyed(clusters, found.flatMap((cluster) => cluster.endpoints.map((endpoint) => ({ ...endpoint, cluster: cluster.name }))), (one) => `${one.cluster} ${one.address}`, () => el("tr", {}, Array.from({ length: 7 }, () => el("td"))), (row, one) => {
      const texts = [one.address, one.cluster, null, one.since ? format.ago(one.since) : "", one.idle_connections, one.failures, one.error];
      texts.forEach((text, i) => i !== 2 && say(row.children[i], text));
      fill(row.children[2], dot(one.state), ` ${one.state}`);
    }), () => {});
    ask("/routes").then((found) => keyed(routes, found.map((route, i) => ({ ...route, key: `${i} ${route.name}` })), (one) => one.key, (one) => el("tr", {}, [one.name, Object.entries(one.match).map(([key, value]) => `${key} ${typeof value === "string" ? value : JSON.stringify(value)}`).join(", "), one.cluster, format.seconds(one.timeout_seconds), one.filters.join(", ")].map((text) => el("td", {}, text)))), () => {});
  };
}

function showReload(node, { generation, last }) {
  const refused = last?.result === "refused";
  fill(
    node,
    el("p", { class: refused ? "note bad" : "note" }, `Generation ${generation} serves. `, last ? `The last reload (${last.trigger}, ${format.clock(last.time)}) ${{ ok: "was taken", unchanged: "changed nothing", refused: "was refused" }[last.result] || last.result}${last.seconds ? ` in ${format.seconds(last.seconds)}` : ""}.` : "There was no reload yet."),
    refused && el("ul", { class: "bad" }, last.problems.map((problem) => el("li", {}, problem))),
    !refused && last?.changes.length > 0 && el("pre", { class: "diff" }, last.changes.map((line) => el("span", { class: line[0] === "+" ? "plus" : line[0] === "-" ? "minus" : null }, line + "\n"))),
  );
}
