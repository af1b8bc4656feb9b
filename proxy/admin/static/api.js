// What is asked of the gateway, with the token if it wants one.

const TOKEN = "penstock-token";
let token = sessionStorage.getItem(TOKEN) || "";
let asking = null;

export class Refused extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

/** JSON of a path; throws Refused for a status of 400 and above (but 503 of /ready is an answer), TypeError if nobody answers. */
export async function ask(path, method = "GET", body) {
  const headers = { Accept: "application/json" };
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const response = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  if (response.status === 401) {
    if (await askForToken()) return ask(path, method, body);
    throw new Refused(401, "a token is needed");
  }
  const said = await response.json();
  if (!response.ok && !(path === "/ready" && response.status === 503)) throw new Refused(response.status, said.error || response.statusText);
  return said;
}

function askForToken() {
  asking ||= confirmed({
    title: "A token is needed", text: "It is the config's admin.token. It stays in this tab until you close it.", yes: "Use it", input: "Token",
  }).then((given) => {
    asking = null;
    if (!given) return false;
    token = given.trim();
    sessionStorage.setItem(TOKEN, token);
    return true;
  });
  return asking;
}

/** Ask the operator; true or the text that was written, false for no. */
export function confirmed({ title, text, yes, input = "", value = "" }) {
  const get = (id) => document.getElementById(id);
  const dialog = get("ask");
  get("ask-title").textContent = title;
  get("ask-text").textContent = text;
  get("ask-yes").textContent = yes;
  get("ask-label").hidden = !input;
  get("ask-label").firstElementChild.textContent = input;
  get("ask-input").value = value;
  get("ask-input").type = input === "Token" ? "password" : "text";
  return new Promise((resolve) => {
    const end = (answer) => {
      dialog.onclose = null;
      dialog.close();
      resolve(answer);
    };
    get("ask-yes").onclick = () => end(input ? get("ask-input").value || false : true);
    get("ask-no").onclick = () => end(false);
    get("ask-input").onkeydown = (event) => {
      if (event.key === "Enter") {
        event.preventDefault();
        get("ask-yes").click();
      }
    };
    dialog.onclose = () => end(false);
    if (!dialog.open) dialog.showModal();
    (input ? get("ask-input") : get("ask-no")).focus();
  });
}

let timer = 0;

/** A line at the bottom, for a few seconds. */
export function toast(text, bad = false) {
  const node = document.getElementById("toast");
  node.textContent = text;
  node.className = bad ? "shown bad" : "shown";
  clearTimeout(timer);
  timer = setTimeout(() => (node.className = ""), 5000);
}

/** Do something that changes the gateway, and say how it went. */
export async function act(path, method, body, done) {
  try {
    const answer = await ask(path, method, body);
    toast(done);
    return answer;
  } catch (error) {
    toast(error.message, true);
    return null;
  }
}
