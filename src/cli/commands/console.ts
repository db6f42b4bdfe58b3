/** `console`: the serial console of a guest that was started with `run --detach`. */
import { createConnection } from 'node:net';
import { DiskError, errnoName } from '../../common/errors.js';
import { parseVm } from '../arguments.js';
import { defineCommand } from '../command.js';

/** Ctrl-], as telnet and virsh have it. */
const ESCAPE = 0x1d;

export const consoleCommand = defineCommand({
  command: 'console <vm>',
  describe: 'Connect to the serial console of a guest that runs detached',
  notes: 'Ctrl-] leaves it; the guest goes on. One at a time can be connected.',
  example: 'layerdisk console web',
  options: (yargs) =>
    yargs.positional('vm', { type: 'string', demandOption: true, describe: 'Name of the VM' }),
  run: async (session, args) => {
    const vm = parseVm(args.vm);
    const { guest } = await session.call('info', { vm });
    if (guest === undefined) {
      throw new DiskError('not-found', `VM "${vm}" does not run`, {
        hint: `start it: layerdisk run ${vm} --detach`,
      });
    }
    if (guest.console === undefined) {
      throw new DiskError('busy', `the console of "${vm}" is the terminal it was started on`, {
        hint: `start it with: layerdisk run ${vm} --detach`,
      });
    }
    if (process.stdin.isTTY === true) session.stderr.line('connected; ctrl-] leaves');
    await talk(guest.console);
  },
});

/** Resolves when either side has had enough. */
function talk(path: string): Promise<void> {
  const { stdin, stdout } = process;
  const socket = createConnection(path);
  const isTerminal = stdin.isTTY === true;
  return new Promise<void>((resolve, reject) => {
    socket.once('error', (error) => {
      const errno = errnoName(error) ?? 'EIO';
      reject(new DiskError('failed', `cannot reach the console ${path} (${errno})`));
    });
    socket.once('close', () => resolve());
    socket.on('data', (chunk: Buffer) => stdout.write(chunk));
    if (isTerminal) stdin.setRawMode(true);
    stdin.on('data', (chunk: Buffer) => {
      const end = isTerminal ? chunk.indexOf(ESCAPE) : -1;
      socket.write(end === -1 ? chunk : chunk.subarray(0, end));
      if (end !== -1) socket.destroy();
    });
  }).finally(() => {
    if (isTerminal) stdin.setRawMode(false);
    stdin.pause();
  });
}
