/** `stats`: what the daemon has done and what it takes. */
import { DiskError } from '../../common/errors.js';
import { formatSize } from '../../common/units.js';
import type { IoStats } from '../../control/protocol.js';
import { parseVm } from '../arguments.js';
import { defineCommand, OWN_OPTIONS } from '../command.js';
import type { Output } from '../output.js';
import { formatDuration } from '../progress.js';
import type { Session } from '../session.js';
import { type IoRates, type WatchedStats, watchStats } from '../stats-watch.js';
import { type Column, fieldLines, tableLines } from '../table.js';
import { spaceFields } from '../views.js';

/** On a terminal each look takes the place of the one before it. */
const CLEAR_SCREEN = '\u001b[H\u001b[2J';

interface IoRow {
  readonly name: string;
  readonly io: IoStats;
  readonly perSecond?: IoRates;
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

/** What counters grow by while they are watched. */
function rate(title: string, field: keyof IoRates, show: (value: number) => string): Column<IoRow> {
  const cell = ({ perSecond }: IoRow) => (perSecond === undefined ? '-' : show(perSecond[field]));
  return { title, align: 'right', cell };
}

const RATE_COLUMNS: readonly Column<IoRow>[] = [
  { title: 'DISK', cell: (row) => row.name },
  rate('READS/S', 'reads', String),
  rate('READ/S', 'readBytes', formatSize),
  rate('WRITES/S', 'writes', String),
  rate('WRITTEN/S', 'writtenBytes', formatSize),
  rate('FLUSHES/S', 'flushes', String),
  rate('DISCARDS/S', 'discards', String),
];

function statsLines(
  output: Output,
  stats: WatchedStats,
  columns: readonly Column<IoRow>[],
): string[] {
  const { io, perSecond } = stats;
  const rows: IoRow[] = (stats.vms ?? []).map((one) => ({
    ...one,
    name: `${one.name}/${one.disk}`,
  }));
  const all = { name: 'all', io, ...(perSecond === undefined ? {} : { perSecond }) };
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
    ...tableLines(output, columns, [...rows, all]),
  ];
}

export const statsCommand = defineCommand({
  command: 'stats [vm]',
  describe: 'Show what the daemon has done since it started, and what it takes',
  notes:
    '--watch shows every second what was done in it, until ctrl-C; with --json one document a ' +
    'line, which has "perSecond" from the second one on.',
  example: 'layerdisk stats web --watch',
  options: (yargs) =>
    yargs.positional('vm', { type: 'string', describe: 'Only this VM' }).option('watch', {
      group: OWN_OPTIONS,
      type: 'boolean',
      describe: 'Again every second, with what was done since',
    }),
  run: async (session, args) => {
    const params = args.vm === undefined ? {} : { vm: parseVm(args.vm) };
    if (args.watch === true) {
      refuseNames(session);
      await watchStats(session, params, (stats) => showWatched(session, stats));
    }
    const stats = await session.call('stats', params);
    session.show(stats, {
      names: () => [...new Set((stats.vms ?? []).map((one) => one.name))],
      human: (_, output) => statsLines(output, stats, IO_COLUMNS),
    });
  },
});

function refuseNames({ quiet, json }: Session): void {
  if (!quiet || json) return;
  throw new DiskError('usage', 'stats: --watch does not go with -q: names do not change', {
    hint: 'leave one of them out',
  });
}

function showWatched({ stdout, json }: Session, stats: WatchedStats): void {
  if (json) {
    stdout.line(JSON.stringify(stats));
    return;
  }
  const lines = statsLines(stdout, stats, RATE_COLUMNS).join('\n');
  // In one piece, so that a terminal does not flicker; in a file an empty line parts them.
  stdout.raw(stdout.isTerminal ? `${CLEAR_SCREEN}${lines}\n` : `${lines}\n\n`);
}
