/** How every refused command must look: one line of error, one of hint, the right exit code. */
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Test } from 'tap';
import { ControlSocket } from './control-socket.js';
import type { CliResult, TestDaemon } from './daemon.js';

/** The exit codes of the manual. */
export const EXIT = {
  ok: 0,
  failed: 1,
  usage: 2,
  unreachable: 3,
  notFound: 4,
  exists: 5,
  busy: 6,
  damaged: 7,
  notPermitted: 9,
  notSupported: 10,
} as const;

/**
 * Checks that a command was refused as the manual says. `about` must be found in the error line:
 * the thing that it is about.
 */
export function checkRefusal(
  t: Test,
  result: CliResult,
  codes: readonly number[],
  about?: RegExp,
): void {
  const said = `exit ${result.code}\n${result.stdout}${result.stderr}`;
  t.ok(codes.includes(result.code), `exit code is one of ${codes.join(', ')}: ${said}`);
  t.equal(result.stdout, '', 'nothing on standard output');
  const [error, hint, ...more] = result.stderr.replace(/\n$/, '').split('\n');
  t.match(error, /^layerdisk: \S/, `an error line: ${said}`);
  t.match(hint, /^hint: \S/, `a hint line: ${said}`);
  t.same(more, [], `nothing else on standard error: ${said}`);
  if (about !== undefined) t.match(error, about, 'the error names the thing');
}

/**
 * What a refused command must leave as it was: the VMs, and the files of the store with their sizes
 * (the log aside).
 */
export async function stateOf(daemon: TestDaemon): Promise<unknown> {
  const client = await ControlSocket.connect(daemon.socket);
  try {
    const vms = await client.call<readonly { name: string }[]>('list', {});
    const details = await Promise.all(vms.map(({ name }) => client.call('info', { vm: name })));
    return { vms: details, files: await filesOf(daemon.store) };
  } finally {
    client.destroy();
  }
}

/** The log, and the checksums that are made in the background of what was sealed before. */
const OF_ITS_OWN_ACCORD = /^daemon\.log$|\.sums/;

async function filesOf(folder: string): Promise<Record<string, number>> {
  const files: Record<string, number> = {};
  for (const entry of await readdir(folder, { withFileTypes: true, recursive: true })) {
    if (!entry.isFile() || OF_ITS_OWN_ACCORD.test(entry.name)) continue;
    const path = join(entry.parentPath, entry.name);
    files[path.slice(folder.length)] = (await stat(path)).size;
  }
  return files;
}
