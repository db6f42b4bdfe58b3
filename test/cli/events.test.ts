/** `layerdisk events`: its lines, and the ways it ends. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import t from 'tap';
import type { CallContext, EventView } from '../../src/control/protocol.js';
import { recordingHandlers, STATUS } from '../control/recording-handlers.js';
import { serve } from '../control/socket-fixture.js';
import { CLI, runCli } from './run-cli.js';

const run = promisify(execFile);
const time = '2026-01-02T03:04:05.678Z';

const TOLD: readonly EventView[] = [
  { time, event: 'listening', text: 'listening to the daemon, pid 7', pid: 7 },
  { time, event: 'snapshot.taken', text: 'took web@one', vm: 'web', snapshot: 'one' },
  { time, event: 'lost', text: '3 events were lost', lost: 3 },
];
const HUMAN = TOLD.map(({ text }) => `03:04:05  ${text}\n`).join('');

function tellAll({ event }: CallContext): void {
  for (const each of TOLD) event(each);
}

/** Handlers that tell everything, and then go on until they are cancelled. */
function goingOn() {
  return recordingHandlers({
    events: (_, context) => {
      tellAll(context);
      return new Promise((_done, fail) => {
        context.signal.addEventListener('abort', () => fail(new DOMException('', 'AbortError')));
      });
    },
  });
}

/** What the last line and its hint are. */
function ended(socket: string): string {
  return `layerdisk: the daemon has ended\nhint: layerdisk --socket ${socket} daemon start\n`;
}

t.test('a line an event: for people, as JSON, names', async (t) => {
  const { handlers } = recordingHandlers({
    events: async (_, context) => {
      tellAll(context);
      return { end: 'stopped' };
    },
  });
  const { path } = await serve(t, handlers);
  const shown = [
    [[], HUMAN],
    [['-q'], TOLD.map(({ event }) => `${event}\n`).join('')],
    [['--json'], TOLD.map((event) => `${JSON.stringify(event)}\n`).join('')],
  ] as const;
  for (const [options, expected] of shown) {
    const result = await runCli(['events', ...options, '--socket', path]);
    t.equal(result.stdout, expected);
    t.equal(result.code, 3, 'the daemon has ended');
    if (options.length > 0 && options[0] === '--json') {
      t.match(JSON.parse(result.stderr), { error: { code: 'unreachable' } });
    } else {
      t.equal(result.stderr, ended(path));
    }
  }
});

t.test('ctrl-C ends it with 130', async (t) => {
  const { path } = await serve(t, goingOn().handlers);
  let sent = false;
  const result = await runCli(['events', '--socket', path], {
    onStdout: (text, kill) => {
      if (text === HUMAN && !sent) kill('SIGINT');
      sent = text === HUMAN;
    },
  });
  t.equal(result.code, 130);
  t.equal(result.stdout, HUMAN);
  t.equal(result.stderr, 'layerdisk: events was cancelled\n');
});

t.test('a reader that leaves ends it without a word', async (t) => {
  const { handlers } = recordingHandlers({
    events: (_, context) =>
      new Promise((_done, fail) => {
        const clock = setInterval(() => tellAll(context), 20);
        context.signal.addEventListener('abort', () => {
          clearInterval(clock);
          fail(new DOMException('', 'AbortError'));
        });
      }),
  });
  const { path } = await serve(t, handlers);
  const line = `"${process.execPath}" "${CLI}" events --socket "${path}" | head -1
    echo "\${PIPESTATUS[0]}"`;
  const { stdout, stderr } = await run('bash', ['-c', `unset NODE_OPTIONS; ${line}`]);
  t.equal(stdout, '03:04:05  listening to the daemon, pid 7\n0\n');
  t.equal(stderr, '');
});

t.test('a daemon that dies without a supervisor has ended', async (t) => {
  const { handlers } = recordingHandlers({
    events: async (_, context) => {
      tellAll(context);
      setImmediate(() => void close());
      return new Promise(() => {});
    },
  });
  const { path, close } = await serve(t, handlers, { closeMs: 10 });
  const result = await runCli(['events', '--socket', path]);
  t.equal(result.code, 3);
  t.equal(result.stdout, HUMAN);
  t.equal(result.stderr, ended(path));
});

t.test('no daemon at all', async (t) => {
  const result = await runCli(['events', '--socket', '/nonexistent/socket']);
  t.equal(result.code, 3);
  t.match(result.stderr, /^layerdisk: no daemon answers on .*\nhint: layerdisk .* daemon start\n$/);
});

t.test('it goes on with the next daemon', async (t) => {
  let generation = 0;
  const { handlers } = recordingHandlers({
    'daemon.status': async () => ({ ...STATUS, pid: STATUS.pid + generation }),
    events: async (_, context) => {
      generation += 1;
      tellAll(context);
      return { end: generation < 3 ? 'restart' : 'stopped' };
    },
  });
  const { path } = await serve(t, handlers);
  const result = await runCli(['events', '--socket', path]);
  t.equal(result.code, 3);
  t.equal(result.stdout, HUMAN.repeat(3));
  const waiting = 'layerdisk: the daemon is being restarted: waiting for the next one\n';
  t.equal(result.stderr, `${waiting.repeat(2)}${ended(path)}`);
});

t.test('ctrl-C while it waits for the next daemon', async (t) => {
  const { handlers } = recordingHandlers({ events: async () => ({ end: 'restart' }) });
  const { path } = await serve(t, handlers);
  const result = await runCli(['events', '--socket', path], {
    onStderr: (text, kill) => {
      if (text.endsWith('next one\n')) setTimeout(() => kill('SIGINT'), 300);
    },
  });
  t.equal(result.code, 130);
  t.match(result.stderr, /layerdisk: (events|daemon\.status) was cancelled\n$/);
});
