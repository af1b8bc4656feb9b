/**
 * A strict JSON reader (RFC 8259) for filter configurations. It works on bytes, as proxy_wasm.ts does: strings come
 * out as UTF-8 bytes, so that a value can go into a header as it stands.
 *
 * AssemblyScript has no exceptions: `parse` returns null for a text that is not JSON, and `parseError` says why.
 */
import { bytes } from "./proxy_wasm";

export enum Kind {
  Null,
  Boolean,
  Number,
  String,
  Array,
  Object,
}

export class Value {
  /** Of a string: its text. Of a number: its digits as they stand. */
  bytes: ArrayBuffer = EMPTY;
  /** Of a boolean. */
  truth: bool = false;
  /** Of an array: its items. Of an object: its values, in the order of `keys`. */
  items: Value[] = [];
  /** Of an object: its keys in the order of the text, without repeats. */
  keys: ArrayBuffer[] = [];

  constructor(public kind: Kind) {}
}

const EMPTY = new ArrayBuffer(0);
const NESTING_LIMIT = 32;

/** Why the last `parse` returned null. */
export let parseError: string = "";

export function parse(source: ArrayBuffer): Value | null {
  parseError = "";
  const reader = new Reader(Uint8Array.wrap(source));
  const value = reader.value(0);
  if (value !== null) {
    reader.skipSpace();
    if (reader.position < reader.source.length) reader.fail("text after the end of the value");
  }
  return parseError.length > 0 ? null : value;
}

class Reader {
  position: i32 = 0;

  constructor(public source: Uint8Array) {}

  fail(problem: string): void {
    if (parseError.length == 0) parseError = problem + " at byte " + this.position.toString();
  }

  /** The byte at the position, or -1 at the end. */
  peek(): i32 {
    return this.position < this.source.length ? this.source[this.position] : -1;
  }

  skipSpace(): void {
    let byte = this.peek();
    while (byte == 0x20 || byte == 0x0a || byte == 0x0d || byte == 0x09) {
      this.position++;
      byte = this.peek();
    }
  }

  take(byte: i32): bool {
    if (this.peek() != byte) return false;
    this.position++;
    return true;
  }

  value(depth: i32): Value | null {
    this.skipSpace();
    if (depth > NESTING_LIMIT) {
      this.fail("nested too deep");
      return null;
    }
    const byte = this.peek();
    if (byte == 0x7b) return this.object(depth);
    if (byte == 0x5b) return this.array(depth);
    if (byte == 0x22) {
      const string = this.string();
      if (string === null) return null;
      const value = new Value(Kind.String);
      value.bytes = string;
      return value;
    }
    if (byte == 0x2d || isDigit(byte)) return this.number();
    if (this.word("true")) {
      const value = new Value(Kind.Boolean);
      value.truth = true;
      return value;
    }
    if (this.word("false")) return new Value(Kind.Boolean);
    if (this.word("null")) return new Value(Kind.Null);
    this.fail(byte < 0 ? "the text ends too early" : "not a JSON value");
    return null;
  }

  word(word: string): bool {
    if (this.position + word.length > this.source.length) return false;
    for (let index = 0; index < word.length; index++) {
      if (this.source[this.position + index] != word.charCodeAt(index)) return false;
    }
    this.position += word.length;
    return true;
  }

  object(depth: i32): Value | null {
    const object = new Value(Kind.Object);
    this.position++;
    this.skipSpace();
    if (this.take(0x7d)) return object;
    while (true) {
      this.skipSpace();
      const key = this.string();
      if (key === null) return null;
      if (find(object, key) !== null) {
        this.fail("a key appears twice");
        return null;
      }
      this.skipSpace();
      if (!this.take(0x3a)) {
        this.fail("':' expected");
        return null;
      }
      const value = this.value(depth + 1);
      if (value === null) return null;
      object.keys.push(key);
      object.items.push(value);
      this.skipSpace();
      if (this.take(0x7d)) return object;
      if (!this.take(0x2c)) {
        this.fail("',' or '}' expected");
        return null;
      }
    }
  }

