/**
 * Whatever one client does, it harms no one else: after each of these a good client is served as
 * before.
 */
import t, { type Test } from 'tap';
import { DiskError } from '../../src/common/errors.js';
import { connect } from '../../src/control/client.js';
import { recordingHandlers, STATUS } from './recording-handlers.js';
import { type Fixture, RawClient, serve } from './socket-fixture.js';

const MiB = 1024 * 1024;

async function isServed(t: Test, fixture: Fixture): Promise<void> {
  const client = await connect(fixture.path);
  t.same(await client.call('daemon.status', {}), STATUS, 'a good client is served');
  client.close();
}

t.test('rubbish: each line is answered, and good lines between it too', async (t) => {
  const { handlers } = recordingHandlers();
  const fixture = await serve(t, handlers);
  const client = new RawClient(fixture.path);
  const lines: [string, number, unknown][] = [
    ['this is not JSON', -32700, null],
    ['{"jsonrpc":"2.0","id":1,', -32700, null],
    ['[]', -32600, null],
    ['[{"jsonrpc":"2.0","id":1,"method":"list"}]', -32600, null],
    ['42', -32600, null],
    ['null', -32600, null],
    ['"text"', -32600, null],
    ['{}', -32600, null],
    ['{"jsonrpc":"1.0","id":7,"method":"list"}', -32600, 7],
    ['{"jsonrpc":"2.0","id":7}', -32600, 7],
    ['{"jsonrpc":"2.0","id":7,"method":5}', -32600, 7],
    ['{"jsonrpc":"2.0","id":null,"method":"list"}', -32600, null],
    ['{"jsonrpc":"2.0","id":{"a":1},"method":"list"}', -32600, null],
    [`{"jsonrpc":"2.0","id":"${'x'.repeat(200)}","method":"list"}`, -32600, null],
    ['{"jsonrpc":"2.0","id":7,"method":"nonsense"}', -32601, 7],
    ['{"jsonrpc":"2.0","id":7,"method":"__proto__"}', -32601, 7],
    ['{"jsonrpc":"2.0","id":7,"method":"constructor"}', -32601, 7],
    ['{"jsonrpc":"2.0","id":7,"method":"info","params":[1]}', -32602, 7],
    ['{"jsonrpc":"2.0","id":7,"method":"info","params":"web"}', -32602, 7],
    [`${'['.repeat(100_000)}`, -32700, null],
    [`${'['.repeat(100_000)}${']'.repeat(100_000)}`, -32600, null],
  ];
  for (const [line, code, id] of lines) {
    client.send(`${line}\n`);
    const answer = await client.next();
    t.equal(answer.error?.code, code, line.slice(0, 60));
    t.equal(answer.id, id);
    t.match(answer.error?.data, { code: /usage|not-supported/ });
  }
  client.request(8, 'list');
  t.equal((await client.next()).id, 8);
  client.destroy();
  await isServed(t, fixture);
});

t.test('binary rubbish: refused and closed', async (t) => {
  const { handlers } = recordingHandlers();
  const fixture = await serve(t, handlers);
  const client = new RawClient(fixture.path);
  client.send(Buffer.from([0x16, 0x03, 0x01, 0x00, 0xff, 0xfe, 0x0a, 0x0a]));
  t.match(await client.next(), { error: { code: -32700 }, id: null });
  await client.closed;
  await isServed(t, fixture);
});

t.test('more than a megabyte without a newline: refused and closed', async (t) => {
  const { handlers } = recordingHandlers();
  const fixture = await serve(t, handlers);
  const client = new RawClient(fixture.path);
  for (let sent = 0; sent <= 8 * MiB; sent += MiB) client.send(Buffer.alloc(MiB, 0x20));
  t.match(await client.next(), { error: { code: -32700, message: /longer than 1048576/ } });
  await client.closed;
  await isServed(t, fixture);
});

