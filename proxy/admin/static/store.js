// What is known of the gateway now, and of the last minutes: asked every second while the page is looked at.

import { ask } from "./api.js";

export const KEPT = 90;
const WINDOW = 5;

export const store = { overview: null, filters: {}, names: [], history: [], offline: false };
const listeners = new Set();

export function onNews(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

async function poll() {
  try {
    const [overview, filters] = await Promise.all([ask("/overview"), ask("/filters")]);
    store.overview = overview;
    store.filters = filters;
    store.names = Object.keys(filters);
    store.offline = false;
    const sample = { at: performance.now() / 1000, requests: overview.figures.requests, errors: errorsOf(overview.figures.codes), filters: {} };
    for (const key of ["own", "filters", "upstream", "duration"]) sample[`${key}_sum`] = overview.figures[key].sum;
    for (const name of store.names) {
      const figures = filters[name].figures;
      sample.filters[name] = { calls: figures.seconds.count, seconds: figures.seconds.sum, fuel: figures.fuel.sum, failures: total(figures.failures) };
    }
    const last = store.history.at(-1);
    if (last && last.requests > sample.requests) store.history.length = 0; // another gateway
    store.history.push(sample);
    if (store.history.length > KEPT) store.history.shift();
  } catch (error) {
    if (error.status !== 401) store.offline = true;
  }
  for (const listener of listeners) listener();
}

export function total(mapping) {
  return Object.values(mapping).reduce((sum, value) => sum + value, 0);
}

function errorsOf(codes) {
  return Object.entries(codes).reduce((sum, [code, value]) => sum + (code[0] === "5" || code === "0" ? value : 0), 0);
}

/** How fast a figure grows, per second, over the last seconds. */
export function speed(of) {
  return speeds(of, WINDOW).at(-1) ?? 0;
}

/** The same at every moment that is kept. */
export function speeds(of, window = WINDOW) {
  const history = store.history;
  const found = [];
  for (let i = 1; i < history.length; i++) {
    const before = history[Math.max(0, i - window)];
    const from = of(before);
    const to = of(history[i]);
    found.push(from === undefined || to === undefined ? 0 : Math.max(0, (to - from) / Math.max(history[i].at - before.at, 0.001)));
  }
  return found;
}

export function start() {
  const turn = async () => {
    if (!document.hidden) await poll();
    setTimeout(turn, 1000);
  };
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) poll();
  });
  turn();
}
