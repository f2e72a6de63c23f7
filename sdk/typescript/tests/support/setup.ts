// One server for all tests of a project of vitest, stopped by its own process id at the end.

import type { TestProject } from 'vitest/node';

import { KEY, Server } from './server.js';

declare module 'vitest' {
  interface ProvidedContext {
    baseUrl: string;
    apiKey: string;
    /** Paths of the server's OpenAPI document: what it can do. */
    serverPaths: string[];
  }
}

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const server = await Server.start();
  const document = (await (await fetch(`${server.url}/openapi.json`)).json()) as { paths: object };
  project.provide('baseUrl', server.url);
  project.provide('apiKey', KEY);
  project.provide('serverPaths', Object.keys(document.paths));
  return () => server.stop();
}
