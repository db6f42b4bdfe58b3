/**
 * The program of the daemon: a supervisor, which starts the same program again as the daemon
 * proper, or that one at once. Each part loads only what it needs.
 */
import { fileURLToPath } from 'node:url';
import { DiskError } from '../common/errors.js';
import { type DaemonOptions, readDaemonOptions, readyFdIn } from './options.js';
import { logPlainly } from './plain-log.js';
import { announce } from './ready-line.js';

async function run(args: readonly string[]): Promise<number> {
  let options: DaemonOptions;
  try {
    options = readDaemonOptions(args);
  } catch (error) {
    logPlainly('error', 'cannot start', { error: String(error) });
    if (error instanceof DiskError) announce(readyFdIn(args), { error: error.toJSON() });
    return 1;
  }
  if (options.part !== 'supervisor') {
    const { serve } = await import('./serve.js');
    return await serve(options);
  }
  const { Supervisor } = await import('./supervisor.js');
  const program = fileURLToPath(import.meta.url);
  return await new Supervisor({ program, args, readyFd: options.readyFd }).run();
}

// Else Node.js opens its debugger, to whoever is on this host.
process.on('SIGUSR1', () => undefined);
void run(process.argv.slice(2)).then((code) => {
  process.exitCode = code;
});
