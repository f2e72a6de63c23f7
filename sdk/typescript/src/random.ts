// Names that nobody else has.

/**
 * 32 hexadecimal digits at random. `crypto.randomUUID` would do, but pages that were not loaded over
 * HTTPS do not have it.
 */
export function randomId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}
