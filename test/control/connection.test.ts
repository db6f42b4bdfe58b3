/** One client's limits by the clock, and its end, on a socket of memory. */
import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import t from 'tap';
import { Connection } from '../../src/control/connection.js';
import type { Handlers } from '../../src/control/protocol.js';
import { DEFAULT_LIMITS } from '../../src/control/server.js';
import { recordingHandlers } from './recording-handlers.js';
import { recordingLog } from './socket-fixture.js';

const STALL_MS = 60_000;
/** Longer than any tick of the clock. */
const STEP_MS = 20;

function connected(handlers: Handlers) {
  const socket = new Duplex({ read() {}, write: (_chunk, _encoding, done) => done() });
  const { log, lines } = recordingLog();
  const limits = { ...DEFAULT_LIMITS, stallMs: STALL_MS };
  const connection = new Connection(socket as unknown as Socket, { handlers, log, limits });
  return {
    connection,
    socket,
    lines,
    send: (text: string) => socket.emit('data', Buffer.from(text)),
  };
}

t.test('a line that comes in drops is as old as its first byte', async (t) => {
  const { connection, socket, lines, send } = connected(recordingHandlers().handlers);
  const start = Date.now();
  send('{');
  await delay(STEP_MS);
  send('"jsonrpc"');
  connection.check(start + STALL_MS - 1);
  t.notOk(socket.destroyed);
  connection.check(start + STALL_MS + STEP_MS / 2);
  t.ok(socket.destroyed);
  t.match(lines, [{ message: /half a message/ }]);
});

t.test('a line is no older than the end of the one before it', async (t) => {
  const { connection, socket, send } = connected(recordingHandlers().handlers);
  const start = Date.now();
  send('{');
  await delay(STEP_MS);
  send('}\n{');
  connection.check(start + STALL_MS + STEP_MS / 2);
  t.notOk(socket.destroyed);
  socket.destroy();
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
