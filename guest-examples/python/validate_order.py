"""Accepts orders: JSON objects with a text `orderId` and a number `total`, 0 or more.

Config: none, or `{"max_total": 1000}`. Any other is a fault.

There is no helper for Python: a plugin gets the events as columns, as wit/types.wit describes them.
"""

import json
import math
from itertools import pairwise

from wit_world import exports
from wit_world.exports.validate import Verdict, Verdict_Accept, Verdict_Reject
from wit_world.imports.types import Batch, Context


class Validate(exports.Validate):
    def validate(self, context: Context, batch: Batch) -> list[Verdict]:
        total_max = float(json.loads(context.config or "{}").get("max_total", math.inf))
        value = batch.values.bytes
        reasons = (
            reason_against(value[start:end], total_max)
            for start, end in pairwise([0, *batch.values.ends])
        )
        return [Verdict_Reject(reason) if reason else Verdict_Accept() for reason in reasons]


def reason_against(value: bytes, total_max: float) -> str | None:
    try:
        order = json.loads(value)
    except ValueError as error:
        return f"expected JSON: {error}"
    if not isinstance(order, dict):
        return "expected a JSON object"
    total = order.get("total")
    if not isinstance(order.get("orderId"), str):
        return "expected a text `orderId`"
    if type(total) not in (int, float):
        return "expected a number `total`"
    if total < 0:
        return f"expected a `total` of 0 or more, got {total}"
    if total > total_max:
        return f"expected a `total` up to {total_max:g}, got {total}"
    return None
