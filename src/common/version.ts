/** The version of this installation, as its package says. */
import { readFileSync } from 'node:fs';

/** Reads it anew each time; both `src` and `dist` lie two levels above this file's folder's own. */
export function packageVersion(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  const { version } = JSON.parse(text) as { version: string };
  return version;
}
