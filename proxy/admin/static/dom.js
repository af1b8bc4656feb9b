// Elements are made here and nowhere else. Text goes in as text: what filters and clients say is never markup.

const SVG = "http://www.w3.org/2000/svg";
const SVG_TAGS = new Set(["svg", "path", "polyline", "line", "rect", "g", "title"]);

/** el("p", {class: "x", onclick: f, "aria-label": "y"}, "text", child, ...); null, false and "" are left out. */
export function el(tag, attributes = {}, ...children) {
  const node = SVG_TAGS.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked" || name === "disabled" || name === "hidden" || name === "open") node[name] = value;
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  add(node, children);
  return node;
}

function add(node, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false || child === "") continue;
    node.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

/** Put other children into a node. */
export function fill(node, ...children) {
  node.replaceChildren();
  add(node, children);
  return node;
}

/** Set a node's text, if it is another one: what does not change is not painted. */
export function say(node, text) {
  const wanted = String(text);
  if (node.textContent !== wanted) node.textContent = wanted;
}

/** Keep one child for each item, in order: made once, updated ever after, so that focus and scrolling stay. */
export function keyed(parent, items, key, make, update) {
  const known = (parent.known ||= new Map());
  const wanted = new Set(items.map(key));
  for (const [name, node] of known) {
    if (!wanted.has(name)) {
      node.remove();
      known.delete(name);
    }
  }
  let place = parent.firstChild;
  for (const item of items) {
    const name = key(item);
    let node = known.get(name);
    if (!node) {
      node = make(item);
      known.set(name, node);
    }
    if (node === place) place = place.nextSibling;
    else parent.insertBefore(node, place);
    if (update) update(node, item);
  }
}

/** A line through values, as high as the highest of them. */
export function spark(values, { width = 120, height = 28, label = "" } = {}) {
  const top = Math.max(...values, 1e-9);
  const step = width / Math.max(values.length - 1, 1);
  const points = values.map((value, i) => `${(i * step).toFixed(1)},${(height - 2 - (value / top) * (height - 4)).toFixed(1)}`);
  const svg = el("svg", {
    class: "spark", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: label ? "img" : null,
    "aria-label": label || null, "aria-hidden": label ? null : "true",
  });
  if (points.length > 1) {
    svg.append(
      el("path", { class: "area", d: `M0,${height} L${points.join(" L")} L${width},${height} Z` }),
      el("polyline", { class: "line", points: points.join(" ") }),
    );
  }
  return svg;
}

/** A bar of parts: [{name, value, kind}], widths in proportion. */
export function split(parts, format) {
  const total = parts.reduce((sum, part) => sum + part.value, 0);
  const bar = el("div", { class: "split", role: "img", "aria-label": parts.map((part) => `${part.name} ${format(part.value)}`).join(", ") });
  for (const part of parts) {
    const piece = el("span", { class: part.kind });
    piece.style.flexGrow = total ? part.value / total : 0;
    bar.append(piece);
  }
  const legend = el("div", { class: "legend" }, parts.map((part) => el("span", {}, el("i", { class: part.kind }), `${part.name} `, el("b", {}, format(part.value)))));
  return el("div", {}, bar, legend);
}