  array(depth: i32): Value | null {
    const array = new Value(Kind.Array);
    this.position++;
    this.skipSpace();
    if (this.take(0x5d)) return array;
    while (true) {
      const value = this.value(depth + 1);
      if (value === null) return null;
      array.items.push(value);
      this.skipSpace();
      if (this.take(0x5d)) return array;
      if (!this.take(0x2c)) {
        this.fail("',' or ']' expected");
        return null;
      }
    }
  }

  number(): Value | null {
    const start = this.position;
    this.take(0x2d);
    if (!this.take(0x30) && !this.digits()) return null;
    if (this.take(0x2e) && !this.digits()) return null;
    if (this.take(0x65) || this.take(0x45)) {
      if (!this.take(0x2b)) this.take(0x2d);
      if (!this.digits()) return null;
    }
    const value = new Value(Kind.Number);
    value.bytes = this.source.slice(start, this.position).buffer;
    return value;
  }

  digits(): bool {
    const start = this.position;
    while (isDigit(this.peek())) this.position++;
    if (this.position == start) this.fail("a digit expected");
    return this.position > start;
  }

  string(): ArrayBuffer | null {
    if (!this.take(0x22)) {
      this.fail("'\"' expected");
      return null;
    }
    const result = new Array<u8>();
    while (true) {
      const byte = this.peek();
      if (byte < 0x20) {
        this.fail(byte < 0 ? "the text ends inside a string" : "a control character inside a string");
        return null;
      }
      this.position++;
      if (byte == 0x22) return toBuffer(result);
      if (byte != 0x5c) {
        result.push(<u8>byte);
      } else if (!this.escape(result)) {
        return null;
      }
    }
  }

  escape(result: Array<u8>): bool {
    const byte = this.peek();
    this.position++;
    switch (byte) {
      case 0x22:
      case 0x5c:
      case 0x2f:
        result.push(<u8>byte);
        return true;
      case 0x62:
        result.push(0x08);
        return true;
      case 0x66:
        result.push(0x0c);
        return true;
      case 0x6e:
        result.push(0x0a);
        return true;
      case 0x72:
        result.push(0x0d);
        return true;
      case 0x74:
        result.push(0x09);
        return true;
      case 0x75:
        return this.unicodeEscape(result);
      default:
        this.fail("an unknown escape");
        return false;
    }
  }

  /** The rest of `\uXXXX`; two of them for a code point beyond the basic plane. */
  unicodeEscape(result: Array<u8>): bool {
    let code = this.hex4();
    if (code >= 0xd800 && code < 0xdc00 && this.take(0x5c) && this.take(0x75)) {
      const low = this.hex4();
      code = low >= 0xdc00 && low < 0xe000 ? 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00) : -1;
    }
    if (code < 0 || (code >= 0xd800 && code < 0xe000)) {
      this.fail("a malformed \\u escape");
      return false;
    }
    const encoded = Uint8Array.wrap(bytes(String.fromCodePoint(code)));
    for (let index = 0; index < encoded.length; index++) result.push(encoded[index]);
    return true;
  }

  hex4(): i32 {
    let code = 0;
    for (let count = 0; count < 4; count++) {
      const byte = this.peek();
      const lower = byte | 0x20;
      if (isDigit(byte)) code = code * 16 + byte - 0x30;
      else if (lower >= 0x61 && lower <= 0x66) code = code * 16 + lower - 0x61 + 10;
      else return -1;
      this.position++;
    }
    return code;
  }
}

function isDigit(byte: i32): bool {
  return byte >= 0x30 && byte <= 0x39;
}

function toBuffer(source: Array<u8>): ArrayBuffer {
  const result = new Uint8Array(source.length);
  for (let index = 0; index < source.length; index++) result[index] = source[index];
  return result.buffer;
}

/** The value of a key of an object; null if it has none. */
export function find(object: Value, key: ArrayBuffer): Value | null {
  for (let index = 0; index < object.keys.length; index++) {
    const candidate = object.keys[index];
    if (
      candidate.byteLength == key.byteLength &&
      memory.compare(changetype<usize>(candidate), changetype<usize>(key), key.byteLength) == 0
    ) {
      return object.items[index];
    }
  }
  return null;
}
