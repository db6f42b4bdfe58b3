/** A daemon whose program a test may change while it runs, as an upgrade does. */
import { readFileSync, writeFileSync } from 'node:fs';
import { cp, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import type { Test } from 'tap';
import { prepareDaemon, type TestDaemon } from './daemon.js';
import { PROJECT } from './run-program.js';

/** A daemon whose program is a copy that the test may change. */
export async function daemonOfCopy(
  t: Test,
  args: readonly string[] = [],
): Promise<{ daemon: TestDaemon; program: string }> {
  const { folder } = await prepareDaemon(t);
  const program = join(folder, 'program');
  await cp(join(PROJECT, 'dist/modules'), join(program, 'dist'), { recursive: true });
  await cp(join(PROJECT, 'package.json'), join(program, 'package.json'));
  await symlink(join(PROJECT, 'node_modules'), join(program, 'node_modules'));
  const daemon = await prepareDaemon(t, {
    supervise: true,
    program: join(program, 'dist/daemon/main.js'),
    args,
  });
  return { daemon, program };
}

export function change(file: string, from: string, to: string): void {
  const text = readFileSync(file, 'utf8');
  if (!text.includes(from)) throw new Error(`${file} has no ${from}`);
  writeFileSync(file, text.replace(from, to));
}
