/**
 * header-rewrite: renames, removes, sets and adds headers of requests and responses, by configuration.
 *
 * The order within a direction is fixed (rename, remove, set, add), and templates see the headers as they were before
 * the first of these. Request headers are out of reach in the response phase (as in Envoy), so those which a response
 * template uses are kept from the request phase on.
 */
import {
  Action,
  HeaderMap,
  LogLevel,
  bytes,
  collectGarbage,
  equal,
  log,
  pluginConfiguration,
  requestHeaders,
  responseHeaders,
  text,
} from "../as/proxy_wasm";
import { FRAMING, isToken, lower } from "../as/fields";
import { Kind, Value, find, parse, parseError } from "../as/json";

export { proxy_abi_version_0_2_1, proxy_on_memory_allocate } from "../as/proxy_wasm";

// ---- what a configuration comes to ----

enum Source {
  Literal,
  Request,
  Response,
}

class Part {
  /** For a request header used by a response template: where `Root.kept` has it. */
  keptAt: i32 = -1;
  /** What it came to in this stream. */
  value: ArrayBuffer | null = null;

  /** `bytes` is the literal text, or the name of the header. */
  constructor(
    public source: Source,
    public bytes: ArrayBuffer,
  ) {}

  resolve(kept: usize): ArrayBuffer | null {
    if (this.source == Source.Literal) return this.bytes;
    if (this.source == Source.Response) return responseHeaders.get(this.bytes);
    if (this.keptAt < 0) return requestHeaders.get(this.bytes);
    return kept == 0 ? null : keptValue(kept, this.keptAt);
  }
}

/** A header to set or to add. */
class Edit {
  /** What the template came to in this stream; null if nothing was left, and then the header is not written. */
  value: ArrayBuffer | null = null;

  constructor(
    public name: ArrayBuffer,
    public parts: Part[],
  ) {
    if (parts.length == 1 && parts[0].source == Source.Literal) this.value = parts[0].bytes;
  }

  /** Works out `value`. Both scratch fields are overwritten for each stream, so that no lists have to be made. */
  render(kept: usize): void {
    const parts = this.parts;
    if (parts.length == 1 && parts[0].source == Source.Literal) return;
    let length = 0;
    for (let index = 0; index < parts.length; index++) {
      const piece = parts[index].resolve(kept);
      parts[index].value = piece;
      if (piece !== null) length += piece.byteLength;
    }
    this.value = length == 0 ? null : parts.length == 1 ? parts[0].value : join(parts, length);
  }
}

function join(parts: Part[], length: i32): ArrayBuffer {
  const result = new ArrayBuffer(length);
  let end = changetype<usize>(result);
  for (let index = 0; index < parts.length; index++) {
    const piece = parts[index].value;
    if (piece === null) continue;
    memory.copy(end, changetype<usize>(piece), piece.byteLength);
    end += piece.byteLength;
  }
  return result;
}

class Rename {
  constructor(
    public from: ArrayBuffer,
    public to: ArrayBuffer,
  ) {}
}

/** What is done to one direction. */
class Rules {
  renames: Rename[] = [];
  removes: ArrayBuffer[] = [];
  sets: Edit[] = [];
  adds: Edit[] = [];
}

class Root {
  request: Rules = new Rules();
  response: Rules = new Rules();
  /** Names of the request headers that response templates use. */
  kept: ArrayBuffer[] = [];
}

// One VM may serve several configurations, each a root context, so nothing is kept "for the filter". What is kept per
// stream are plain numbers and blocks of raw memory, no objects: ten thousand open streams do not make a collection slow.
const roots = new Map<u32, Root>();
const rootOfStream = new Map<u32, u32>();
const keptByStream = new Map<u32, usize>();

// ---- callbacks ----

export function proxy_on_context_create(context: u32, root: u32): void {
  if (root != 0) rootOfStream.set(context, root);
}

export function proxy_on_configure(root: u32, size: u32): u32 {
  problem = "";
  const configured = readConfiguration(pluginConfiguration());
  if (configured === null) {
    log(LogLevel.Error, "header-rewrite: configuration refused: " + problem);
    return 0;
  }
  roots.set(root, configured);
  return 1;
}

export function proxy_on_request_headers(context: u32, count: u32, endOfStream: u32): u32 {
  const root = rootOf(context);
  if (root === null) return Action.Continue;
  if (root.kept.length > 0) {
    forget(context);
    keptByStream.set(context, keep(root.kept));
  }
  apply(root.request, requestHeaders, 0);
  collectGarbage();
  return Action.Continue;
}

export function proxy_on_response_headers(context: u32, count: u32, endOfStream: u32): u32 {
  const root = rootOf(context);
  if (root === null) return Action.Continue;
  apply(root.response, responseHeaders, keptByStream.has(context) ? keptByStream.get(context) : 0);
  collectGarbage();
  return Action.Continue;
}

export function proxy_on_delete(context: u32): void {
  // Contexts share one numbering, so at most one of these has the id.
  if (!rootOfStream.delete(context)) roots.delete(context);
  forget(context);
}

