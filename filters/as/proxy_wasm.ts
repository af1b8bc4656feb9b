/**
 * proxy-wasm ABI 0.2.1 for AssemblyScript: what a filter needs to talk to its host, and nothing else.
 *
 * A filter is one .ts file. It imports from here, exports the callbacks it wants under their ABI names, and
 * passes on the two exports every module must have:
 *
 *     import { Action, bytes, collectGarbage, requestHeaders } from "../as/proxy_wasm";
 *     export { proxy_abi_version_0_2_1, proxy_on_memory_allocate } from "../as/proxy_wasm";
 *
 *     const NAME = bytes("x-hello");
 *     const VALUE = bytes("world");
 *
 *     export function proxy_on_request_headers(context: u32, count: u32, endOfStream: u32): u32 {
 *       requestHeaders.set(NAME, VALUE);
 *       collectGarbage();
 *       return Action.Continue;
 *     }
 *
 * A callback that is not exported counts as "continue" (and `proxy_on_vm_start`, `proxy_on_configure` as "accepted").
 *
 * **Text is bytes.** HTTP field values are bytes, often not valid UTF-8, while an AssemblyScript string is UTF-16.
 * So everything that crosses the border is an `ArrayBuffer`; `bytes()` and `text()` convert where a filter has a
 * literal or wants to log. Make the names you use once, at the top level, not in a callback.
 *
 * **Memory.** Build with `--runtime minimal`: objects are collected only when `collectGarbage()` is called, and it may
 * only be called where no local variable holds an object that is still needed, which means: at the end of an exported
 * callback. Call it in every callback that makes objects (whatever a map or a buffer returns is one). A collection
 * walks everything that is alive, so keep numbers per stream, or raw memory from `heap.alloc`, rather than objects.
 */

/** What a callback answers. Pausing needs a later `proxy_continue_stream`, which this file leaves out on purpose. */
export enum Action {
  Continue = 0,
  Pause = 1,
}

export enum LogLevel {
  Trace = 0,
  Debug = 1,
  Info = 2,
  Warn = 3,
  Error = 4,
  Critical = 5,
}

const STATUS_OK: u32 = 0;
const BUFFER_PLUGIN_CONFIGURATION: u32 = 7;

// prettier-ignore
namespace host {
  @external("env", "proxy_log")
  export declare function log(level: u32, message: usize, length: usize): u32;
  @external("env", "proxy_get_buffer_bytes")
  export declare function getBuffer(buffer: u32, start: u32, max: u32, data: usize, length: usize): u32;
  @external("env", "proxy_get_header_map_value")
  export declare function getHeader(map: u32, key: usize, keyLength: usize, value: usize, valueLength: usize): u32;
  @external("env", "proxy_get_header_map_pairs")
  export declare function getHeaders(map: u32, data: usize, length: usize): u32;
  @external("env", "proxy_add_header_map_value")
  export declare function addHeader(map: u32, key: usize, keyLength: usize, value: usize, valueLength: usize): u32;
  @external("env", "proxy_replace_header_map_value")
  export declare function setHeader(map: u32, key: usize, keyLength: usize, value: usize, valueLength: usize): u32;
  @external("env", "proxy_remove_header_map_value")
  export declare function removeHeader(map: u32, key: usize, keyLength: usize): u32;
}

/** Marks the module as written for ABI 0.2.1. Hosts look for the name and never call it. */
export function proxy_abi_version_0_2_1(): void {}

/**
 * Gives the host room for something it hands to the filter. What it hands out is an ArrayBuffer, so `received` can
 * use the bytes as they lie, without a copy. Nothing refers to it while the host writes, which is safe because the
 * minimal runtime collects only when asked to.
 */
export function proxy_on_memory_allocate(size: usize): usize {
  return __new(size, idof<ArrayBuffer>());
}

// Where the host writes the address and the length of what it hands out.
const out = memory.data(8);

function received(): ArrayBuffer {
  const address = load<usize>(out);
  const length = load<u32>(out, 4);
  if (address == 0 || length == 0) return new ArrayBuffer(0);
  const buffer = changetype<ArrayBuffer>(address);
  // The ABI wants an allocation of the exact size; a host that rounds up still gets a correct answer.
  return <u32>buffer.byteLength == length ? buffer : buffer.slice(0, length);
}

/** The UTF-8 bytes of a string. */
export function bytes(string: string): ArrayBuffer {
  return String.UTF8.encode(string);
}

/** Bytes as a string, for messages: what is not valid UTF-8 becomes a replacement character. */
export function text(buffer: ArrayBuffer): string {
  return String.UTF8.decode(buffer);
}

/** Byte-wise equality. */
export function equal(a: ArrayBuffer, b: ArrayBuffer): bool {
  const length = a.byteLength;
  return length == b.byteLength && memory.compare(changetype<usize>(a), changetype<usize>(b), length) == 0;
}

