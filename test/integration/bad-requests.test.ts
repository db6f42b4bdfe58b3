/** Clients of the control socket that misbehave harm nobody else, and the daemon outlives them. */
import { randomBytes } from 'node:crypto';
import t, { type Test } from 'tap';
import { ControlSocket } from '../support/control-socket.js';
import { startDaemon, type TestDaemon } from '../support/daemon.js';
import { cannotServe } from '../support/mount-guard.js';
import { stateOf } from '../support/refusal.js';

const request = (method: unknown, params: unknown, id: unknown = 1) =>
  `${JSON.stringify({ jsonrpc: '2.0', id, method, params })}\n`;

/** What is sent, and whether an error must come back (true) or anything may (undefined). */
const RUBBISH: Readonly<Record<string, readonly [string | Buffer, boolean?]>> = {
  'not JSON': ['hello\n', true],
  'half an object': ['{"jsonrpc":"2.0"\n', true],
  'an empty object': ['{}\n', true],
  'a number': ['7\n', true],
  'a batch': ['[{"jsonrpc":"2.0","id":1,"method":"list"}]\n', true],
  'an unknown method': [request('explode', {}), true],
  'a method of every object': [request('constructor', {}), true],
  'another one': [request('__proto__', {}), true],
  'no method': [request(undefined, {}), true],
  'parameters of the wrong kind': [request('info', 'web'), true],
  'a parameter of the wrong type': [request('info', { vm: { toString: 1 } }), true],
  'an unknown parameter': [request('create', { vm: 'x', disks: [], explode: true }), true],
  'a size that is no integer': [request('create', { vm: 'x', disks: [{ size: 0.5 }] }), true],
  'a size past all limits': [request('create', { vm: 'x', disks: [{ size: 2 ** 60 }] }), true],
  'a path as a name': [request('info', { vm: '../../etc/passwd' }), true],
  'a relative path': [request('import', { files: ['x.img'], vm: 'x' }), true],
  'a NUL in a path': [request('import', { files: ['/tmp/x\0y'], vm: 'x' }), true],
  'brackets without end': [`${'['.repeat(100_000)}\n`, true],
  'a line that is too long': [`"${'x'.repeat(2 * 1024 * 1024)}"\n`],
  'bytes that are no text': [Buffer.concat([randomBytes(4096), Buffer.from('\n')])],
  'many empty lines': ['\n'.repeat(10_000)],
};

async function checkAlive(t: Test, daemon: TestDaemon, neighbour: ControlSocket) {
  t.ok(Array.isArray(await neighbour.call('list', {})), 'a neighbour is served');
  const fresh = await ControlSocket.connect(daemon.socket);
  t.match(await fresh.call('daemon.status', {}), { pid: daemon.pid }, 'and so is a new client');
  fresh.destroy();
}

async function checkRubbish(
  t: Test,
  daemon: TestDaemon,
  neighbour: ControlSocket,
  [bytes, refused]: readonly [string | Buffer, boolean?],
) {
  const before = await stateOf(daemon);
  const client = await ControlSocket.connect(daemon.socket);
  client.send(bytes);
  if (refused === true) {
    const answer = await client.next();
    t.ok(answer?.error !== undefined, `an error comes back: ${JSON.stringify(answer)}`);
    t.match(answer?.error?.message, /^[^\n]+$/, 'in one line');
  }
  await checkAlive(t, daemon, neighbour);
  client.destroy();
  t.same(await stateOf(daemon), before, 'nothing changed');
}

async function checkPieces(t: Test, daemon: TestDaemon) {
  const client = await ControlSocket.connect(daemon.socket);
  for (const byte of request('list', {})) {
    client.send(byte);
    await new Promise((resolve) => setImmediate(resolve));
  }
  t.match(await client.next(), { id: 1, result: [] }, 'a request in many pieces');
  client.send([1, 2, 3, 4, 5].map((id) => request('list', {}, id)).join(''));
  const answers = [];
  for (let count = 0; count < 5; count += 1) answers.push(Number((await client.next())?.id));
  const inOrder = answers.sort((a, b) => a - b);
  t.same(inOrder, [1, 2, 3, 4, 5], 'many requests in one piece');
  client.destroy();
}

async function checkVanishing(t: Test, daemon: TestDaemon, neighbour: ControlSocket) {
  for (let count = 0; count < 50; count += 1) {
    const client = await ControlSocket.connect(daemon.socket);
    if (count % 2 === 0) client.send('{"jsonrpc":"2.0","id":1,"method":"li');
    client.destroy();
  }
  await checkAlive(t, daemon, neighbour);

  // Made or not made when its client is gone, but not half.
  const client = await ControlSocket.connect(daemon.socket);
  client.send(request('create', { vm: 'orphan', disks: [{ size: 1024 * 1024 }] }));
  client.destroy();
  await checkAlive(t, daemon, neighbour);
  for (const { name } of await neighbour.call<{ name: string }[]>('list', {})) {
    t.match(await neighbour.call('info', { vm: name }), { disks: [{ size: 1024 * 1024 }] });
  }
}

async function checkCrowd(t: Test, daemon: TestDaemon, neighbour: ControlSocket) {
  const clients = [];
  for (let count = 0; count < 200; count += 1) {
    clients.push(await ControlSocket.connect(daemon.socket));
  }
  await checkAlive(t, daemon, neighbour);
  for (const client of clients) client.destroy();
}

t.test('misbehaving clients', { skip: cannotServe() }, async (t) => {
  const daemon = await startDaemon(t);
  const neighbour = await ControlSocket.connect(daemon.socket);
  t.teardown(() => neighbour.destroy());
  for (const [name, row] of Object.entries(RUBBISH)) {
    await t.test(name, (t) => checkRubbish(t, daemon, neighbour, row));
  }

  await t.test('requests in pieces and in heaps', (t) => checkPieces(t, daemon));
  await t.test('many silent clients', (t) => checkCrowd(t, daemon, neighbour));
  await t.test('clients that vanish', (t) => checkVanishing(t, daemon, neighbour));
});
