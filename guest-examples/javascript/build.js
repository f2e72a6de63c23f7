// Makes a component of validate-order.js: ../target/validate-order-javascript.wasm.
//
// componentize-js imports preview2-shim without depending on it, and 0.26 of that finds no files:
// package.json pins the last that does.

import { writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";

import { componentize } from "@bytecodealliance/componentize-js";

const path = (relative) => fileURLToPath(new URL(relative, import.meta.url));

const { component } = await componentize({
  sourcePath: path("validate-order.js"),
  witPath: path("../../wit"),
  worldName: "validator",
  // No server links them: a plugin has no network.
  disableFeatures: ["http", "fetch-event"],
});
await writeFile(path("../target/validate-order-javascript.wasm"), component);
