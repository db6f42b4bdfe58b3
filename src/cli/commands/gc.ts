/** `gc`: removing what nothing refers to any more. */
import { formatSize } from '../../common/units.js';
import { defineCommand, OWN_OPTIONS } from '../command.js';
import { counted } from '../views.js';

export const gcCommand = defineCommand({
  command: 'gc',
  describe: 'Remove files of the store that no VM, snapshot or clone refers to',
  example: 'layerdisk gc --dry-run',
  options: (yargs) =>
    yargs.option('dry-run', {
      group: OWN_OPTIONS,
      type: 'boolean',
      describe: 'Only say what would be removed',
    }),
  run: async (session, args) => {
    const result = await session.call('gc', args['dry-run'] === true ? { dryRun: true } : {});
    const verb = result.dryRun ? 'would remove' : 'removed';
    const total = `${counted(result.files.length, 'file')}, ${formatSize(result.bytes)}`;
    session.show(result, {
      names: () => result.files,
      human: () => [...result.files.map((file) => `${verb} ${file}`), `${verb} ${total}`],
    });
  },
});
