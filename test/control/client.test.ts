/** The client tells apart no daemon, no permission, and a daemon that misbehaves. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chownSync, existsSync, unlinkSync, writeFileSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { connect } from '../../src/control/client.js';
import { temporaryFolder } from './socket-fixture.js';

const DEAD = `require('node:net').createServer().listen(process.argv[1], () => {
  process.kill(process.pid, 'SIGKILL');
})`;

t.test('nobody there', async (t) => {
  const folder = temporaryFolder(t);
  const unreachable = { code: 'unreachable', hint: 'layerdisk daemon start' };
  await t.rejects(connect(join(folder, 'none.sock')), unreachable);
  writeFileSync(join(folder, 'file'), '');
  await t.rejects(connect(join(folder, 'file')), unreachable, 'a plain file');
  await t.rejects(connect(join(folder, 'file', 'sock')), unreachable, 'under a plain file');
  await t.rejects(connect(join(folder, 'x'.repeat(108))), { code: 'usage' }, 'too long a path');
});

t.test('a daemon that is being replaced', async (t) => {
  const folder = temporaryFolder(t);
  const path = join(folder, 'control.sock');
  // The socket of a daemon that was killed: the file stays, and nobody listens.
  const dead = spawn(process.execPath, ['-e', DEAD, path]);
  await once(dead, 'exit');
  t.ok(existsSync(path));
  await t.rejects(connect(path), { code: 'unreachable', errno: 'ECONNREFUSED' }, 'no patience');
  const asked = connect(path, { patience: 20_000 });
  await sleep(100);
  unlinkSync(path);
  await sleep(100);
  const server = createServer().listen(path);
  (await asked).close();
  server.close();
  const none = join(folder, 'none.sock');
  const never = { code: 'unreachable', errno: 'ENOENT' };
  await t.rejects(connect(none, { patience: 1e9 }), never, 'never there: at once');
});

const OTHER_REQUEST = '{"id":9,"what":"x","doneBytes":1,"totalBytes":2}';

/** A server that does with each connection what the test says. */
async function serveRaw(t: Test, onConnection: (socket: Socket) => void): Promise<string> {
  const path = join(temporaryFolder(t), 'raw.sock');
  const server = createServer((socket) => {
    socket.on('error', () => {});
    onConnection(socket);
  });
  await new Promise<void>((done) => server.listen(path, done));
  t.teardown(() => server.close());
  return path;
}

t.test('answers that are none', async (t) => {
  const replies: [string, string | Buffer, RegExp][] = [
    ['no JSON', 'hello\n', /no message/],
    ['no text', Buffer.from([0xff, 0x0a]), /no message \(a message is not UTF-8 text\)$/],
    ['no object', '7\n', /no message/],
    ['a refusal without an id', '{"jsonrpc":"2.0","id":null,"error":{"message":"no"}}\n', /no$/],
  ];
  for (const [name, reply, message] of replies) {
    const path = await serveRaw(t, (socket) => socket.once('data', () => socket.write(reply)));
    const client = await connect(path);
    await t.rejects(client.call('list', {}), { code: 'unreachable', message }, name);
    client.close();
  }
});

t.test('an error that is not quite one', async (t) => {
  const error = '{"code":"x","message":"bad\\u001b[2J","data":{"code":"no such code","hint":5}}';
  const path = await serveRaw(t, (socket) =>
    socket.once('data', () => socket.write(`{"jsonrpc":"2.0","id":1,"error":${error}}\n`)),
  );
  const client = await connect(path);
  await t.rejects(client.call('list', {}), { code: 'failed', message: 'bad [2J', hint: undefined });
  client.close();
});

t.test('a daemon that dies before it answers', async (t) => {
  const path = await serveRaw(t, (socket) => socket.once('data', () => socket.destroy()));
  const client = await connect(path);
  await t.rejects(client.call('list', {}), {
    code: 'unreachable',
    message: /no answer to list: the daemon closed the connection/,
  });
  await t.rejects(client.call('list', {}), { code: 'unreachable' }, 'and no call after it');
});

t.test('progress that is not quite one is passed over', async (t) => {
  const lines = [
    '{"jsonrpc":"2.0","method":"progress","params":{"id":1,"what":5}}',
    `{"jsonrpc":"2.0","method":"progress","params":${OTHER_REQUEST}}`,
    '{"jsonrpc":"2.0","method":"unknown"}',
    '{"jsonrpc":"2.0","id":4,"method":"question"}',
    '{"jsonrpc":"2.0","id":1,"result":[]}',
  ];
  const path = await serveRaw(t, (socket) =>
    socket.once('data', () => socket.write(`${lines.join('\n')}\n`)),
  );
  const client = await connect(path);
  const onProgress = () => t.fail('that was no progress of this request');
  t.same(await client.call('list', {}, { onProgress }), []);
  client.close();
});

t.test('a request above the limit is not sent', async (t) => {
  const path = await serveRaw(t, (socket) => socket.on('data', () => t.fail('it was sent')));
  const client = await connect(path);
  const message = 'x'.repeat(1024 * 1024);
  await t.rejects(client.call('snapshot.take', { vm: 'a', snapshot: 'b', message }), {
    code: 'usage',
  });
  client.close();
});

t.test('closing fails what still waits', async (t) => {
  const path = await serveRaw(t, () => {});
  const client = await connect(path);
  const call = client.call('list', {});
  client.close();
  await t.rejects(call, { code: 'unreachable', message: /connection was closed/ });
});

t.test(
  "another user's socket",
  { skip: process.getuid?.() === 0 ? false : 'needs root' },
  async (t) => {
    const path = await serveRaw(t, (socket) =>
      socket.once('data', () => socket.write('{"jsonrpc":"2.0","id":1,"result":[]}\n')),
    );
    chownSync(path, 12345, 12345);
    const client = await connect(path);
    t.same(await client.call('list', {}), [], 'root may ask any daemon');
    client.close();
    const getuid = process.getuid!;
    t.teardown(() => {
      process.getuid = getuid;
    });
    process.getuid = () => 54321;
    await t.rejects(connect(path), { code: 'not-permitted', message: /another user/ });
  },
);
