/** `daemon start|stop|restart|status`. */
import { DiskError } from '../../common/errors.js';
import type { DaemonStatus } from '../../control/protocol.js';
import { parseChoice, parseCount, parseSizeOption } from '../arguments.js';
import { defineCommand, defineGroup, OWN_OPTIONS } from '../command.js';
import { ON_FULL, TRANSPORTS } from '../configuration.js';
import type { Output } from '../output.js';
import type { Session } from '../session.js';
import { fieldLines } from '../table.js';
import { spaceFields } from '../views.js';

/** How long `daemon stop` waits for the process to end after it agreed to, milliseconds. */
const STOP_TIMEOUT_MS = 60_000;
/** How long the next daemon may take until it answers, milliseconds. */
const RESTART_TIMEOUT_MS = 60_000;
const RESTART_POLL_MS = 50;
/** So many holders are named in an error. */
const MAX_HOLDERS = 3;

function statusLines(output: Output, status: DaemonStatus): string[] {
  return fieldLines(output, [
    ['version', status.version],
    ['pid', String(status.pid)],
    ['supervisor', supervisorText(status)],
    ['store', status.store],
    ['mountpoint', status.mountpoint],
    ['transport', status.transport],
    ['threads', String(status.threads)],
    ['other users', status.allowOther ? 'may see the mount' : 'may not see the mount'],
    ['started', status.startedAt],
    ['VMs', String(status.vms)],
    ['open disks', String(status.openDisks)],
    ...spaceFields(status.space),
  ]);
}

function supervisorText({ supervisorPid, transport }: DaemonStatus): string {
  if (supervisorPid !== undefined) return `pid ${supervisorPid}`;
  if (transport !== 'kernel') return 'none: this transport cannot be taken over';
  return 'none: if the daemon dies, its mount dies, too';
}

const startCommand = defineCommand({
  command: 'start',
  describe: 'Start the daemon and return when it is ready',
  notes: 'Its log is daemon.log in the store; with --foreground it is on stderr.',
  example: 'layerdisk daemon start --store ~/scratch --threads 2',
  options: (yargs) =>
    yargs
      .option('foreground', {
        group: OWN_OPTIONS,
        type: 'boolean',
        describe: 'Stay in the foreground',
      })
      .option('mountpoint', {
        group: OWN_OPTIONS,
        type: 'string',
        requiresArg: true,
        describe: 'Folder the disks are shown in',
      })
      .option('transport', {
        group: OWN_OPTIONS,
        type: 'string',
        requiresArg: true,
        describe: `How they are shown: ${TRANSPORTS.join(', ')}`,
      })
      .option('threads', {
        group: OWN_OPTIONS,
        type: 'string',
        requiresArg: true,
        describe: 'I/O threads',
      })
      .option('allow-other', {
        group: OWN_OPTIONS,
        type: 'boolean',
        describe: 'Let other users see the mount',
      })
      .option('verify-reads', {
        group: OWN_OPTIONS,
        type: 'boolean',
        describe: 'Refuse bytes that rotted on the host disk (EIO)',
      })
      .option('accept-copy', {
        group: OWN_OPTIONS,
        type: 'boolean',
        describe: 'Take a store that was copied while it was in use',
      })
      .option('reserve', {
        group: OWN_OPTIONS,
        type: 'string',
        requiresArg: true,
        describe: 'Space that disks never take, kept for deletes and flushes; 0 for none',
      })
      .option('on-full', {
        group: OWN_OPTIONS,
        type: 'string',
        requiresArg: true,
        describe: 'What a write without room does: report (ENOSPC) or pause (it waits)',
      })
      .option('no-supervise', {
        group: OWN_OPTIONS,
        type: 'boolean',
        describe: 'Do not start it anew if it dies',
      }),
  run: async (session, args) => {
    const { configuration } = session;
    const { mountpoint } = args;
    const places = session.placesWith(mountpoint === undefined ? {} : { mountpoint });
    const transport =
      args.transport === undefined
        ? configuration.transport
        : parseChoice(args.transport, '--transport', TRANSPORTS);
    const threads =
      args.threads === undefined ? configuration.threads : parseCount(args.threads, '--threads');
    const reserve = args.reserve ?? configuration.reserve;
    const wanted = args['on-full'];
    const onFull =
      wanted === undefined ? configuration.onFull : parseChoice(wanted, '--on-full', ON_FULL);
    const { daemonProgram, runInForeground, startInBackground } = await import(
      '../daemon-process.js'
    );
    const options = {
      ...places,
      ...(transport === undefined ? {} : { transport }),
      ...(threads === undefined ? {} : { threads }),
      allowOther: args['allow-other'] === true || configuration.allowOther === true,
      verifyReads: args['verify-reads'] === true || configuration.verifyReads === true,
      acceptCopy: args['accept-copy'] === true,
      ...(onFull === undefined ? {} : { onFull }),
      ...(reserve === undefined ? {} : { reserve: parseSizeOption(String(reserve), '--reserve') }),
      supervise: args['no-supervise'] !== true,
    };
    await refuseSecond(places.socket);
    if (args.foreground === true) {
      await runInForeground(daemonProgram(), options);
      return;
    }
    await startInBackground(daemonProgram(), options);
    const status = await session.call('daemon.status', {});
    const result = { ...status, socket: places.socket };
    session.show(result, {
      names: () => [status.mountpoint],
      human: (_, output) =>
        fieldLines(output, [
          ['mountpoint', status.mountpoint],
          ['socket', places.socket],
        ]),
    });
  },
});