t.test('exactly a megabyte is a message', async (t) => {
  const { handlers, calls } = recordingHandlers();
  const fixture = await serve(t, handlers);
  const client = new RawClient(fixture.path);
  const head = '{"jsonrpc":"2.0","id":1,"method":"list"';
  client.send(`${head}${' '.repeat(MiB - head.length - 1)}}\n`);
  t.equal((await client.next()).id, 1);
  t.equal(calls.length, 1);
  client.destroy();
});

t.test('half a line and then nothing: dropped after a while', async (t) => {
  const { handlers } = recordingHandlers();
  const fixture = await serve(t, handlers, { stallMs: 10 });
  const client = new RawClient(fixture.path);
  client.send('{"jsonrpc":"2.0",');
  await client.closed;
  t.match(fixture.log, [{ level: 'warn', message: /half a message/ }]);
  await isServed(t, fixture);
});

t.test('a client that says nothing at all is left alone', async (t) => {
  const { handlers } = recordingHandlers();
  const fixture = await serve(t, handlers, { stallMs: 10 });
  const silent = new RawClient(fixture.path);
  const stalled = new RawClient(fixture.path);
  stalled.send('{');
  await stalled.closed;
  silent.request(1, 'list');
  t.equal((await silent.next()).id, 1);
  silent.destroy();
});

t.test('500 connections that do nothing: the longest idle make room', async (t) => {
  const { handlers } = recordingHandlers();
  const fixture = await serve(t, handlers);
  const crowd = Array.from({ length: 500 }, () => new RawClient(fixture.path));
  await Promise.all(
    crowd.map((client) => new Promise((done) => client.socket.once('connect', done))),
  );
  await isServed(t, fixture);
  for (const client of crowd) client.destroy();
  await isServed(t, fixture);
});

t.test('of idle clients those go that were so longest, and no more than must', async (t) => {
  const { handlers } = recordingHandlers();
  const { path } = await serve(t, handlers, { connections: 3 });
  // All at once: one that was told to go is not told again in the place of the next.
  const crowd = Array.from({ length: 8 }, () => new RawClient(path));
  await Promise.all(crowd.slice(0, 5).map((client) => client.closed));
  for (const client of crowd.slice(5)) {
    client.request(1, 'list');
    t.match(await client.next(), { id: 1, result: [] });
    client.destroy();
  }
});

t.test('progress that nobody reads is left out, and none comes after the answer', async (t) => {
  let late = () => {};
  const { handlers } = recordingHandlers({
    gc: async (_params, { progress }) => {
      for (let done = 1; done <= 4000; done += 1) progress('x'.repeat(400), done, 4000);
      late = () => progress('late', 1, 1);
      return { dryRun: false, files: [], bytes: 0 };
    },
  });
  const { path } = await serve(t, handlers, { progressMs: 0, unreadBytes: 512 * 1024 });
  const client = new RawClient(path);
  client.socket.pause();
  client.request(1, 'gc');
  await new Promise((done) => setTimeout(done, 100));
  client.socket.resume();
  let notices = 0;
  let line = await client.next();
  for (; line.method === 'progress'; line = await client.next()) notices += 1;
  t.match(line, { id: 1, result: { bytes: 0 } }, 'it is not dropped');
  t.ok(notices > 0 && notices < 4000, `${notices} notices`);
  late();
  client.request(2, 'list');
  t.match(await client.next(), { id: 2, result: [] });
  client.destroy();
});

t.test('when all clients are at work, one more is refused and they go on', async (t) => {
  let release: () => void = () => {};
  const held = new Promise<void>((done) => {
    release = done;
  });
  const { handlers, calls } = recordingHandlers({
    gc: async () => {
      await held;
      return { dryRun: false, files: [], bytes: 0 };
    },
  });
  const fixture = await serve(t, handlers, { connections: 3 });
  const busy = Array.from({ length: 3 }, () => new RawClient(fixture.path));
  for (const client of busy) client.request(1, 'gc');
  while (calls.length < 3) await new Promise((done) => setTimeout(done, 5));
  const late = new RawClient(fixture.path);
  await late.closed;
  release();
  for (const client of busy) t.match(await client.next(), { id: 1, result: { bytes: 0 } });
  await isServed(t, fixture);
  for (const client of busy) client.destroy();
});

