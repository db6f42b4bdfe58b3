/** The control server's ordinary duties: answers, errors, cancel, progress, its socket, its end. */
import { existsSync, lstatSync, mkdirSync, statSync, unlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { DiskError } from '../../src/common/errors.js';
import { connect } from '../../src/control/client.js';
import { Listener } from '../../src/control/listener.js';
import type { Handlers, ProgressNotice } from '../../src/control/protocol.js';
import { type ControlServer, serveControl } from '../../src/control/server.js';
import { eventually } from '../support/takeover.js';
import { recordingHandlers, STATUS } from './recording-handlers.js';
import { RawClient, recordingLog, serve, temporaryFolder } from './socket-fixture.js';

/** Waits until a signal is aborted, and then fails as Node's own functions do. */
function untilAborted(signal: AbortSignal): Promise<never> {
  return new Promise((_, fail) => {
    signal.addEventListener('abort', () => fail(new DOMException('aborted', 'AbortError')));
  });
}

/** A server at a path of the test's choice, which goes with the test however that ends. */
async function startAt(t: Test, path: string): Promise<ControlServer> {
  const { handlers } = recordingHandlers();
  const server = await serveControl({ path, handlers, log: recordingLog().log });
  t.teardown(() => server.close());
  return server;
}

t.test('calls reach the handlers with their parameters and come back', async (t) => {
  const { handlers, calls } = recordingHandlers();
  const { path } = await serve(t, handlers);
  const client = await connect(path);
  t.same(await client.call('daemon.status', {}), STATUS);
  const [first, second] = await Promise.all([
    client.call('path', { vm: 'web', snapshot: 'clean', disk: 'root' }),
    client.call('path', { vm: 'db' }),
  ]);
  t.same([first.path, second.path], ['/mnt/disks/web/root.raw', '/mnt/disks/db/disk0.raw']);
  t.same(calls, [
    { method: 'daemon.status', params: {} },
    { method: 'path', params: { vm: 'web', snapshot: 'clean', disk: 'root' } },
    { method: 'path', params: { vm: 'db' } },
  ]);
  client.close();
});

t.test('an operating error arrives whole', async (t) => {
  const { handlers } = recordingHandlers({
    info: async () => {
      throw new DiskError('busy', 'web is held', { hint: 'layerdisk detach web', errno: 'EBUSY' });
    },
  });
  const { path, log } = await serve(t, handlers);
  const client = await connect(path);
  await t.rejects(client.call('info', { vm: 'web' }), {
    name: 'DiskError',
    code: 'busy',
    message: 'web is held',
    hint: 'layerdisk detach web',
    errno: 'EBUSY',
  });
  t.same(log, []);
  client.close();
});

t.test('a bug is one line to the client and a stack to the log', async (t) => {
  const { handlers } = recordingHandlers({
    info: async () => {
      throw new Error('bug: first line\nsecond \u001b[31mline');
    },
    list: async () => {
      const circle: { self?: unknown } = {};
      circle.self = circle;
      return circle;
    },
  });
  const { path, log } = await serve(t, handlers);
  const client = await connect(path);
  await t.rejects(client.call('info', { vm: 'web' }), {
    code: 'failed',
    message: 'info failed because of a bug: bug: first line second  [31mline',
  });
  await t.rejects(client.call('list', {}), { code: 'failed' }, 'an answer that cannot be sent');
  t.same(await client.call('daemon.status', {}), STATUS, 'and it goes on');
  t.match(log, [
    { level: 'error', fields: { method: 'info', stack: /server\.test/ } },
    { level: 'error', fields: { method: 'list' } },
  ]);
  client.close();
});

t.test('cancel reaches the handler, and the answer says interrupted', async (t) => {
  let started: () => void = () => {};
  const running = new Promise<void>((done) => {
    started = done;
  });
  const { handlers } = recordingHandlers({
    clone: async (_params, { signal }) => {
      started();
      return untilAborted(signal);
    },
  });
  const { path, log } = await serve(t, handlers);
  const client = await connect(path);
  const controller = new AbortController();
  const call = client.call(
    'clone',
    { vm: 'web', name: 'copy', mode: 'full' },
    { signal: controller.signal },
  );
  await Promise.race([running, call]);
  controller.abort();
  await t.rejects(call, { code: 'interrupted', message: 'clone web was cancelled' });
  t.same(log, []);
  await t.rejects(
    client.call('list', {}, { signal: controller.signal }),
    { code: 'interrupted' },
    'a signal that was aborted before asks nothing',
  );
  client.close();
});

t.test('what is broken off is told in the words of the command, and why', async (t) => {
  let started = () => {};
  const running = new Promise<void>((done) => {
    started = done;
  });
  const { handlers } = recordingHandlers({
    'export.ova': async (_params, { signal }) => {
      started();
      return untilAborted(signal);
    },
  });
  const { path, close } = await serve(t, handlers);
  const client = await connect(path);
  const call = client.call('export.ova', { vm: 'web', snapshot: 'clean', path: '/web.ova' });
  const heard = t.rejects(call, {
    code: 'interrupted',
    message: 'export web@clean was broken off: the daemon is stopping',
  });
  await Promise.race([running, call]);
  await close();
  await heard;
  client.close();
});

t.test('a cancel that comes too late changes nothing', async (t) => {
  const controller = new AbortController();
  const { handlers } = recordingHandlers({
    list: async () => {
      controller.abort();
      return [];
    },
  });
  const { path } = await serve(t, handlers);
  const client = await connect(path);
  t.same(await client.call('list', {}, { signal: controller.signal }), []);
  client.close();
});

t.test('progress comes in order, not too often, and the last one always', async (t) => {
  const { handlers } = recordingHandlers({
    gc: async (_params, { progress }) => {
      for (let done = 0; done <= 1000; done++) progress('sweeping', done, 1000);
      return { dryRun: false, files: [], bytes: 0 };
    },
  });
  const { path } = await serve(t, handlers, { progressMs: 60_000 });
  const client = await connect(path);
  const notices: ProgressNotice[] = [];
  await client.call('gc', {}, { onProgress: (notice) => notices.push(notice) });
  t.same(
    notices.map((notice) => notice.doneBytes),
    [0, 1000],
  );
  t.equal(notices[0]?.what, 'sweeping');
  client.close();
});

t.test('when a client goes, what it asked for is cancelled', async (t) => {
  for (const goodbye of ['destroy', 'end'] as const) {
    let told: true | undefined;
    const { handlers, calls } = recordingHandlers({
      gc: async (_params, { signal }) => {
        signal.addEventListener('abort', () => {
          told = true;
        });
        return untilAborted(signal);
      },
    });
    const { path } = await serve(t, handlers);
    const client = new RawClient(path);
    client.request(1, 'gc');
    await eventually('the request reaches its handler', () => calls[0]);
    client.socket[goodbye]();
    if (goodbye === 'end') client.socket.destroySoon();
    t.ok(await eventually('the handler is told', () => told), goodbye);
  }
});

t.test('a client may stop sending and still read its answers', async (t) => {
  let release: () => void = () => {};
  const held = new Promise<void>((done) => {
    release = done;
  });
  const { handlers } = recordingHandlers({
    list: async () => {
      await held;
      return [];
    },
  });
  const { path } = await serve(t, handlers);
  const client = new RawClient(path);
  client.request('a', 'list');
  client.socket.end();
  setTimeout(release, 50);
  t.same(await client.next(), { jsonrpc: '2.0', id: 'a', result: [] });
  await client.closed;
});

t.test('the socket has mode 0660, in a private folder, and goes with the server', async (t) => {
  const folder = temporaryFolder(t);
  const path = join(folder, 'run', 'layerdisk', 'control.sock');
  const before = process.umask();
  const server = await startAt(t, path);
  t.equal(process.umask(), before, 'the umask is given back');
  t.equal(lstatSync(path).mode & 0o777, 0o660);
  t.equal(statSync(join(folder, 'run', 'layerdisk')).mode & 0o777, 0o700);
  await server.close();
  t.notOk(existsSync(path));
});

t.test('what is at the path already', async (t) => {
  const folder = temporaryFolder(t);
  const start = (path: string) => startAt(t, path);
  const taken = await start(join(folder, 'live.sock'));
  await t.rejects(start(join(folder, 'live.sock')), { code: 'busy' }, 'a live daemon');
  await taken.close();

  writeFileSync(join(folder, 'file'), 'precious');
  await t.rejects(start(join(folder, 'file')), { code: 'exists' }, 'a file');
  t.ok(existsSync(join(folder, 'file')));

  await leaveStaleSocket(join(folder, 'stale.sock'));
  t.ok(lstatSync(join(folder, 'stale.sock')).isSocket());
  const replaced = await start(join(folder, 'stale.sock'));
  const client = await connect(replaced.path);
  t.same(await client.call('daemon.status', {}), STATUS, 'a stale socket is replaced');
  client.close();
  await replaced.close();

  const long = join(folder, 'x'.repeat(108));
  await t.rejects(start(long), { code: 'usage', message: /the most that works is 107/ });
  mkdirSync(join(folder, 'open'));
  const { chmodSync } = await import('node:fs');
  chmodSync(join(folder, 'open'), 0o777);
  await t.rejects(start(join(folder, 'open', 's')), { code: 'not-permitted' }, 'an open folder');
});

/** What a daemon that was killed leaves: a socket file that nobody listens on. */
async function leaveStaleSocket(path: string): Promise<void> {
  const { renameSync } = await import('node:fs');
  const server = createServer();
  await new Promise<void>((done) => server.listen(`${path}.tmp`, done));
  // The listener removes the name that it was bound under when it closes, so it is given another
  // one.
  renameSync(`${path}.tmp`, path);
  await new Promise<void>((done) => server.close(() => done()));
}

t.test('a socket that is made anew while the server closes goes with it', async (t) => {
  const path = join(temporaryFolder(t), 'control.sock');
  const listener = new Listener({ path, log: recordingLog().log }, (socket) => socket.destroy());
  t.teardown(() => listener.close());
  await listener.start();
  unlinkSync(path);
  listener.check();
  await listener.close();
  await new Promise((done) => setTimeout(done, 100));
  t.notOk(existsSync(path));
});

t.test('close cancels and answers what is under way', async (t) => {
  const { handlers, calls } = recordingHandlers({
    clone: async (_params, { signal }) => untilAborted(signal),
  });
  const fixture = await serve(t, handlers);
  const client = await connect(fixture.path);
  const idle = new RawClient(fixture.path);
  const call = client.call('clone', { vm: 'web', name: 'copy', mode: 'full' });
  const outcome = t.rejects(call, { code: 'interrupted' });
  await eventually('the request reaches its handler', () => calls[0]);
  await fixture.close();
  await outcome;
  await idle.closed;
  await t.rejects(client.call('list', {}), { code: 'unreachable' });
});

t.test('the stop request itself is answered before the server closes', async (t) => {
  let stop: () => void = () => {};
  const { handlers } = recordingHandlers({
    'daemon.stop': async () => {
      setImmediate(() => stop());
      return {};
    },
  });
  const fixture = await serve(t, handlers as Handlers);
  stop = () => void fixture.close();
  const client = await connect(fixture.path);
  t.same(await client.call('daemon.stop', {}), {});
  client.close();
});
