// Which view is shown, and the bar above it.

import { canariesView } from "./canaries.js";
import { chainView } from "./chain.js";
import { el, fill, say } from "./dom.js";
import { filterView } from "./filter.js";
import { gatewayView } from "./gateway.js";
import { listen } from "./keys.js";
import { logsView } from "./logs.js";
import { onNews, start, store } from "./store.js";
import { streamsView } from "./streams.js";

const VIEWS = {
  chain: [chainView, "Chain"], streams: [streamsView, "Streams"], filters: [filterView, null], logs: [logsView, "Logs"],
  canaries: [canariesView, "Canaries"], gateway: [gatewayView, "Gateway"],
};
const PILLS = { ready: "good", degraded: "warn", draining: "warn", "not serving": "bad" };

let update = null;
let seen = "";

function show() {
  const [, name = "chain", ...rest] = location.hash.split("/");
  const known = VIEWS[name] ? name : "chain";
  const main = document.getElementById("main");
  main.className = known;
  update = VIEWS[known][0](main, rest.map(decodeURIComponent));
  update();
  document.title = `${VIEWS[known][1] || decodeURIComponent(rest[0] || "")} · Penstock`;
  for (const link of document.querySelectorAll("#nav a")) {
    const here = link.getAttribute("href") === `#/${known}` || (known === "filters" && link.getAttribute("href") === "#/chain");
    if (here) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (seen && seen !== known) {
    main.focus({ preventScroll: true });
    scrollTo(0, 0);
  }
  seen = known;
}

function news() {
  const status = document.getElementById("status");
  document.getElementById("offline").hidden = !store.offline;
  if (store.overview) {
    say(status, store.overview.status);
    status.className = `pill ${store.offline ? "" : PILLS[store.overview.status] || ""}`;
  }
  update?.();
}

fill(document.getElementById("nav"), Object.entries(VIEWS).filter(([, [, title]]) => title).map(([name, [, title]]) => el("li", {}, el("a", { href: `#/${name}` }, title))));
addEventListener("hashchange", show);
listen(() => update);
onNews(news);
show();
start();
