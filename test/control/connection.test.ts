/** One client's limits by the clock, and its end, on a socket of memory. */
import { once } from 'node:events';
import { createConnection, type Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { Connection, type ControlLimits } from '../../src/control/connection.js';
import type { Handlers } from '../../src/control/protocol.js';
import { DEFAULT_LIMITS } from '../../src/control/server.js';
import { recordingHandlers } from './recording-handlers.js';
import { recordingLog, serve } from './socket-fixture.js';

const STALL_MS = 60_000;
/** Longer than any tick of the clock. */
const STEP_MS = 20;
/** Longer than the time between two looks of the server at its clients. */
const LOOKS_MS = 1500;

interface ConnectedOptions {
  /** What becomes of what is written: without it, all is read at once. */
  readonly take?: (done: () => void) => void;
  readonly limits?: Partial<ControlLimits>;
}

function connected(handlers: Handlers, options: ConnectedOptions = {}) {
  const { take = (done) => done() } = options;
  const written: string[] = [];
  const socket = new Duplex({
    read() {},
    write: (chunk, _encoding, done) => {
      written.push(String(chunk));
      take(done);
    },
  });
  const { log, lines } = recordingLog();
  const limits = { ...DEFAULT_LIMITS, stallMs: STALL_MS, ...options.limits };
  const connection = new Connection(socket as unknown as Socket, { handlers, log, limits });
  return {
    connection,
    socket,
    lines,
    written,
    send: (text: string) => socket.emit('data', Buffer.from(text)),
  };
}

t.test('a line that comes in drops is as old as its first byte', async (t) => {
  const { connection, socket, lines, send } = connected(recordingHandlers().handlers);
  const before = performance.now();
  send('{');
  const first = performance.now();
  await delay(STEP_MS);
  send('"jsonrpc"');
  connection.check(before + STALL_MS - 1);
  t.notOk(socket.destroyed);
  connection.check(first + STALL_MS + 1);
  t.ok(socket.destroyed);
  t.match(lines, [{ message: /half a message/ }]);
});

t.test('a line is no older than the end of the one before it', async (t) => {
  const { connection, socket, send } = connected(recordingHandlers().handlers);
  const start = performance.now();
  send('{');
  await delay(STEP_MS);
  send('}\n{');
  connection.check(start + STALL_MS + STEP_MS / 2);
  t.notOk(socket.destroyed);
  socket.destroy();
});

/** Sets the clock of the host, for this process; what has passed since some moment stays true. */
function setClock(t: Test, byMs: number): void {
  const { now } = Date;
  Date.now = () => now() + byMs;
  t.teardown(() => {
    Date.now = now;
  });
}

t.test('progress is told on when the clock of the host is set back', async (t) => {
  const { handlers } = recordingHandlers({
    list: async (_params, { progress }) => {
      progress('copying', 1, 3);
      setClock(t, -3_600_000);
      progress('copying', 2, 3);
      return [];
    },
  });
  const { socket, written, send } = connected(handlers, { limits: { progressMs: 0 } });
  send('{"jsonrpc":"2.0","id":1,"method":"list"}\n');
  await new Promise(setImmediate);
  t.match(written, [/"doneBytes":1/, /"doneBytes":2/, /"result"/]);
  socket.destroy();
});

t.test('nobody is taken to stall because the clock of the host was set on', async (t) => {
  const fixture = await serve(t, recordingHandlers().handlers);
  const client = createConnection(fixture.path);
  let dropped = false;
  client.on('close', () => {
    dropped = true;
  });
  client.write('{"jsonrpc":"2.0",');
  await once(client, 'connect');
  await delay(STEP_MS);
  setClock(t, 3_600_000);
  // Looked for every second.
  await delay(LOOKS_MS);
  t.notOk(dropped);
  client.destroy();
});

t.test('what is asked of a daemon that stops is not done', async (t) => {
  let finish: (answer: unknown) => void = () => {};
  const { handlers, calls } = recordingHandlers({
    list: () =>
      new Promise((done) => {
        finish = done;
      }),
  });
  const { connection, socket, send } = connected(handlers);
  send('{"jsonrpc":"2.0","id":1,"method":"list"}\n');
  connection.finish('the daemon is stopping');
  send('{"jsonrpc":"2.0","id":2,"method":"delete","params":{"vm":"web"}}\n');
  t.same(
    calls.map(({ method }) => method),
    ['list'],
  );
  const closed = new Promise((done) => socket.once('close', done));
  finish([]);
  await closed;
  t.ok(connection.idle);
});

/** Answers of a size that no socket takes along at once. */
const LARGE = { list: async () => ['x'.repeat(1024 * 1024)] };
const LIST = (id: number) => `{"jsonrpc":"2.0","id":${id},"method":"list"}\n`;

t.test('an answer is unread for as long as nothing is read, however many there are', async (t) => {
  const reads: (() => void)[] = [];
  const { handlers } = recordingHandlers(LARGE);
  const { connection, socket, lines, send } = connected(handlers, {
    take: (done) => reads.push(done),
  });
  send(LIST(1));
  await delay(STEP_MS);
  send(LIST(2));
  await delay(STEP_MS);
  const second = performance.now();
  reads.shift()?.();
  await delay(1);
  connection.check(second + STALL_MS - 1);
  t.notOk(socket.destroyed, 'one of two was read: the other has its own time');
  reads.shift()?.();
  await delay(1);
  connection.check(performance.now() + 2 * STALL_MS);
  t.notOk(socket.destroyed, 'all is read');
  const third = performance.now();
  send(LIST(3));
  await delay(STEP_MS);
  const fourth = performance.now();
  await delay(STEP_MS);
  send(LIST(4));
  await delay(STEP_MS);
  connection.check(third + STALL_MS - 1);
  t.notOk(socket.destroyed);
  connection.check(fourth + STALL_MS + 1);
  t.ok(socket.destroyed, 'as old as the first of them');
  t.match(lines, [{ message: /does not read its answers/ }]);
});

t.test('what is left when one answer was read is dropped in its turn', async (t) => {
  const reads: (() => void)[] = [];
  const { handlers } = recordingHandlers(LARGE);
  const { connection, socket, send } = connected(handlers, { take: (done) => reads.push(done) });
  send(LIST(1));
  send(LIST(2));
  await delay(1);
  reads.shift()?.();
  await delay(1);
  connection.check(performance.now() + STALL_MS + 1);
  t.ok(socket.destroyed);
});

t.test('one that only stopped sending is written to, unless it has more to read', async (t) => {
  const reads: (() => void)[] = [];
  const { handlers } = recordingHandlers({ ...LARGE, gc: () => new Promise(() => {}) });
  const { connection, socket, written, send } = connected(handlers, {
    take: (done) => reads.push(done),
  });
  send('{"jsonrpc":"2.0","id":1,"method":"gc"}\n');
  connection.check(performance.now());
  t.same(written, [], 'it may still ask');
  socket.emit('end');
  connection.check(performance.now());
  t.same(written, ['\n']);
  connection.check(performance.now());
  reads.shift()?.();
  await delay(1);
  t.same(written, ['\n'], 'not again before that is read');
  socket.destroy();
});

t.test('after what is no message nothing is read or done, but all is answered', async (t) => {
  let finish: (answer: unknown) => void = () => {};
  const { handlers, calls } = recordingHandlers({
    list: (_params, { signal }) =>
      new Promise((done) => {
        finish = () => done([String(signal.aborted)]);
      }),
  });
  const { socket, written, send } = connected(handlers);
  send(LIST(1));
  send('\0\n');
  t.equal(socket.listenerCount('data'), 0);
  t.equal(socket.readableFlowing, true, 'what follows is thrown away');
  t.equal(calls.length, 1);
  t.notOk(socket.destroyed, 'a request is under way');
  const closed = new Promise((done) => socket.once('close', done));
  finish([]);
  await closed;
  t.match(
    written.map((line) => JSON.parse(line)),
    [
      { id: null, error: { code: -32700 } },
      { id: 1, result: ['true'] },
    ],
  );
});
