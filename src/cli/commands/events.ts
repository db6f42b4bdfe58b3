/** `events`: what happens in the store, as it happens. */

import { setTimeout as sleep } from 'node:timers/promises';
import { DiskError } from '../../common/errors.js';
import { harmlessJson } from '../../common/harmless-json.js';
import { EVENTS, type EventView } from '../../control/events.js';
import type { DaemonStatus } from '../../control/protocol.js';
import { defineCommand } from '../command.js';
import { onInterrupt } from '../interrupt.js';
import { type Output, plain } from '../output.js';
import type { Session } from '../session.js';

/** How long the next daemon may take until it answers, milliseconds. */
const NEXT_DAEMON_MS = 60_000;
const POLL_MS = 100;

/** Those at which somebody should look. */
const WARNINGS: readonly string[] = [
  'lost',
  'vm.damaged',
  'space.low',
  'space.full',
  'damage.found',
  'daemon.stopping',
];

const NOTES = `Goes on until ctrl-C, or until the daemon ends (exit code 3); when that is restarted
or taken over it goes on with the next one. Plain: "HH:MM:SS  text", in UTC. --json: one document
a line, with "time", "event", "text" and what the event is about; -q: the names of the events.
A reader that does not keep up misses some, and is told how many. Loop devices and mounts are told
of where layerdisk makes or ends them.

Events:
${Object.entries(EVENTS)
  .map(([name, meaning]) => `  ${name.padEnd(18)} ${meaning}`)
  .join('\n')}`;

export const eventsCommand = defineCommand({
  command: 'events',
  describe: 'Tell what happens in the store, as it happens',
  notes: NOTES,
  example: 'layerdisk events --json | jq .text',
  options: (yargs) => yargs,
  run: async (session) => {
    for (;;) {
      const daemon = await session.call('daemon.status', {});
      const end = await listen(session, daemon);
      if (end === 'stopped') throw new DiskError('unreachable', 'the daemon has ended');
      session.hangUp();
      const why = end === 'restart' ? 'is being restarted' : 'died';
      session.stderr.line(`layerdisk: the daemon ${why}: waiting for the next one`);
      await untilNextAnswers(session, daemon.pid);
    }
  },
});

/** @returns how the daemon ended. */
async function listen(
  session: Session,
  { supervisorPid }: DaemonStatus,
): Promise<'stopped' | 'restart' | 'died'> {
  try {
    const { end } = await session.call('events', {}, (event) => show(session, event));
    return end;
  } catch (error) {
    if (!(error instanceof DiskError) || error.code !== 'unreachable') throw error;
    return supervisorPid === undefined ? 'stopped' : 'died';
  }
}

function show({ json, quiet, stdout }: Session, event: EventView): Promise<void> | undefined {
  if (json) stdout.line(harmlessJson(JSON.stringify(event)));
  else stdout.line(quiet ? plain(event.event) : lineOf(stdout, event));
  return stdout.drained();
}

function lineOf(output: Output, { time, event, text }: EventView): string {
  const clock = /T(\d\d:\d\d:\d\d)/.exec(time)?.[1] ?? time;
  const words = plain(text);
  return `${plain(clock)}  ${WARNINGS.includes(event) ? output.style('red', words) : words}`;
}

/** @throws DiskError `unreachable` when none does in time, `interrupted` at a ctrl-C. */
async function untilNextAnswers(session: Session, former: number): Promise<void> {
  const controller = new AbortController();
  const release = onInterrupt(() => controller.abort());
  const end = performance.now() + NEXT_DAEMON_MS;
  try {
    while (performance.now() < end) {
      if (controller.signal.aborted) throw new DiskError('interrupted', 'events was cancelled');
      if (await isAnotherThere(session, former)) return;
      await sleep(POLL_MS);
    }
  } finally {
    release();
  }
  throw new DiskError('unreachable', 'the daemon has ended, and no other answers');
}

async function isAnotherThere(session: Session, former: number): Promise<boolean> {
  try {
    const { pid } = await session.call('daemon.status', {});
    if (pid !== former) return true;
  } catch (error) {
    if (!(error instanceof DiskError) || error.code !== 'unreachable') throw error;
  }
  session.hangUp();
  return false;
}