/** Writes one line to the host's log. */
export function log(level: LogLevel, message: string): void {
  const line = bytes(message);
  host.log(level, changetype<usize>(line), line.byteLength);
}

/** The plugin's configuration, to be read inside `proxy_on_configure`; null if the host has none to give. */
export function pluginConfiguration(): ArrayBuffer | null {
  if (host.getBuffer(BUFFER_PLUGIN_CONFIGURATION, 0, u32.MAX_VALUE, out, out + 4) != STATUS_OK) return null;
  return received();
}

/**
 * A snapshot of a header map: every field in order, repeated names as separate entries. It is read with a cursor, so
 * that looking at a field makes no object:
 *
 *     const fields = requestHeaders.all();
 *     while (fields.next()) if (fields.isNamed(NAME)) log(LogLevel.Info, text(fields.value()));
 */
export class HeaderFields {
  private index: i32 = -1;
  private nameAt: i32 = 0;
  private valueAt: i32 = 0;

  /** The ABI's block: u32 count; count times (u32 name length, u32 value length); name, NUL, value, NUL of each. */
  constructor(private block: ArrayBuffer) {}

  private u32At(offset: i32): i32 {
    return load<i32>(changetype<usize>(this.block) + offset);
  }

  private get count(): i32 {
    return this.block.byteLength < 4 ? 0 : this.u32At(0);
  }

  private get nameLength(): i32 {
    return this.u32At(4 + 8 * this.index);
  }

  private get valueLength(): i32 {
    return this.u32At(8 + 8 * this.index);
  }

  /** Goes to the next field, at first to the first one; false after the last. */
  next(): bool {
    const end = this.index < 0 ? 4 + 8 * this.count : this.valueAt + this.valueLength + 1;
    if (++this.index >= this.count) return false;
    this.nameAt = end;
    this.valueAt = end + this.nameLength + 1;
    return true;
  }

  /** Goes back to before the first field. */
  rewind(): void {
    this.index = -1;
  }

  /** Whether this field has that name, which must be in lower case, as those of the map are. */
  isNamed(name: ArrayBuffer): bool {
    const length = this.nameLength;
    if (length != name.byteLength) return false;
    return memory.compare(changetype<usize>(this.block) + this.nameAt, changetype<usize>(name), length) == 0;
  }

  /** The name of this field. */
  name(): ArrayBuffer {
    return this.block.slice(this.nameAt, this.nameAt + this.nameLength);
  }

  /** The value of this field. */
  value(): ArrayBuffer {
    return this.block.slice(this.valueAt, this.valueAt + this.valueLength);
  }
}

/**
 * The headers of a request or a response. A map can be read and edited in its own callback only: in Envoy the request
 * headers are out of reach once the response has begun. Pseudo-headers (`:path`, `:status`, ...) are ordinary keys.
 */
export class HeaderMap {
  constructor(private map: u32) {}

  /** The value of the first field of that name; null if there is none. */
  get(name: ArrayBuffer): ArrayBuffer | null {
    const status = host.getHeader(this.map, changetype<usize>(name), name.byteLength, out, out + 4);
    return status == STATUS_OK ? received() : null;
  }

  /** Every field of the map as it is now; later edits do not change the snapshot. */
  all(): HeaderFields {
    const status = host.getHeaders(this.map, out, out + 4);
    return new HeaderFields(status == STATUS_OK ? received() : new ArrayBuffer(0));
  }

  /** Appends a field and leaves those of the same name alone. */
  add(name: ArrayBuffer, value: ArrayBuffer): void {
    host.addHeader(this.map, changetype<usize>(name), name.byteLength, changetype<usize>(value), value.byteLength);
  }

  /** Makes this the only field of that name. */
  set(name: ArrayBuffer, value: ArrayBuffer): void {
    host.setHeader(this.map, changetype<usize>(name), name.byteLength, changetype<usize>(value), value.byteLength);
  }

  /** Removes every field of that name, if any. */
  remove(name: ArrayBuffer): void {
    host.removeHeader(this.map, changetype<usize>(name), name.byteLength);
  }
}

export const requestHeaders = new HeaderMap(0);
export const responseHeaders = new HeaderMap(2);

// The cost of a collection is shared by this many callbacks: garbage stays bounded, and the price per stream low.
const CALLBACKS_PER_COLLECTION: u32 = 32;
let callbacksSinceCollection: u32 = 0;

/** To be called at the end of callbacks that make objects; frees the unreachable ones, every 32nd time. */
export function collectGarbage(): void {
  if (++callbacksSinceCollection < CALLBACKS_PER_COLLECTION) return;
  callbacksSinceCollection = 0;
  __collect();
}

/** What `assert`, `throw` and out-of-range accesses come to (`--use abort=as/proxy_wasm/abort`): a log line, a trap. */
export function abort(message: string | null, file: string | null, line: u32, column: u32): void {
  log(LogLevel.Critical, (message ? message : "abort") + " at " + (file ? file : "?") + ":" + line.toString());
  unreachable();
}
