import { playwright } from '@vitest/browser-playwright';
import { defineConfig } from 'vitest/config';

const globalSetup = ['tests/support/setup.ts'];

export default defineConfig({
  test: {
    testTimeout: 20_000,
    projects: [
      {
        test: {
          name: 'node',
          globalSetup,
          include: ['tests/node/**/*.test.ts', 'tests/shared/**/*.test.ts'],
        },
      },
      {
        test: {
          name: 'browser',
          globalSetup,
          include: ['tests/shared/**/*.test.ts'],
          browser: {
            enabled: true,
            headless: true,
            screenshotFailures: false,
            provider: playwright({
              launchOptions: {
                executablePath: process.env['CHROMIUM'] ?? '/usr/bin/chromium',
                args: ['--no-sandbox'],
              },
            }),
            instances: [{ browser: 'chromium' }],
          },
        },
      },
    ],
  },
});
