// Plugins for Stream in JavaScript: a function of one event becomes an interface of the contract.
//
//     import { accept, reject, validator } from "./stream-plugin.js";
//
//     export const validate = validator((context, event) =>
//       event.key === undefined ? reject("expected a key") : accept);
//
// A second function makes of the context, once a call, what the first wants in its place:
// `router(route, ({ config }) => JSON.parse(config))`. Whatever throws is a fault of the plugin.

/** `export const validate = validator(…)`: `accept` or `reject(reason)`. */
export const validator = (answer, prepare) => role("validate", answer, prepare);
/** `export const partition = partitioner(…)`: a number below `context.partitions`. */
export const partitioner = (answer, prepare) => role("partition", answer, prepare);
/** `export const route = router(…)`: a list of names of topics. */
export const router = (answer, prepare) => role("route", answer, prepare);
/** `export const transform = transformer(…)`: `keep`, `replace(event, changes)` or `drop`. */
export const transformer = (answer, prepare) => role("transform", answer, prepare);

export const accept = { tag: "accept" };
export const reject = (reason) => ({ tag: "reject", val: reason });
export const keep = { tag: "keep" };
export const drop = { tag: "drop" };

/** The event with changes to its fields. A `value` that is not bytes becomes JSON. */
export function replace({ id, key, time, contentType, headers, value }, changes) {
  const event = { id, key, time, contentType, headers, value, ...changes };
  if (!(event.value instanceof Uint8Array)) {
    event.value = new TextEncoder().encode(JSON.stringify(event.value));
  }
  return { tag: "replace", val: event };
}

const role = (name, answer, prepare = (context) => context) => ({
  [name](context, batch) {
    const prepared = prepare(context);
    const columns = new Columns(batch);
    return Array.from({ length: batch.count }, (_, index) =>
      answer(prepared, new Event(columns, index)),
    );
  },
});

/** One event. What it does not have is `undefined`. */
class Event {
  #columns;
  #index;

  constructor(columns, index) {
    this.#columns = columns;
    this.#index = index;
  }

  /** The publisher's identity of the event, as its source gave it. */
  get id() {
    return this.#columns.ids?.text(this.#index);
  }

  /** What orders the event: events of one key share a partition. */
  get key() {
    return this.#columns.keys?.text(this.#index);
  }

  /** When it happened, RFC 3339, as the publisher wrote it. */
  get time() {
    return this.#columns.times?.text(this.#index);
  }

  /** The media type of the value. Without one it is JSON, or unknown. */
  get contentType() {
    return this.#columns.contentTypes?.text(this.#index);
  }

  /** Pairs of a name and a value, in the order in which they were published. */
  get headers() {
    return this.#columns.headers(this.#index);
  }

  /** The value of the header with exactly this name. */
  header(name) {
    return this.headers.find(([itsName]) => itsName === name)?.[1];
  }

  /** The payload: bytes, as they were published. */
  get value() {
    return this.#columns.values.bytes(this.#index) ?? new Uint8Array();
  }

  /** The payload as text. */
  text() {
    return this.#columns.values.text(this.#index) ?? "";
  }

  /** The payload as JSON. Throws if it is not. */
  json() {
    return JSON.parse(this.text());
  }
}

/** The events of a batch, field by field. */
class Columns {
  #headers;

  constructor({ ids, keys, times, contentTypes, headers, values }) {
    this.ids = ids && new Column(ids);
    this.keys = keys && new Column(keys);
    this.times = times && new Column(times);
    this.contentTypes = contentTypes && new Column(contentTypes);
    this.values = new Column(values);
    this.#headers = headers && {
      ends: headers.ends,
      names: new Column(headers.names),
      values: new Column(headers.values),
    };
  }

  headers(index) {
    if (!this.#headers) return [];
    const { ends, names, values } = this.#headers;
    const start = startOf(ends, index);
    return Array.from({ length: ends[index] - start }, (_, offset) => [
      names.text(start + offset),
      values.text(start + offset),
    ]);
  }
}

const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

const startOf = (ends, index) => (index === 0 ? 0 : ends[index - 1]);

class Column {
  #bytes;
  #ends;
  #nulls;
  #text;

  constructor({ bytes, ends, nulls }) {
    this.#bytes = bytes;
    this.#ends = ends;
    this.#nulls = new Set(nulls);
  }

  bytes(index) {
    if (this.#nulls.has(index)) return undefined;
    return this.#bytes.subarray(startOf(this.#ends, index), this.#ends[index]);
  }

  // One call decodes a column that is all ASCII: in one as long as its bytes, offsets are the same.
  text(index) {
    if (this.#nulls.has(index)) return undefined;
    this.#text ??= decoder.decode(this.#bytes);
    return this.#text.length === this.#bytes.length
      ? this.#text.slice(startOf(this.#ends, index), this.#ends[index])
      : decoder.decode(this.bytes(index));
  }
}