/** Asks over a connection of its own. @throws DiskError `unreachable` when nobody listens. */
async function statusAt(socket: string): Promise<DaemonStatus> {
  const { connect } = await import('../../control/client.js');
  const client = await connect(socket);
  return await client.call('daemon.status', {}).finally(() => client.close());
}

/** In a folder that is closed to this user there need not be a socket at all. */
const NOBODY_ANSWERS: ReadonlySet<string> = new Set(['unreachable', 'not-permitted']);

/**
 * @throws DiskError `exists` when a daemon answers already; whatever else is wrong the new daemon
 * finds out.
 */
async function refuseSecond(socket: string): Promise<void> {
  let running: DaemonStatus;
  try {
    running = await statusAt(socket);
  } catch (error) {
    if (error instanceof DiskError && NOBODY_ANSWERS.has(error.code)) return;
    throw error;
  }
  throw new DiskError('exists', `a daemon (pid ${running.pid}) already serves ${running.store}`, {
    hint: 'layerdisk daemon status, or start one on another --store',
  });
}

const stopCommand = defineCommand({
  command: 'stop',
  describe: 'Stop the daemon and return when it is gone and its mount with it',
  example: 'layerdisk daemon stop',
  options: (yargs) => yargs,
  run: async (session) => {
    const { pid, supervisorPid, mountpoint } = await session.call('daemon.status', {});
    await askToStop(session, mountpoint);
    const { waitForExit } = await import('../daemon-process.js');
    for (const one of supervisorPid === undefined ? [pid] : [pid, supervisorPid]) {
      if (await waitForExit(one, STOP_TIMEOUT_MS)) continue;
      const error = new DiskError('busy', `the daemon (pid ${one}) agreed to stop but still runs`);
      throw await withHolders(error, mountpoint);
    }
    session.show({}, { names: () => [], human: () => [`stopped the daemon (pid ${pid})`] });
  },
});

async function askToStop(session: Session, mountpoint: string): Promise<void> {
  try {
    await session.call('daemon.stop', {});
  } catch (error) {
    if (!(error instanceof DiskError)) throw error;
    // It may be gone faster than its answer.
    if (error.code === 'unreachable') return;
    throw error.code === 'busy' ? await withHolders(error, mountpoint) : error;
  }
}

/** The same error, saying who else keeps the mount busy. */
async function withHolders(error: DiskError, mountpoint: string): Promise<DiskError> {
  const { holdersOf } = await import('../holders.js');
  const holders = holdersOf(mountpoint).filter((each) => !isNamed(each, error.message));
  if (holders.length === 0) return error;
  const more = holders.length > MAX_HOLDERS ? `, and ${holders.length - MAX_HOLDERS} more` : '';
  const named = `${holders.slice(0, MAX_HOLDERS).join(', ')}${more}`;
  return new DiskError(error.code, `${error.message}; ${mountpoint} is held by ${named}`, {
    hint: error.hint ?? 'end these first; loop devices: layerdisk detach DEVICE',
    cause: error,
  });
}

/** Whether an error says already who it is: `/dev/loop1`, `dd (pid 12)`. */
function isNamed(holder: string, message: string): boolean {
  const who = holder.slice(0, holder.indexOf(': /'));
  return message.split(/, |; | by /).includes(who);
}

const restartCommand = defineCommand({
  command: 'restart',
  describe: 'Start the program anew (an upgrade, say) without a moment of downtime',
  notes:
    'The mount and whatever uses it stay; requests wait until the new process serves them. ' +
    'Jobs under way (import, clone) are cancelled.',
  example: 'layerdisk daemon restart',
  options: (yargs) => yargs,
  run: async (session) => {
    const before = await session.call('daemon.status', {});
    await session.call('daemon.restart', {});
    const status = await untilAnotherAnswers(session, before);
    session.show(status, {
      names: () => [String(status.pid)],
      human: () => [`the daemon is now pid ${status.pid}, version ${status.version}`],
    });
  },
});

/**
 * @throws DiskError `failed` when no other process answers in time, or there is none any more that
 * would start it.
 */
async function untilAnotherAnswers(
  session: Session,
  { pid, supervisorPid }: DaemonStatus,
): Promise<DaemonStatus> {
  const { setTimeout: sleep } = await import('node:timers/promises');
  const { isAlive } = await import('../daemon-process.js');
  const end = performance.now() + RESTART_TIMEOUT_MS;
  let isHopeless = false;
  while (performance.now() < end && !isHopeless) {
    // Looked at first: what it started before it ended is asked once more.
    const isSupervised = supervisorPid !== undefined && isAlive(supervisorPid);
    try {
      const status = await statusAt(session.places.socket);
      if (status.pid !== pid) return status;
    } catch (error) {
      // Nobody listens in between.
      if (!(error instanceof DiskError) || error.code !== 'unreachable') throw error;
      isHopeless = !isSupervised;
    }
    await sleep(RESTART_POLL_MS);
  }
  const what = isHopeless ? 'no daemon runs any more: the restart failed' : 'no new daemon answers';
  throw new DiskError('failed', what, {
    hint: 'see daemon.log in the store',
  });
}

const statusCommand = defineCommand({
  command: 'status',
  describe: 'Show what the daemon serves',
  example: 'layerdisk daemon status --json',
  options: (yargs) => yargs,
  run: async (session) => {
    const status = await session.call('daemon.status', {});
    session.show(status, {
      names: () => [status.store],
      human: (_, output) => statusLines(output, status),
    });
  },
});

export const daemonGroup = defineGroup('daemon', 'Start and stop the daemon, and ask how it is', [
  startCommand,
  stopCommand,
  restartCommand,
  statusCommand,
]);
