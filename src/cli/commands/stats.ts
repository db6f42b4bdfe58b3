/** `stats`: what the daemon has done and what it takes. */
import { formatSize } from '../../common/units.js';
import type { IoStats, StatsView } from '../../control/protocol.js';
import { parseVm } from '../arguments.js';
import { defineCommand } from '../command.js';
import type { Output } from '../output.js';
import { formatDuration } from '../progress.js';
import { type Column, fieldLines, tableLines } from '../table.js';
import { spaceFields } from '../views.js';

interface IoRow {
  readonly name: string;
  readonly io: IoStats;
}

const IO_COLUMNS: readonly Column<IoRow>[] = [
  { title: 'DISK', cell: (row) => row.name },
  { title: 'READS', align: 'right', cell: ({ io }) => String(io.reads) },
  { title: 'READ', align: 'right', cell: ({ io }) => formatSize(io.readBytes) },
  { title: 'WRITES', align: 'right', cell: ({ io }) => String(io.writes) },
  { title: 'WRITTEN', align: 'right', cell: ({ io }) => formatSize(io.writtenBytes) },
  { title: 'FLUSHES', align: 'right', cell: ({ io }) => String(io.flushes) },
  { title: 'DISCARDS', align: 'right', cell: ({ io }) => String(io.discards) },
];

function statsLines(output: Output, stats: StatsView): string[] {
  const rows: IoRow[] = (stats.vms ?? []).map((one) => ({
    name: `${one.name}/${one.disk}`,
    io: one.io,
  }));
  const { storeBytes: used, storeFreeBytes: free } = stats;
  return [
    ...fieldLines(output, [
      ['up for', formatDuration(stats.uptimeSeconds)],
      ['memory', formatSize(stats.rssBytes)],
      ['index', formatSize(stats.indexBytes)],
      ['open disks', String(stats.openDisks)],
      ['file system', `${formatSize(used)} used, ${formatSize(free)} free`],
      ...spaceFields(stats.space),
    ]),
    '',
    ...tableLines(output, IO_COLUMNS, [...rows, { name: 'all', io: stats.io }]),
  ];
}

export const statsCommand = defineCommand({
  command: 'stats [vm]',
  describe: 'Show what the daemon has done since it started, and what it takes',
  example: 'layerdisk stats web',
  options: (yargs) => yargs.positional('vm', { type: 'string', describe: 'Only this VM' }),
  run: async (session, args) => {
    const stats = await session.call(
      'stats',
      args.vm === undefined ? {} : { vm: parseVm(args.vm) },
    );
    session.show(stats, {
      names: () => [...new Set((stats.vms ?? []).map((one) => one.name))],
      human: (_, output) => statsLines(output, stats),
    });
  },
});