function rootOf(context: u32): Root | null {
  if (!rootOfStream.has(context)) return null;
  const root = rootOfStream.get(context);
  return roots.has(root) ? roots.get(root) : null;
}

// ---- request headers kept for the response ----

/** Copies the values of these request headers to a block of raw memory: of each its length, or -1, and its bytes. */
function keep(names: ArrayBuffer[]): usize {
  const values = new Array<ArrayBuffer | null>(names.length);
  let size: usize = 0;
  for (let index = 0; index < names.length; index++) {
    const value = requestHeaders.get(names[index]);
    values[index] = value;
    size += 4 + (value === null ? 0 : value.byteLength);
  }
  const block = heap.alloc(size);
  let end = block;
  for (let index = 0; index < values.length; index++) {
    const value = values[index];
    store<i32>(end, value === null ? -1 : value.byteLength);
    end += 4;
    if (value === null) continue;
    memory.copy(end, changetype<usize>(value), value.byteLength);
    end += value.byteLength;
  }
  return block;
}

/** The value at that index of a block that `keep` made. */
function keptValue(block: usize, index: i32): ArrayBuffer | null {
  let at = block;
  for (; index > 0; index--) at += 4 + max(load<i32>(at), 0);
  const length = load<i32>(at);
  if (length < 0) return null;
  const value = new ArrayBuffer(length);
  memory.copy(changetype<usize>(value), at + 4, length);
  return value;
}

function forget(context: u32): void {
  if (!keptByStream.has(context)) return;
  heap.free(keptByStream.get(context));
  keptByStream.delete(context);
}

// ---- editing ----

function apply(rules: Rules, headers: HeaderMap, kept: usize): void {
  const removes = rules.removes;
  const sets = rules.sets;
  const adds = rules.adds;
  // Every template before the first edit; see the top.
  for (let index = 0; index < sets.length; index++) sets[index].render(kept);
  for (let index = 0; index < adds.length; index++) adds[index].render(kept);

  if (rules.renames.length > 0) rename(rules.renames, headers);
  for (let index = 0; index < removes.length; index++) headers.remove(removes[index]);
  for (let index = 0; index < sets.length; index++) {
    const value = sets[index].value;
    if (value !== null) headers.set(sets[index].name, value);
  }
  for (let index = 0; index < adds.length; index++) {
    const value = adds[index].value;
    if (value !== null) headers.add(adds[index].name, value);
  }
}

/** Moves every field of a name to its new name, where they replace what is there. All moves happen at once. */
function rename(renames: Rename[], headers: HeaderMap): void {
  const before = headers.all();
  for (let index = 0; index < renames.length; index++) {
    before.rewind();
    while (before.next()) {
      if (!before.isNamed(renames[index].from)) continue;
      headers.remove(renames[index].from);
      headers.remove(renames[index].to);
      break;
    }
  }
  for (let index = 0; index < renames.length; index++) {
    before.rewind();
    while (before.next()) {
      if (before.isNamed(renames[index].from)) headers.add(renames[index].to, before.value());
    }
  }
}

// ---- reading the configuration ----

let problem = "";

function refuse(reason: string): void {
  if (problem.length == 0) problem = reason;
}

function readConfiguration(source: ArrayBuffer | null): Root | null {
  const root = new Root();
  if (source === null || source.byteLength == 0) return root;
  const config = parse(source);
  if (config === null) {
    refuse("not JSON: " + parseError);
    return null;
  }
  if (!isObject(config, "the configuration")) return null;
  for (let index = 0; index < config.keys.length; index++) {
    const key = text(config.keys[index]);
    if (key == "request") root.request = readRules(config.items[index], key, null);
    else if (key == "response") root.response = readRules(config.items[index], key, root.kept);
    else refuse("unknown key '" + key + "'; known are request and response");
  }
  return problem.length > 0 ? null : root;
}

/** `kept` is null for the request; for the response it collects the request headers that templates use. */
function readRules(config: Value, path: string, kept: ArrayBuffer[] | null): Rules {
  const rules = new Rules();
  if (!isObject(config, path)) return rules;
  for (let index = 0; index < config.keys.length; index++) {
    const key = text(config.keys[index]);
    const value = config.items[index];
    const where = path + "." + key;
    if (key == "set") rules.sets = readEdits(value, where, kept, true);
    else if (key == "add") rules.adds = readEdits(value, where, kept, false);
    else if (key == "remove") rules.removes = readRemoves(value, where);
    else if (key == "rename") rules.renames = readRenames(value, where);
    else refuse(path + ": unknown key '" + key + "'; known are set, add, remove and rename");
  }
  return rules;
}

function readEdits(config: Value, path: string, kept: ArrayBuffer[] | null, pseudo: bool): Edit[] {
  const edits: Edit[] = [];
  if (!isObject(config, path)) return edits;
  for (let index = 0; index < config.keys.length; index++) {
    const where = path + "." + text(config.keys[index]);
    const name = readTarget(config.keys[index], where, kept === null, pseudo);
    const value = config.items[index];
    if (value.kind != Kind.String) refuse(where + ": must be a string (put quotes around it)");
    else edits.push(new Edit(name, readTemplate(value.bytes, where, kept)));
  }
  return edits;
}

