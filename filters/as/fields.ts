/**
 * What filters do with header fields besides reading and writing them: names, lists, spellings. All on bytes.
 */
import { HeaderMap, bytes } from "./proxy_wasm";

/** ASCII letters in lower case; the rest as it is. */
export function lower(source: ArrayBuffer): ArrayBuffer {
  const view = Uint8Array.wrap(source.slice(0));
  for (let index = 0; index < view.length; index++) {
    if (view[index] >= 0x41 && view[index] <= 0x5a) view[index] |= 0x20;
  }
  return view.buffer;
}

/** RFC 9110 section 5.6.2; with `pseudo`, a colon may stand in front. */
export function isToken(name: ArrayBuffer, pseudo: bool): bool {
  const view = Uint8Array.wrap(name);
  let position = pseudo && view.length > 0 && view[0] == 0x3a ? 1 : 0;
  if (position == view.length) return false;
  for (; position < view.length; position++) {
    const byte = view[position];
    const letter = (byte | 0x20) >= 0x61 && (byte | 0x20) <= 0x7a;
    const digit = byte >= 0x30 && byte <= 0x39;
    if (!letter && !digit && !"!#$%&'*+-.^_`|~".includes(String.fromCharCode(byte))) return false;
  }
  return true;
}

/** Fields that say where a message ends or that belong to one connection: they are the gateway's, and a wrong one makes
 * two hosts disagree about where the next message starts. */
export const FRAMING = [
  "connection",
  "content-length",
  "keep-alive",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
];

/** Whether bytes begin with others. */
export function startsWith(whole: ArrayBuffer, start: ArrayBuffer): bool {
  const length = start.byteLength;
  return length <= whole.byteLength && memory.compare(changetype<usize>(whole), changetype<usize>(start), length) == 0;
}

/** Removes the fields of that name (in lower case) in every spelling: many servers hand headers to applications with
 * '-' and '_' made equal, so that a client could write `x_user` where a filter writes `x-user`. */
export function removeSpellings(headers: HeaderMap, name: ArrayBuffer): void {
  const fields = headers.all();
  while (fields.next()) {
    const found = fields.name();
    if (isSpelling(found, name)) headers.remove(found);
  }
}

function isSpelling(a: ArrayBuffer, b: ArrayBuffer): bool {
  if (a.byteLength != b.byteLength) return false;
  for (let index = 0; index < a.byteLength; index++) {
    if (dashed(load<u8>(changetype<usize>(a) + index)) != dashed(load<u8>(changetype<usize>(b) + index))) return false;
  }
  return true;
}

function dashed(byte: u8): u8 {
  return byte == 0x5f ? 0x2d : byte;
}

const COOKIE = bytes("cookie");

/** The value of a cookie (RFC 6265 section 4.2); null if there is none. Of several, the first. */
export function cookie(headers: HeaderMap, name: ArrayBuffer): ArrayBuffer | null {
  const fields = headers.all();
  while (fields.next()) {
    if (!fields.isNamed(COOKIE)) continue;
    const value = fields.value();
    const found = cookieIn(Uint8Array.wrap(value), Uint8Array.wrap(name));
    if (found !== null) return found;
  }
  return null;
}

function cookieIn(line: Uint8Array, name: Uint8Array): ArrayBuffer | null {
  let start = 0;
  while (start < line.length) {
    while (start < line.length && (line[start] == 0x20 || line[start] == 0x3b)) start++;
    let end = start;
    while (end < line.length && line[end] != 0x3b) end++;
    const value = start + name.length + 1;
    if (value <= end && line[value - 1] == 0x3d && sameAt(line, start, name)) return line.slice(value, end).buffer;
    start = end;
  }
  return null;
}

function sameAt(line: Uint8Array, start: i32, name: Uint8Array): bool {
  for (let index = 0; index < name.length; index++) if (line[start + index] != name[index]) return false;
  return true;
}

/** Makes a list field have an item: as a field of its own if the list is not there. `*` has them all. */
export function addToList(headers: HeaderMap, name: ArrayBuffer, item: ArrayBuffer): void {
  const fields = headers.all();
  const wanted = Uint8Array.wrap(item);
  while (fields.next()) {
    if (!fields.isNamed(name)) continue;
    const line = Uint8Array.wrap(lower(fields.value()));
    let start = 0;
    while (start <= line.length) {
      while (start < line.length && (line[start] == 0x20 || line[start] == 0x09)) start++;
      let end = start;
      while (end < line.length && line[end] != 0x2c) end++;
      let last = end;
      while (last > start && (line[last - 1] == 0x20 || line[last - 1] == 0x09)) last--;
      if (last - start == 1 && line[start] == 0x2a) return;
      if (last - start == wanted.length && sameAt(line, start, wanted)) return;
      start = end + 1;
    }
  }
  headers.add(name, item);
}
