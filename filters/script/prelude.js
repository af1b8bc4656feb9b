// What a script finds around it, and what calls its handlers. It is evaluated once for each configuration, with `host`, the
// functions of script.c, and answers with the functions that script.c calls. The numbers are those of proxy-wasm 0.2.1.
(function (host) {
  'use strict'

  const REQUEST = 0, RESPONSE = 1 // bodies, and sides of a stream
  const HEADS = [0, 2], CALL_HEAD = 6 // maps
  const CALL_BODY = 4
  const CONTINUE = 0, PAUSE = 1
  const BEFORE_TRAILERS = -1 // the size of a body that they end, all of which has been counted
  const DEBUG = 1, INFO = 2, WARN = 3, ERROR = 4
  const HANDLERS = ['onRequest', 'onRequestBody', 'onResponse', 'onResponseBody', 'onLog']
  const TOO_LARGE = [[413, '413 Content Too Large\n'], [502, '502 Bad Gateway\n']]
  const DEEPEST_JSON = 200
  const FAILED = '500 Internal Server Error\n'

  const streams = new Map() // by context id
  const calls = new Map() // by token: {stream, resolve, reject}
  const counters = new Map() // ids by name
  let current = null // the stream whose callback runs
  let handlers = {}
  let options = {}

  // Text from outside must not become code, whatever the script does with it.
  const deny = function () { throw new EvalError('no code can be made from text here') }
  for (const one of [function () {}, async function () {}, function* () {}, async function* () {}]) {
    Object.defineProperty(Object.getPrototypeOf(one), 'constructor', { value: deny })
  }
  globalThis.eval = deny
  globalThis.Function = deny

  // The engine reads JSON by recursion on a short stack, and strangers write it.
  const parse = JSON.parse
  JSON.parse = (text, reviver) => {
    text = String(text)
    if (host.depth(text) > DEEPEST_JSON) throw new SyntaxError(`JSON is nested deeper than ${DEEPEST_JSON}`)
    return parse(text, reviver)
  }

  // ---- messages ----

  let snapshot, hold, release, isIgnored // what only this file may do with a message

  // Names are in lower case; values have a character for each byte, as in fetch, so that whatever came goes on unchanged.
  class Headers {
    #stream
    #side
    #fields // name, value, name, value ...; null: not read yet

    constructor(stream, side, fields = null) {
      this.#stream = stream
      this.#side = side
      this.#fields = fields
    }

    static { snapshot = (headers) => headers.#read() }

    // All at once, and kept: a host shows a head only until it has gone on.
    #read() {
      if (this.#fields === null) {
        if (!this.#stream.open[this.#side]) throw new Error('these headers are not there yet')
        this.#fields = host.fields(HEADS[this.#side])
      }
      return this.#fields
    }

    #change(name, change) {
      if (this.#stream === null || !this.#stream.open[this.#side]) throw new Error('these headers can not be changed any more')
      if (this.#stream !== current) throw new Error('these headers are those of another stream')
      change(HEADS[this.#side], String(name).toLowerCase())
      this.#fields = null
    }

    get(name) {
      const found = this.getAll(name)
      return found.length > 0 ? found.join(', ') : null
    }

    getAll(name) {
      name = String(name).toLowerCase()
      const fields = this.#read(), found = []
      for (let at = 0; at < fields.length; at += 2) if (fields[at] === name) found.push(fields[at + 1])
      return found
    }

    has(name) { return this.getAll(name).length > 0 }
    set(name, value) { this.#change(name, (map, name) => host.set(map, name, String(value))) }
    append(name, value) { this.#change(name, (map, name) => host.add(map, name, String(value))) }
    delete(name) { this.#change(name, host.remove) }

    *[Symbol.iterator]() {
      const fields = [...this.#read()]
      for (let at = 0; at < fields.length; at += 2) if (fields[at][0] !== ':') yield [fields[at], fields[at + 1]]
    }
  }

  // What has headers and a body: requests, responses, and the answers of calls.
  class Message {
    #headers
    #content // bytes; null: not now
    #edited = false
    #ignored = false

    constructor(headers, content = null) {
      this.#headers = headers
      this.#content = content
    }

    static {
      hold = (message, content) => { message.#content = content }
      release = (message) => {
        const edited = message.#edited ? message.#content : null
        message.#content = null
        message.#edited = false
        return edited
      }
      isIgnored = (message) => message.#ignored
    }

    get headers() { return this.#headers }

    ignoreBody() { this.#ignored = true }

    bytes() {
      if (this.#content === null) throw new Error('there is no body outside the handler of this body')
      return this.#content.slice()
    }

    text() {
      const content = this.bytes()
      const encoding = this.#headers.get('content-encoding') ?? 'identity'
      if (encoding.trim().toLowerCase() !== 'identity') throw new Error(`the body is encoded: ${encoding}`)
      return host.decode(content)
    }

    json() { return JSON.parse(this.text()) }

    set body(value) {
      if (this.#content === null) throw new Error('a body can be set in its handler only')
      this.#content = bytesOf(value)
      this.#edited = true
    }
  }

  const pseudo = (name) => ({
    get() { return this.headers.get(name) },
    set(value) { this.headers.set(name, value) },
  })

  class Request extends Message {}
  for (const name of ['method', 'path', 'authority', 'scheme']) Object.defineProperty(Request.prototype, name, pseudo(`:${name}`))

  class Response extends Message {
    get status() { return Number(this.headers.get(':status')) }
    set status(value) { this.headers.set(':status', statusOf(value)) }
  }

  class Answer extends Message {
    get status() { return Number(this.headers.get(':status')) }
  }

  function statusOf(value) {
    if (!Number.isInteger(value) || value < 200 || value > 599) throw new RangeError('a status is a whole number from 200 to 599')
    return value
  }

  function bytesOf(value) {
    if (value === undefined || value === null) return new Uint8Array(0)
    if (typeof value === 'string') return host.encode(value)
    if (value instanceof ArrayBuffer) return new Uint8Array(value)
    if (ArrayBuffer.isView(value)) return new Uint8Array(value.buffer, value.byteOffset, value.byteLength)
    throw new TypeError('a body is a string or bytes')
  }

  // name, value, name, value ... of an object, of pairs, or of other headers.
  function fieldsOf(headers) {
    if (headers === undefined || headers === null) return []
    const pairs = Symbol.iterator in headers ? [...headers] : Object.entries(headers)
    return pairs.flatMap(([name, value]) => [String(name).toLowerCase(), String(value)])
  }

  // ---- what a script may call ----

  const textOf = (value) => {
    if (value instanceof Error) return `${value}\n${String(value.stack).replace(/^.*\(prelude:.*\n/gm, '')}`.trimEnd()
    return typeof value === 'object' && value !== null ? JSON.stringify(value) : String(value)
  }

  const print = (level) => (...values) => host.log(level, values.map(textOf).join(' '))
  const console = { debug: print(DEBUG), log: print(INFO), info: print(INFO), warn: print(WARN), error: print(ERROR) }

  // Asks a service. The promise is kept with the answer, whatever its status, and broken if there is none.
  function call(cluster, { method = 'GET', path = '/', authority = cluster, headers, body, timeout = 1000 } = {}) {
    const stream = current
    if (stream === null || stream.work === null || stream.work.phase === 'onLog') throw new Error('nothing can be called here')
    if (!(timeout >= 1 && timeout <= 30000)) throw new RangeError('timeout: milliseconds from 1 to 30000')
    const head = [':method', String(method), ':path', String(path), ':authority', String(authority), ...fieldsOf(headers)]
    const token = host.call(String(cluster), head, bytesOf(body), timeout)
    return new Promise((resolve, reject) => {
      calls.set(token, { stream, resolve, reject })
      stream.tokens.add(token)
    })
  }

  function count(name, by = 1) {
    if (!Number.isInteger(by) || by < 0) throw new RangeError('a counter grows by whole numbers')
    name = String(name)
    if (!counters.has(name)) counters.set(name, host.counter(name))
    host.increment(counters.get(name), by)
  }

  const property = (...path) => host.property(path.map(String).join('\0'))

  const crypto = {
    getRandomValues(array) {
      new Uint8Array(array.buffer, array.byteOffset, array.byteLength).set(host.random(array.byteLength))
      return array
    },
    randomUUID() {
      const bytes = host.random(16)
      bytes[6] = (bytes[6] & 0x0f) | 0x40
      bytes[8] = (bytes[8] & 0x3f) | 0x80
      const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join('')
      return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-')
    },
  }

  // ---- running handlers ----

  // A piece of work is one call of a handler, until it is settled. What a stream has begun since makes an older one stale.
  function run(stream, phase, ...parameters) {
    const work = (stream.work = { stream, phase, waiting: true })
    stream.action = CONTINUE
    let result
    try {
      if (handlers[phase] !== undefined) result = handlers[phase](...parameters)
    } catch (error) {
      return fail(work, error)
    }
    if (result instanceof Promise) result.then((value) => finish(work, value), (error) => fail(work, error))
    else finish(work, result)
  }

  const isStale = (work) => !work.waiting || work.stream.work !== work

  function finish(work, result) {
    if (isStale(work)) return
    try {
      if (result === undefined || result === null) {
        proceed(work)
      } else {
        if (typeof result !== 'object') throw new TypeError(`it answered with ${typeof result}: a response is {status, headers, body}`)
        reply(work.stream, statusOf(result.status), fieldsOf(result.headers), bytesOf(result.body), 'script_reply')
      }
      work.waiting = false
    } catch (error) {
      fail(work, error)
    }
  }

  function fail(work, error) {
    if (isStale(work)) return
    work.waiting = false
    host.log(ERROR, `script: ${work.phase} failed: ${textOf(error)}`)
    if (work.phase === 'onLog') return
    if (options.on_error === 'continue') proceed(work)
    else reply(work.stream, 500, [], bytesOf(FAILED), 'script_error')
  }

  function reply(stream, status, fields, body, details) {
    host.reply(status, fields, body, details)
    stream.collects = null
    stream.action = PAUSE
  }

  // What is left to do when a handler lets its message pass.
  function proceed({ stream, phase }) {
    if (phase === 'onRequest' || phase === 'onResponse') {
      const side = phase === 'onRequest' ? REQUEST : RESPONSE
      const message = stream.messages[side]
      if (!stream.ended[side] && !isIgnored(message)) announceBody(stream, side, message)
      if (options.keeps[side]) snapshot(message.headers)
    } else if (phase !== 'onLog') {
      const side = phase === 'onRequestBody' ? REQUEST : RESPONSE
      const edited = release(stream.messages[side])
      if (edited !== null) host.setBody(side, edited)
    }
  }

  // A body that its handler may change: what the head says of it goes. RFC 9110 section 8.8.1: a strong entity tag stands for
  // the body byte for byte.
  function announceBody(stream, side, { headers }) {
    if (handlers[side === REQUEST ? 'onRequestBody' : 'onResponseBody'] === undefined) return
    if (Number(headers.get('content-length') ?? 0) > options.max_body) return tooLarge(stream, side)
    stream.collects = side
    headers.delete('content-length')
    if (side === REQUEST) return
    for (const name of ['accept-ranges', 'content-md5', 'digest', 'content-digest', 'repr-digest']) {
      if (headers.has(name)) headers.delete(name)
    }
    const tag = headers.get('etag')
    if (tag !== null && !tag.startsWith('W/')) headers.set('etag', `W/${tag}`)
  }

  function tooLarge(stream, side) {
    const [status, text] = TOO_LARGE[side]
    host.log(WARN, `script: a body of more than ${options.max_body} bytes, max_body`)
    reply(stream, status, [], bytesOf(text), 'script_body_too_large')
  }

  // ---- callbacks ----

  function requestHead(id, ended) {
    const stream = {
      id, messages: [], open: [true, false], ended: [ended, false], collects: null, work: null, action: CONTINUE, tokens: new Set(),
    }
    streams.set(id, (current = stream))
    const request = new Request(new Headers(stream, REQUEST))
    stream.messages = [request, new Response(new Headers(stream, RESPONSE))]
    if (handlers.onResponseBody !== undefined) {
      // What is compressed, or a part of something, could not be read.
      request.headers.set('accept-encoding', 'identity')
      for (const name of ['range', 'if-range']) request.headers.delete(name)
    }
    run(stream, 'onRequest', request)
  }

  function responseHead(id, ended) {
    const stream = enter(id)
    if (stream === null) return
    stream.open = [false, true]
    stream.ended[RESPONSE] = ended
    stream.collects = null
    const [request, response] = stream.messages
    run(stream, 'onResponse', response, request)
  }

  function body(id, side, size, ended) {
    const stream = enter(id)
    if (stream === null) return
    stream.open[side] = false
    stream.action = CONTINUE
    if (stream.collects !== side) return
    if (size !== BEFORE_TRAILERS && size > options.max_body) return tooLarge(stream, side)
    stream.action = PAUSE
    if (!ended) return
    stream.collects = null
    const [request, response] = stream.messages
    hold(stream.messages[side], host.body(side, options.max_body))
    if (side === REQUEST) run(stream, 'onRequestBody', request)
    else run(stream, 'onResponseBody', response, request)
  }

  function log(id) {
    const stream = enter(id)
    if (stream === null || handlers.onLog === undefined) return
    stream.open = [false, true]
    const [request, response] = stream.messages
    run(stream, 'onLog', response, request)
  }

  // The answer is shown on the root context, the request can be changed on its own only.
  function callAnswered(token, answered, size) {
    const found = calls.get(token)
    if (found === undefined) return 0
    const { stream, resolve, reject } = found
    calls.delete(token)
    stream.tokens.delete(token)
    const fields = answered ? host.fields(CALL_HEAD) : []
    const content = answered ? host.body(CALL_BODY, Math.min(size, options.max_body)) : null
    if (!host.enter(stream.id)) return 0
    current = stream
    if (!answered) reject(new Error('the call was not answered'))
    else if (size > options.max_body) reject(new Error(`the answer has more than ${options.max_body} bytes, max_body`))
    else resolve(new Answer(new Headers(null, -1, fields), content))
    return stream.work.waiting ? stream.id : 0
  }

  // What a callback answers: all jobs are done, so a handler that still waits does so for a call, or for ever.
  function settle(id) {
    const stream = streams.get(id)
    if (stream === undefined) return CONTINUE
    const { work } = stream
    if (work !== null && work.waiting && stream.tokens.size === 0) fail(work, new Error('it waits for what can not come: await call()'))
    return work !== null && work.waiting ? PAUSE : stream.action
  }

  // The same behind a call's answer, for a handler that waited for it.
  function resume(id) {
    const action = settle(id)
    const { work } = streams.get(id)
    if (action === CONTINUE) host.resume(work.phase.startsWith('onRequest') ? REQUEST : RESPONSE)
  }

  function enter(id) {
    return (current = streams.get(id) ?? null)
  }

  function forget(id) {
    const stream = streams.get(id)
    if (stream === undefined) return
    for (const token of stream.tokens) calls.delete(token)
    streams.delete(id)
    current = null
  }

  // ---- the configuration ----

  function configure(text) {
    const given = text === '' ? {} : JSON.parse(text)
    if (typeof given !== 'object' || given === null || Array.isArray(given)) throw new Error('the configuration: must be a mapping')
    const known = ['script', 'settings', 'max_body', 'on_error', 'heap_mib']
    for (const key of Object.keys(given)) if (!known.includes(key)) throw new Error(`${key}: unknown key`)
    options = { settings: {}, max_body: 65536, on_error: 'refuse', heap_mib: 12, ...given }
    if (typeof options.script !== 'string') throw new Error('script: is missing, or not a text')
    whole('max_body', 1, 1 << 24)
    whole('heap_mib', 1, 1024)
    if (!['refuse', 'continue'].includes(options.on_error)) throw new Error('on_error: must be one of refuse, continue')
    host.limit(options.heap_mib << 20)
    const names = { console, call, count, property, crypto, settings: options.settings }
    for (const name in names) Object.defineProperty(globalThis, name, { value: names[name], writable: true, configurable: true })
    host.evaluate(options.script)
    handlers = host.evaluate(`({${HANDLERS.map((name) => `${name}: typeof ${name} === 'undefined' ? undefined : ${name}`)}})`)
    const unknown = Object.keys(globalThis).find((name) => /^on[A-Z]/.test(name) && !HANDLERS.includes(name))
    if (unknown !== undefined) throw new Error(`script: ${unknown} is no handler; they are ${HANDLERS.join(', ')}`)
    const { onRequest, onRequestBody, onResponse, onResponseBody, onLog } = handlers
    const all = [onRequest, onRequestBody, onResponse, onResponseBody, onLog].filter((one) => one !== undefined)
    if (all.length === 0) throw new Error(`script: has no handler; they are ${HANDLERS.join(', ')}`)
    if (!all.every((one) => typeof one === 'function')) throw new Error('script: a handler is no function')
    options.keeps = [onRequestBody ?? onResponse ?? onResponseBody ?? onLog, onResponseBody ?? onLog].map((one) => one !== undefined)
  }

  function whole(key, least, most) {
    const value = options[key]
    if (!Number.isInteger(value) || value < least || value > most) throw new Error(`${key}: must be a whole number from ${least} to ${most}`)
  }

  return { configure, requestHead, responseHead, body, log, forget, callAnswered, settle, resume }
})
