/** `compact`: giving back space that a VM takes and nobody needs. */
import { formatSize } from '../../common/units.js';
import { parseVm } from '../arguments.js';
import { defineCommand } from '../command.js';
import { plain } from '../output.js';

const NOTES = `Works while the VM is in use, and changes no byte of its disks or snapshots.
Given back are blocks of deleted snapshots that later writes hide, and blocks that hold only zeroes.
What a file system calls free still holds old data: let it discard that first, by \`fstrim -a\`
inside the guest, or \`layerdisk mount VM DIR\` and \`fstrim DIR\`. Static disks keep their space.`;

export const compactCommand = defineCommand({
  command: 'compact <vm>',
  describe: 'Give back space of a VM that nobody needs',
  notes: NOTES,
  example: 'layerdisk compact web',
  options: (yargs) => yargs.positional('vm', { type: 'string', demandOption: true }),
  run: async (session, args) => {
    const result = await session.call('compact', { vm: parseVm(args.vm) });
    const { vm, storedBefore, storedSize, bytesRead, left } = result;
    for (const line of left) session.stderr.line(`layerdisk: left as it is: ${plain(line)}`);
    const sizes = `${formatSize(storedBefore)} -> ${formatSize(storedSize)}`;
    session.show(result, {
      names: () => [vm],
      human: () => [`compacted ${vm}: ${sizes}; read ${formatSize(bytesRead)}`],
    });
  },
});
