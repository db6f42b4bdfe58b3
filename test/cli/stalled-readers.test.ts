/** Readers of long output that are slower than it comes: what they have not taken is not kept. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import type { CallContext } from '../../src/control/protocol.js';
import { recordingHandlers } from '../control/recording-handlers.js';
import { serve } from '../control/socket-fixture.js';
import { CLI } from './run-cli.js';

const MIB = 2 ** 20;

function start(words: readonly string[]): ChildProcess {
  const command = ['-u', 'NODE_OPTIONS', process.execPath, CLI, ...words];
  return spawn('env', command, { stdio: ['ignore', 'pipe', 'pipe'] });
}

/** Reads nothing for a while, then all of it. @param taken told how many bytes came. */
async function readLate(child: ChildProcess, taken: (bytes: number) => void): Promise<string> {
  // Whoever does not wait for the reader is far ahead by then; to the others it makes no odds.
  await sleep(2000);
  const chunks: Buffer[] = [];
  for await (const chunk of child.stdout!) {
    chunks.push(chunk);
    taken(chunk.length);
  }
  return Buffer.concat(chunks).toString();
}

const PAGES = 100;
const PAGE_EXTENTS = 1000;
/** The least that a page takes on paper. */
const PAGE_BYTES = PAGE_EXTENTS * 40;

t.test('a map and a diff are asked for as they are read', async (t) => {
  let taken = 0;
  let asked = 0;
  let ahead = 0;
  const look = () => {
    ahead = Math.max(ahead, asked * PAGE_BYTES - taken);
    asked += 1;
  };
  const places = (from: number) =>
    Array.from({ length: PAGE_EXTENTS }, (_, index) => (from * PAGE_EXTENTS + index) * 8192);
  const { handlers } = recordingHandlers({
    map: async ({ start: from }) => {
      look();
      const extents = places(from ?? 0).map((start) => ({
        ...{ start, length: 4096, depth: 0, present: true, zero: false, data: true },
        ...{ offset: start * 2, file: '/images/some.raw' },
      }));
      const next = (from ?? 0) + 1;
      return { extents, ...(next === PAGES ? {} : { next }) };
    },
    'snapshot.diff': async ({ next: from }) => {
      look();
      const at = from?.start ?? 0;
      const extents = places(at).map((start) => ({ start, length: 4096, zero: false }));
      const changedBytes = 4096 * PAGE_EXTENTS;
      const sizes = { fromSize: 2 ** 40, toSize: 2 ** 40 };
      const disks = [{ disk: 'disk0', ...sizes, extents, changedBytes }];
      const next = at + 1 === PAGES ? {} : { next: { disk: 'disk0', start: at + 1 } };
      return { vm: 'web', from: 'one', disks, ...next };
    },
  });
  const { path } = await serve(t, handlers);
  const lines = [
    ['map', 'web'],
    ['map', 'web', '--json'],
    ['snapshot', 'diff', 'web@one', '--json'],
  ];
  for (const line of lines) {
    [taken, asked, ahead] = [0, 0, 0];
    const child = start([...line, '--socket', path]);
    const text = await readLate(child, (bytes) => {
      taken += bytes;
    });
    t.equal(asked, PAGES, line.join(' '));
    t.ok(ahead < MIB / 2, `never further ahead of the reader than ${ahead} bytes`);
    if (line.includes('--json')) t.ok(JSON.parse(text), 'nothing is missing');
  }
});

/** Tells much in small portions, so that whoever reads on can keep up. */
async function tellMuch({ event }: CallContext): Promise<void> {
  const text = 'x'.repeat(1000);
  for (let at = 0; at < 5000; at++) {
    event({ time: '2026-01-02T03:04:05.678Z', event: 'vm.created', text });
    if (at % 20 === 0) await sleep(5);
  }
}

t.test('events that nobody reads are left out, and told of', async (t) => {
  let told: () => void = () => undefined;
  const all = new Promise<void>((done) => {
    told = done;
  });
  const { handlers } = recordingHandlers({
    events: async (_, context) => {
      await tellMuch(context);
      told();
      return { end: 'stopped' };
    },
  });
  const { path } = await serve(t, handlers);
  const child = start(['events', '--json', '--socket', path]);
  await all;
  const text = await readLate(child, () => undefined);
  const events = text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as { event: string; lost?: number });
  const lost = events.reduce((sum, each) => sum + (each.lost ?? 0), 0);
  const shown = events.filter(({ event }) => event === 'vm.created').length;
  t.ok(lost > 0, `${lost} are told to be lost`);
  t.equal(shown + lost, 5000, 'all others are there');
});

t.test('ctrl-C where nobody reads events', async (t) => {
  let told: () => void = () => undefined;
  const all = new Promise<void>((done) => {
    told = done;
  });
  const { handlers } = recordingHandlers({
    events: async (_, context) => {
      await tellMuch(context);
      told();
      return new Promise((_done, fail) => {
        const end = () => fail(new DOMException('', 'AbortError'));
        if (context.signal.aborted) end();
        context.signal.addEventListener('abort', end);
      });
    },
  });
  const { path } = await serve(t, handlers);
  const child = start(['events', '--socket', path]);
  await all;
  child.kill('SIGINT');
  const [message] = await once(child.stderr!, 'data');
  t.equal(String(message), 'layerdisk: events was cancelled\n');
  child.stdout!.resume();
  t.strictSame(await once(child, 'close'), [130, null]);
});
