import assert from "node:assert/strict";
import { test } from "node:test";

import * as plugin from "./stream-plugin.js";
import { validate } from "./validate-order.js";

const encode = (text) => new TextEncoder().encode(text);

/** The columns that the server would make; an absent field is `undefined`. */
function batchOf(events) {
  const column = (texts) => {
    let end = 0;
    const fields = texts.map((text) => encode(text ?? ""));
    return {
      bytes: encode(texts.join("")),
      ends: Uint32Array.from(fields, (field) => (end += field.length)),
      nulls: Uint32Array.from(texts.flatMap((text, index) => (text === undefined ? [index] : []))),
    };
  };
  const optional = (texts) =>
    texts.every((text) => text === undefined) ? undefined : column(texts);
  const headers = events.map((event) => event.headers ?? []);
  let end = 0;
  return {
    count: events.length,
    ids: optional(events.map((event) => event.id)),
    keys: optional(events.map((event) => event.key)),
    times: optional(events.map((event) => event.time)),
    contentTypes: optional(events.map((event) => event.contentType)),
    headers: headers.flat().length === 0 ? undefined : {
      ends: Uint32Array.from(headers, (list) => (end += list.length)),
      names: column(headers.flat().map(([name]) => name)),
      values: column(headers.flat().map(([, value]) => value)),
    },
    values: column(events.map((event) => event.value)),
  };
}

const context = { topic: "order.placed", partitions: 8, config: "" };

const full = {
  id: "1",
  key: "N318US",
  time: "2013-01-01T18:25:00Z",
  contentType: "text/plain",
  headers: [["a", "1"], ["ce-source", ""]],
  value: "JFK",
};

/** The fields of all events of a batch, as a plugin sees them. */
function seen(events) {
  const { route } = plugin.router((_, event) => [event]);
  return route(context, batchOf(events)).map(([event]) => ({
    id: event.id,
    key: event.key,
    time: event.time,
    contentType: event.contentType,
    headers: event.headers,
    value: event.text(),
  }));
}

test("events come back as they were", () => {
  const bare = { id: undefined, key: undefined, time: undefined, contentType: undefined };
  const events = [
    { ...bare, headers: [], value: "{}" },
    full,
    { ...bare, key: "", headers: [["b", "ü"]], value: "" },
    { ...full, key: "ключ", value: '"ü"' },
    { ...bare, headers: [], value: "\ufeff1" },
  ];
  assert.deepEqual(seen(events), events);
  for (const event of events) assert.deepEqual(seen([event]), [event]);
});

test("a header is found by its exact name", () => {
  const { route } = plugin.router((name, event) => [event.header(name)], ({ config }) => config);
  const found = (config) => route({ ...context, config }, batchOf([full, { value: "" }])).flat();
  assert.deepEqual(found("a"), ["1", undefined]);
  assert.deepEqual(found("ce-source"), ["", undefined]);
  assert.deepEqual(found("A"), [undefined, undefined]);
});

test("every role answers for each event", () => {
  const batch = batchOf([{ value: "1" }, { value: "2" }, { value: "3" }]);
  const { partition } = plugin.partitioner(({ partitions }, event) => event.json() % partitions);
  assert.deepEqual(partition({ ...context, partitions: 2 }, batch), [1, 0, 1]);
  const { transform } = plugin.transformer((_, event) =>
    [plugin.keep, plugin.drop, plugin.replace(event, { key: "k", value: [1] })][event.json() - 1],
  );
  const [kept, dropped, { tag, val }] = transform(context, batch);
  assert.deepEqual([kept.tag, dropped.tag, tag], ["keep", "drop", "replace"]);
  assert.deepEqual([val.key, val.headers, val.value], ["k", [], encode("[1]")]);
});

test("what is not replaced is kept", () => {
  const { transform } = plugin.transformer((_, event) => plugin.replace(event, {}));
  const [{ val }] = transform(context, batchOf([full]));
  assert.deepEqual(val, { ...full, value: encode(full.value) });
});

test("an order has an id and a total in bounds", () => {
  const strict = { ...context, config: '{"max_total": 10}' };
  const verdicts = (...values) =>
    validate.validate(strict, batchOf(values.map((value) => ({ value })))).map(({ val }) => val);
  assert.deepEqual(
    verdicts(
      '{"orderId": "ü", "total": 10}',
      '["a", 10]',
      '{"orderId": 1, "total": 10}',
      '{"orderId": "a"}',
      '{"orderId": "a", "total": -1}',
      '{"orderId": "a", "total": 10.5}',
    ),
    [
      undefined,
      "expected a JSON object",
      "expected a text `orderId`",
      "expected a number `total`",
      "expected a `total` of 0 or more, got -1",
      "expected a `total` up to 10, got 10.5",
    ],
  );
  assert.match(verdicts("no JSON")[0], /^expected JSON: /);
});

test("a config that is no JSON is a fault", () => {
  assert.throws(() => validate.validate({ ...context, config: "{" }, batchOf([full])));
});