function readRemoves(config: Value, path: string): ArrayBuffer[] {
  const names: ArrayBuffer[] = [];
  if (config.kind != Kind.Array) {
    refuse(path + ": must be a list of header names");
    return names;
  }
  for (let index = 0; index < config.items.length; index++) {
    const item = config.items[index];
    if (item.kind != Kind.String) refuse(path + ": must be a list of header names");
    else names.push(readName(item.bytes, path));
  }
  return names;
}

function readRenames(config: Value, path: string): Rename[] {
  const renames: Rename[] = [];
  if (!isObject(config, path)) return renames;
  for (let index = 0; index < config.keys.length; index++) {
    const where = path + "." + text(config.keys[index]);
    const value = config.items[index];
    if (value.kind != Kind.String) refuse(where + ": must be the new name");
    else renames.push(new Rename(readName(config.keys[index], where), readTarget(value.bytes, where, false, false)));
  }
  return renames;
}

/** `a%REQ(name)%b` as parts. `%%` is a percent sign. */
function readTemplate(source: ArrayBuffer, path: string, kept: ArrayBuffer[] | null): Part[] {
  const parts: Part[] = [];
  const literal = new Array<u8>();
  const view = Uint8Array.wrap(source);
  let position = 0;
  while (position < view.length) {
    const byte = view[position++];
    if (byte < 0x20 || byte == 0x7f) {
      refuse(path + ": a value holds no control characters");
      return parts;
    }
    if (byte != PERCENT) {
      literal.push(byte);
      continue;
    }
    let end = position;
    while (end < view.length && view[end] != PERCENT) end++;
    if (end == view.length) {
      refuse(path + ": a '%' without its end; write '%%' for a percent sign");
      return parts;
    }
    if (end == position) {
      literal.push(PERCENT);
    } else {
      const part = readVariable(text(source.slice(position, end)), path, kept);
      if (part === null) return parts;
      if (literal.length > 0) parts.push(literalPart(literal));
      literal.length = 0;
      parts.push(part);
    }
    position = end + 1;
  }
  if (literal.length > 0 || parts.length == 0) parts.push(literalPart(literal));
  return parts;
}

const PERCENT: u8 = 0x25;

function literalPart(source: Array<u8>): Part {
  const copy = new Uint8Array(source.length);
  for (let index = 0; index < source.length; index++) copy[index] = source[index];
  return new Part(Source.Literal, copy.buffer);
}

/** What stands between two percent signs: `REQ(name)`, or `RESP(name)` in a response. */
function readVariable(variable: string, path: string, kept: ArrayBuffer[] | null): Part | null {
  const isRequest = variable.startsWith("REQ(");
  const isResponse = variable.startsWith("RESP(");
  if (!variable.endsWith(")") || !(isRequest || isResponse)) {
    refuse(path + ": unknown variable '%" + variable + "%'; known are %REQ(name)% and %RESP(name)%");
    return null;
  }
  if (isResponse && kept === null) {
    refuse(path + ": %RESP(name)% is known in the response only");
    return null;
  }
  const name = lower(bytes(variable.slice(isRequest ? 4 : 5, variable.length - 1)));
  if (!isToken(name, true)) {
    refuse(path + ": '%" + variable + "%' does not name a header");
    return null;
  }
  const part = new Part(isRequest ? Source.Request : Source.Response, name);
  if (isRequest && kept !== null) part.keptAt = indexOrPush(kept, name);
  return part;
}

function indexOrPush(names: ArrayBuffer[], name: ArrayBuffer): i32 {
  for (let index = 0; index < names.length; index++) {
    if (equal(names[index], name)) return index;
  }
  return names.push(name) - 1;
}

/** A name to write to, in lower case. */
function readTarget(source: ArrayBuffer, path: string, request: bool, pseudo: bool): ArrayBuffer {
  const name = text(lower(source));
  if (name == "host") {
    refuse(path + ": the host is the pseudo-header ':authority'; set that");
  } else if (FRAMING.includes(name)) {
    refuse(path + ": this header belongs to the connection, the gateway writes it");
  } else if (pseudo && name.startsWith(":")) {
    const known = request ? name == ":path" || name == ":authority" || name == ":method" : name == ":status";
    if (!known) refuse(path + ": not a pseudo-header that can be set here");
    return bytes(name);
  }
  return readName(source, path);
}

/** The name of an ordinary header, in lower case. */
function readName(source: ArrayBuffer, path: string): ArrayBuffer {
  const name = lower(source);
  if (!isToken(name, false)) refuse(path + ": '" + text(source) + "' is not the name of a header");
  return name;
}

function isObject(value: Value, path: string): bool {
  if (value.kind == Kind.Object) return true;
  refuse(path + ": must be a mapping");
  return false;
}
