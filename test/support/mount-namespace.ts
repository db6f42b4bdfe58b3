/**
 * Programs in mount namespaces of their own, which begin with a copy of every mount. Whoever keeps
 * copies of loop devices' mounts keeps those of other tests in use.
 */
import { spawn } from 'node:child_process';
import type { Test } from 'tap';
import { cleanEnvironment } from './run-program.js';

/** A line of a shell script that lets go of the copies of what is mounted from loop devices. */
export const DROP_LOOP_COPIES =
  'while read -r source directory rest; do case $source in /dev/loop*) ' +
  'umount -l "$directory";; esac; done </proc/mounts';

/**
 * Starts a program that has a copy of the mounts.
 * @returns what ends it.
 */
export async function elsewhere(
  t: Test,
  options: { readonly redirection?: string; readonly keepLoops?: boolean } = {},
): Promise<() => Promise<void>> {
  const { redirection = '', keepLoops = false } = options;
  const drop = keepLoops ? ':' : DROP_LOOP_COPIES;
  const script = `${drop}; echo there >&2; exec sleep 1000 ${redirection}`;
  const child = spawn('unshare', ['-m', '--propagation', 'private', 'sh', '-c', script], {
    env: cleanEnvironment(),
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const gone = new Promise<void>((resolve) => child.once('close', () => resolve()));
  const end = (): Promise<void> => {
    child.kill('SIGKILL');
    return gone;
  };
  t.teardown(end);
  await new Promise<void>((resolve) => child.stderr.once('data', () => resolve()));
  return end;
}
