// The keyboard: what may be pressed, and the list of it under "?".

import { el, fill } from "./dom.js";

const VIEWS = { c: ["#/chain", "chain"], s: ["#/streams", "streams"], l: ["#/logs", "logs"], k: ["#/canaries", "canaries"], g: ["#/gateway", "gateway"] };
const WAIT_MS = 1200;

/** `current()` gives the view's own keys. */
export function listen(current) {
  let pending = 0;
  const help = document.getElementById("shortcuts");
  const open = () => {
    const list = [
      ...Object.entries(VIEWS).map(([key, [, name]]) => [`g ${key}`, `go to ${name}`]),
      ["/", "search"], ["w", "watch streams, or stop (in Streams)"], ["j  k", "next and previous stream (in Streams)"], ["Enter", "open"], ["Esc", "close"],
      ["t", "light, dark or as the system"], ["?", "this list"],
    ];
    fill(document.getElementById("shortcut-list"), list.map(([key, text]) => el("tr", {}, el("td", {}, key.split(/ +/).map((one) => [el("kbd", {}, one), " "])), el("td", {}, text))));
    help.showModal();
  };
  document.getElementById("help").addEventListener("click", open);
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    const typing = event.target.closest?.("input, select, textarea");
    if (typing && !(event.key === "Escape")) return;
    if (typing) {
      event.target.blur();
      return;
    }
    const own = current()?.keys?.[event.key];
    if (pending && Date.now() - pending < WAIT_MS && VIEWS[event.key]) {
      location.hash = VIEWS[event.key][0];
      pending = 0;
    } else if (event.key === "g") pending = Date.now();
    else if (own) own();
    else if (event.key === "?") open();
    else if (event.key === "t") window.penstockTheme();
    else if (event.key === "/") document.querySelector("main input[type=search]")?.focus();
    else return;
    event.preventDefault();
  });
}