t.test('too many requests at once on one connection: refused as busy', async (t) => {
  const { handlers } = recordingHandlers({
    gc: async (_params, { signal }) =>
      new Promise((_, fail) => {
        signal.addEventListener('abort', () => fail(new DiskError('interrupted', 'stopped')));
      }),
  });
  const fixture = await serve(t, handlers, { requests: 4 });
  const client = new RawClient(fixture.path);
  for (let id = 0; id < 5; id++) client.request(id, 'gc');
  t.match(await client.next(), { id: 4, error: { code: -32000, data: { code: 'busy' } } });
  client.request(0, 'gc');
  t.match(await client.next(), { id: null, error: { code: -32600 } }, 'an id twice');
  client.send('{"jsonrpc":"2.0","method":"$/cancelRequest","params":{"id":2}}\n');
  t.match(await client.next(), { id: 2, error: { code: -32800, data: { code: 'interrupted' } } });
  await isServed(t, fixture);
  client.destroy();
});

t.test('a slow reader is dropped once too much is unread', async (t) => {
  const { handlers } = recordingHandlers({
    info: async () => ({ filler: 'x'.repeat(MiB) }),
  });
  const fixture = await serve(t, handlers, { unreadBytes: 4 * MiB });
  const slow = new RawClient(fixture.path);
  slow.socket.pause();
  for (let id = 0; id < 30; id++) slow.request(id, 'info', { vm: 'web' });
  while (!fixture.log.some((line) => /does not read/.test(line.message))) {
    await new Promise((done) => setTimeout(done, 5));
  }
  await isServed(t, fixture);
  slow.destroy();
});

t.test('a reader that stops is dropped after a while', async (t) => {
  const { handlers } = recordingHandlers({
    info: async () => ({ filler: 'x'.repeat(2 * MiB) }),
  });
  const fixture = await serve(t, handlers, { stallMs: 10 });
  const slow = new RawClient(fixture.path);
  slow.socket.pause();
  slow.request(1, 'info', { vm: 'web' });
  while (!fixture.log.some((line) => /does not read/.test(line.message))) {
    await new Promise((done) => setTimeout(done, 5));
  }
  await isServed(t, fixture);
  slow.destroy();
});

t.test('an id that JSON cannot say again is refused', async (t) => {
  const { handlers, calls } = recordingHandlers();
  const fixture = await serve(t, handlers);
  const client = new RawClient(fixture.path);
  client.send('{"jsonrpc":"2.0","id":1e999,"method":"list"}\n');
  t.match(await client.next(), { id: null, error: { code: -32600 } });
  t.same(calls, []);
  client.destroy();
});

t.test('notifications and answers that nobody asked for are ignored', async (t) => {
  const { handlers, calls } = recordingHandlers();
  const fixture = await serve(t, handlers);
  const client = new RawClient(fixture.path);
  client.send('{"jsonrpc":"2.0","method":"delete","params":{"vm":"web"}}\n');
  client.send('{"jsonrpc":"2.0","method":"$/cancelRequest","params":{"id":99}}\n');
  client.send('{"jsonrpc":"2.0","method":"$/cancelRequest","params":7}\n');
  client.send('{"jsonrpc":"2.0","id":1,"result":5}\n');
  client.send('{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"x"}}\n');
  client.request(2, 'list');
  t.equal((await client.next()).id, 2);
  t.same(
    calls.map((call) => call.method),
    ['list'],
    'a method without an id is not run',
  );
  client.destroy();
});
