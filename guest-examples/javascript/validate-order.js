// Accepts orders: JSON objects with a text `orderId` and a number `total`, 0 or more.
//
// Config: none, or `{"max_total": 1000}`. Any other is a fault.

import { accept, reject, validator } from "./stream-plugin.js";

export const validate = validator(check, rules);

function rules({ config }) {
  const { max_total: max = Infinity } = config === "" ? {} : JSON.parse(config);
  if (typeof max !== "number") throw new TypeError("expected `max_total` to be a number");
  return { max };
}

function check({ max }, event) {
  let order;
  try {
    order = event.json();
  } catch (error) {
    return reject(`expected JSON: ${error.message}`);
  }
  if (typeof order !== "object" || order === null || Array.isArray(order)) {
    return reject("expected a JSON object");
  }
  const { orderId, total } = order;
  if (typeof orderId !== "string") return reject("expected a text `orderId`");
  if (typeof total !== "number") return reject("expected a number `total`");
  if (total < 0) return reject(`expected a \`total\` of 0 or more, got ${total}`);
  if (total > max) return reject(`expected a \`total\` up to ${max}, got ${total}`);
  return accept;
}
