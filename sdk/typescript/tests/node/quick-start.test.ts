import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';

import { expect, inject, onTestFinished, test } from 'vitest';

import { fresh } from '../support/client.js';

const PACKAGE = resolve(import.meta.dirname, '../..');

/** The quick start of the README, with nothing but key, project and address replaced. */
function quickStart(projectId: string): string {
  const readme = readFileSync(join(PACKAGE, 'README.md'), 'utf8');
  const [, block] = /## Quick start\n+```js\n([^]*?)```/.exec(readme) ?? [];
  const asked = "{ apiKey: 'your-api-key', projectId: 'your-project-id' }";
  if (block?.split(asked).length !== 2) throw new Error('the quick start makes no client');
  const given = { apiKey: inject('apiKey'), projectId, baseUrl: inject('baseUrl') };
  return block.replace(asked, JSON.stringify(given));
}

test('the quick start of the readme reads what it has published', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'stream-quick-start-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  mkdirSync(join(folder, 'node_modules/@fourbyfour'), { recursive: true });
  symlinkSync(PACKAGE, join(folder, 'node_modules/@fourbyfour/sdk'));
  const script = join(folder, 'quick-start.mjs');
  writeFileSync(script, `${quickStart(fresh('quick'))}console.log(JSON.stringify(records));\n`);
  const { stdout } = await promisify(execFile)(process.execPath, [script]);
  expect(JSON.parse(stdout)).toMatchObject([
    { topic: 'order.placed', key: 'order-123', value: { orderId: '123', total: 99.99 }, offset: 0 },
  ]);
});
