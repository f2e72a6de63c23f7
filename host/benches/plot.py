#!/usr/bin/env python3
"""Draws how cost grows from what `stream bench growth --json` or `stream bench suite --long --json`
printed.

`host/benches/plot.py FILE` writes `host/benches/growth.svg`; needs matplotlib from PyPI.
"""
import json
import pathlib
import sys

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402


def main() -> None:
    told = json.loads(pathlib.Path(sys.argv[1]).read_text())["growth"]
    figure, axes = plt.subplots(2, 2, figsize=(10, 7))
    topics, connections, groups, records = axes.flat

    def rates(axis, lines, of, label=None) -> None:
        axis.plot([line[of] for line in lines], [line["events_per_second"] / 1e6 for line in lines], "o-", label=label)
        axis.set(xscale="log", xlabel=of, ylabel="M events/s")

    rates(topics, told["topics"], "topics")
    topics.set(title="publish, 8 connections, batches of 1,000", ylim=(0, 2))
    for batch in sorted({line["batch"] for line in told["connections"]}):
        lines = [line for line in told["connections"] if line["batch"] == batch]
        rates(connections, lines, "connections", "one event a request" if batch == 1 else f"batches of {batch}")
    connections.set(title="publish, one topic", yscale="log", ylim=(1e-3, 3))
    connections.legend()
    rates(groups, told["groups"], "groups")
    groups.set(title="read, all groups together", ylim=(0, 10))
    stored = [line["records"] for line in told["records"]]
    records.plot(stored, [line["restart_ms"] for line in told["records"]], "o-", label="restart, ms")
    records.plot(stored, [line["memory_idle_mib"] for line in told["records"]], "o-", label="memory after it, MiB")
    records.plot(stored, [line["p99_ms"] for line in told["records"]], "o-", label="first page, p99, ms")
    records.set(xscale="log", yscale="log", xlabel="stored records", title="after a restart")
    records.legend()
    for axis in axes.flat:
        axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(pathlib.Path(__file__).with_name("growth.svg"), metadata={"Date": None})


main()
