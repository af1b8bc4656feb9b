// Numbers as people read them.

export function count(value) {
  if (value >= 1e9) return trim(value / 1e9) + " G";
  if (value >= 1e6) return trim(value / 1e6) + " M";
  if (value >= 1e4) return trim(value / 1e3) + " k";
  return value.toLocaleString("en");
}

function trim(value) {
  if (Number.isInteger(value)) return String(value);
  return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

export function plural(number, word) {
  return `${count(number)} ${word}${number === 1 ? "" : "s"}`;
}

export function rate(value) {
  if (value >= 1e4) return count(value);
  return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value === 0 ? "0" : value.toFixed(2);
}

export function seconds(value) {
  if (value === 0) return "0";
  if (value < 1e-3) return trim(value * 1e6) + " µs";
  if (value < 1) return trim(value * 1e3) + " ms";
  if (value < 120) return trim(value) + " s";
  return duration(value);
}

export function duration(value) {
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const found = [];
  let left = Math.round(value);
  for (const [unit, size] of units) {
    if (left >= size && found.length < 2) {
      found.push(`${Math.floor(left / size)} ${unit}`);
      left %= size;
    } else if (found.length) break;
  }
  return found.join(" ") || "0 s";
}

export function bytes(value) {
  if (value < 1024) return `${Math.round(value)} B`;
  if (value < 1 << 20) return trim(value / 1024) + " KiB";
  if (value < 2 ** 30) return trim(value / 2 ** 20) + " MiB";
  return trim(value / 2 ** 30) + " GiB";
}

export function ago(time) {
  const since = Date.now() / 1000 - time;
  return since < 1 ? "now" : `${duration(since)} ago`;
}

export function clock(time) {
  return new Date(time * 1000).toLocaleTimeString("en-GB");
}

export function percent(value) {
  return `${Number((value * 100).toPrecision(3))} %`;
}
