/**
 * ab-route: divides clients among variants, keeps each client with its variant, and writes the variant to a header that
 * routes match on.
 *
 * A filter cannot name a cluster in proxy-wasm: the gateway chooses the route after the chain, by the headers as they are
 * then. So the choice is a header, in Envoy as in Penstock.
 */
import {
  Action,
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
import { FRAMING, addToList, cookie, isToken, lower, removeSpellings, startsWith } from "../as/fields";
import { Kind, Value, parse, parseError } from "../as/json";

export { proxy_abi_version_0_2_1, proxy_on_memory_allocate } from "../as/proxy_wasm";

@external("wasi_snapshot_preview1", "random_get")
declare function randomGet(buffer: usize, length: usize): u32;

const MOST_VARIANTS = 16;
const MOST_WEIGHT = 1000000;
const PATH = bytes(":path");
const SET_COOKIE = bytes("set-cookie");
const VARY = bytes("vary");
const COOKIE = bytes("cookie");

class Variant {
  /** The set-cookie that keeps a client with it. */
  setCookie: ArrayBuffer = new ArrayBuffer(0);

  constructor(
    public name: ArrayBuffer,
    public weight: u32,
    public value: ArrayBuffer,
  ) {}
}

class Root {
  experiment: string = "";
  variants: Variant[] = [];
  total: u32 = 0;
  header: ArrayBuffer = bytes("x-ab-variant");
  prefixes: ArrayBuffer[] = [];
  /** Empty: by cookie. */
  by: ArrayBuffer = new ArrayBuffer(0);
  force: ArrayBuffer = new ArrayBuffer(0);
  tell: ArrayBuffer = new ArrayBuffer(0);
  cookie: ArrayBuffer = new ArrayBuffer(0);
  seed: u32 = 0;
}

const roots = new Map<u32, Root>();
const rootOfStream = new Map<u32, u32>();
/** Of a stream that is in the experiment: the variant's index times 2, plus 1 if the client is to get the cookie. */
const choiceOfStream = new Map<u32, u32>();

// ---- callbacks ----

export function proxy_on_context_create(context: u32, root: u32): void {
  if (root != 0) rootOfStream.set(context, root);
}

export function proxy_on_configure(root: u32, size: u32): u32 {
  problem = "";
  const configured = readConfiguration(pluginConfiguration());
  if (configured === null) {
    log(LogLevel.Error, "ab-route: configuration refused: " + problem);
    return 0;
  }
  roots.set(root, configured);
  return 1;
}

export function proxy_on_request_headers(context: u32, count: u32, endOfStream: u32): u32 {
  const root = rootOf(context);
  if (root === null) return Action.Continue;
  // Which variant it gets is not for the client to say.
  removeSpellings(requestHeaders, root.header);
  const forced = root.force.byteLength > 0 ? requestHeaders.get(root.force) : null;
  if (root.force.byteLength > 0) removeSpellings(requestHeaders, root.force);
  if (takesPath(root)) {
    const choice = choose(root, forced);
    choiceOfStream.set(context, choice);
    requestHeaders.set(root.header, root.variants[choice >> 1].value);
  }
  collectGarbage();
  return Action.Continue;
}

export function proxy_on_response_headers(context: u32, count: u32, endOfStream: u32): u32 {
  const root = rootOf(context);
  if (root === null || !choiceOfStream.has(context)) return Action.Continue;
  const choice = choiceOfStream.get(context);
  const variant = root.variants[choice >> 1];
  if (root.tell.byteLength > 0) responseHeaders.set(root.tell, variant.name);
  // What one variant answers must not be served to the clients of another.
  addToList(responseHeaders, VARY, root.by.byteLength > 0 ? root.by : COOKIE);
  if ((choice & 1) == 1) responseHeaders.add(SET_COOKIE, variant.setCookie);
  collectGarbage();
  return Action.Continue;
}

export function proxy_on_delete(context: u32): void {
  choiceOfStream.delete(context);
  if (!rootOfStream.delete(context)) roots.delete(context);
}

function rootOf(context: u32): Root | null {
  if (!rootOfStream.has(context)) return null;
  const root = rootOfStream.get(context);
  return roots.has(root) ? roots.get(root) : null;
}

// ---- choosing ----

function takesPath(root: Root): bool {
  if (root.prefixes.length == 0) return true;
  const path = requestHeaders.get(PATH);
  if (path === null) return false;
  for (let index = 0; index < root.prefixes.length; index++) if (startsWith(path, root.prefixes[index])) return true;
  return false;
}

function choose(root: Root, forced: ArrayBuffer | null): u32 {
  if (forced !== null) {
    const index = indexOf(root, forced);
    if (index >= 0) return <u32>index << 1;
  }
  if (root.by.byteLength > 0) {
    const key = requestHeaders.get(root.by);
    return key === null || key.byteLength == 0 ? 0 : pick(root, hash(root.seed, key)) << 1;
  }
  const kept = cookie(requestHeaders, root.cookie);
  if (kept !== null) {
    const index = indexOf(root, kept);
    // A variant that takes nobody any more gives its clients back.
    if (index >= 0 && root.variants[index].weight > 0) return <u32>index << 1;
  }
  return (pick(root, random()) << 1) | 1;
}

function indexOf(root: Root, name: ArrayBuffer): i32 {
  for (let index = 0; index < root.variants.length; index++) {
    if (equal(root.variants[index].name, name)) return index;
  }
  return -1;
}

/** The variant that a number of 32 bits, all equally likely, falls to. */
function pick(root: Root, number: u32): u32 {
  let left = <u32>((<u64>number * root.total) >> 32);
  for (let index = 0; index < root.variants.length; index++) {
    const weight = root.variants[index].weight;
    if (left < weight) return index;
    left -= weight;
  }
  return 0;
}

const word = memory.data(4);

function random(): u32 {
  if (randomGet(word, 4) != 0) unreachable();
  return load<u32>(word);
}

/** FNV-1a, and the last steps of MurmurHash3, which spread it over all bits. Not against those who choose their key. */
function hash(seed: u32, key: ArrayBuffer): u32 {
  let value = seed;
  const end = changetype<usize>(key) + key.byteLength;
  for (let at = changetype<usize>(key); at < end; at++) value = (value ^ load<u8>(at)) * 0x01000193;
  value = (value ^ (value >> 16)) * 0x85ebca6b;
  value = (value ^ (value >> 13)) * 0xc2b2ae35;
  return value ^ (value >> 16);
}

// ---- reading the configuration ----

let problem = "";

function refuse(reason: string): void {
  if (problem.length == 0) problem = reason;
}

class CookieSettings {
  name: string = "";
  maxAge: u32 = 2592000;
  path: string = "/";
  domain: string = "";
  sameSite: string = "Lax";
  secure: bool = true;
}

function readConfiguration(source: ArrayBuffer | null): Root | null {
  if (source === null || source.byteLength == 0) {
    refuse("there is none");
    return null;
  }
  const config = parse(source);
  if (config === null) {
    refuse("not JSON: " + parseError);
    return null;
  }
  const root = new Root();
  const kept = new CookieSettings();
  let hasCookie = false;
  if (isObject(config, "the configuration")) {
    for (let index = 0; index < config.keys.length; index++) {
      const key = text(config.keys[index]);
      const value = config.items[index];
      if (key == "experiment") root.experiment = readName(value, key);
      else if (key == "variants") readVariants(root, value);
      else if (key == "header") root.header = readHeader(value, key);
      else if (key == "prefixes") root.prefixes = readPrefixes(value);
      else if (key == "by") root.by = readHeader(value, key);
      else if (key == "force") root.force = readHeader(value, key);
      else if (key == "tell") root.tell = readHeader(value, key);
      else if (key == "cookie") {
        hasCookie = true;
        readCookie(kept, value);
      } else refuse("the configuration: unknown key '" + key + "'");
    }
  }
  if (root.experiment.length == 0) refuse("experiment: is missing");
  if (root.variants.length == 0) refuse("variants: is missing");
  if (hasCookie && root.by.byteLength > 0) refuse("cookie: there is none with by; keep one");
  if (root.force.byteLength > 0 && equal(root.force, root.header)) refuse("force: is the same as header");
  if (problem.length > 0) return null;
  root.seed = hash(0x811c9dc5, bytes(root.experiment));
  const name = kept.name.length > 0 ? kept.name : "ab-" + root.experiment;
  root.cookie = bytes(name);
  for (let index = 0; index < root.variants.length; index++) {
    const variant = root.variants[index];
    let line = name + "=" + text(variant.name) + "; Path=" + kept.path + "; Max-Age=" + kept.maxAge.toString();
    if (kept.domain.length > 0) line += "; Domain=" + kept.domain;
    if (kept.secure) line += "; Secure";
    variant.setCookie = bytes(line + "; HttpOnly; SameSite=" + kept.sameSite);
  }
  return root;
}

function readVariants(root: Root, config: Value): void {
  if (config.kind != Kind.Array || config.items.length < 2 || config.items.length > MOST_VARIANTS) {
    refuse("variants: must be a list of 2 to " + MOST_VARIANTS.toString());
    return;
  }
  for (let index = 0; index < config.items.length; index++) {
    const path = "variants[" + index.toString() + "]";
    const item = config.items[index];
    if (!isObject(item, path)) return;
    let name = "";
    let weight: i32 = -1;
    let value: ArrayBuffer | null = null;
    for (let at = 0; at < item.keys.length; at++) {
      const key = text(item.keys[at]);
      if (key == "name") name = readName(item.items[at], path + ".name");
      else if (key == "weight") weight = readInteger(item.items[at], path + ".weight", MOST_WEIGHT);
      else if (key == "value") value = bytes(readPlain(item.items[at], path + ".value"));
      else refuse(path + ": unknown key '" + key + "'");
    }
    if (name.length == 0) refuse(path + ".name: is missing");
    if (weight < 0) refuse(path + ".weight: is missing");
    if (indexOf(root, bytes(name)) >= 0) refuse(path + ".name: '" + name + "' appears twice");
    root.variants.push(new Variant(bytes(name), max(weight, 0), value === null ? bytes(name) : value));
    root.total += max(weight, 0);
  }
  if (root.total == 0) refuse("variants: every weight is 0, nobody would get one");
}

function readCookie(kept: CookieSettings, config: Value): void {
  if (!isObject(config, "cookie")) return;
  for (let index = 0; index < config.keys.length; index++) {
    const key = text(config.keys[index]);
    const value = config.items[index];
    const path = "cookie." + key;
    if (key == "name") kept.name = readName(value, path);
    else if (key == "max_age") kept.maxAge = readInteger(value, path, 34560000);
    else if (key == "path") {
      kept.path = readPlain(value, path);
      if (!kept.path.startsWith("/")) refuse(path + ": must begin with '/'");
    } else if (key == "domain") kept.domain = readPlain(value, path);
    else if (key == "secure") {
      if (value.kind != Kind.Boolean) refuse(path + ": must be true or false");
      kept.secure = value.truth;
    } else if (key == "same_site") {
      const site = value.kind == Kind.String ? text(value.bytes) : "";
      if (site == "lax") kept.sameSite = "Lax";
      else if (site == "strict") kept.sameSite = "Strict";
      else if (site == "none") kept.sameSite = "None";
      else refuse(path + ": must be one of lax, strict, none");
    } else refuse("cookie: unknown key '" + key + "'");
  }
  if (kept.sameSite == "None" && !kept.secure) refuse("cookie.same_site: none needs secure, or browsers drop the cookie");
}

function readPrefixes(config: Value): ArrayBuffer[] {
  const prefixes: ArrayBuffer[] = [];
  if (config.kind != Kind.Array || config.items.length == 0) refuse("prefixes: must be a list that is not empty");
  for (let index = 0; index < config.items.length; index++) {
    const path = "prefixes[" + index.toString() + "]";
    const prefix = readPlain(config.items[index], path);
    if (!prefix.startsWith("/")) refuse(path + ": must begin with '/'");
    prefixes.push(bytes(prefix));
  }
  return prefixes;
}

/** Letters, digits, `.`, `_` and `-`: what stands in a cookie, a header and a metric as it is. */
function readName(config: Value, path: string): string {
  const name = config.kind == Kind.String ? text(config.bytes) : "";
  let good = name.length > 0 && name.length <= 64;
  for (let index = 0; index < name.length; index++) {
    const code = name.charCodeAt(index);
    const letter = (code | 0x20) >= 0x61 && (code | 0x20) <= 0x7a;
    if (!letter && !(code >= 0x30 && code <= 0x39) && code != 0x2d && code != 0x2e && code != 0x5f) good = false;
  }
  if (!good) refuse(path + ": must be 1 to 64 letters, digits, '.', '_' and '-'");
  return name;
}

/** Printable ASCII without `;`. */
function readPlain(config: Value, path: string): string {
  const plain = config.kind == Kind.String ? text(config.bytes) : "";
  let good = plain.length > 0;
  for (let index = 0; index < plain.length; index++) {
    const code = plain.charCodeAt(index);
    if (code <= 0x20 || code >= 0x7f || code == 0x3b) good = false;
  }
  if (!good) refuse(path + ": must be text without spaces, ';' and control characters");
  return plain;
}

function readHeader(config: Value, path: string): ArrayBuffer {
  const name = config.kind == Kind.String ? lower(config.bytes) : new ArrayBuffer(0);
  if (!isToken(name, false)) refuse(path + ": must be the name of a header");
  else if (text(name) == "host" || FRAMING.includes(text(name))) refuse(path + ": the gateway writes this header");
  return name;
}

function readInteger(config: Value, path: string, most: i32): i32 {
  const digits = config.kind == Kind.Number ? text(config.bytes) : "";
  let value = 0;
  let good = digits.length > 0 && digits.length <= 8;
  for (let index = 0; good && index < digits.length; index++) {
    const digit = digits.charCodeAt(index) - 0x30;
    good = digit >= 0 && digit <= 9;
    value = value * 10 + digit;
  }
  if (!good || value > most) refuse(path + ": must be a whole number from 0 to " + most.toString());
  return value;
}

function isObject(value: Value, path: string): bool {
  if (value.kind == Kind.Object) return true;
  refuse(path + ": must be a mapping");
  return false;
}
