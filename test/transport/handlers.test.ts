/** What the main thread answers: each request once, and nothing stays open that nobody has. */
import { constants } from 'node:os';
import t from 'tap';
import { DiskError } from '../../src/common/errors.js';
import { RequestHandler } from '../../src/transport/kernel/handlers.js';
import type { ForwardedOperation, ForwardedRequest } from '../../src/transport/kernel/messages.js';
import type { OpenTableOptions } from '../../src/transport/kernel/open-table.js';
import { HANDLE_CONTENT, HANDLE_DIRECTORY } from '../../src/transport/kernel/protocol.js';
import type { Namespace, OpenedNode } from '../../src/transport/namespace.js';

const NODE = { hi: 1, lo: 5 };
const DISK: OpenedNode = { kind: 'device', handle: 3 };
const O_RDWR = 2;

interface Answer {
  readonly errno: number;
  readonly body: Buffer | undefined;
}

/** A handler over one file, `opened`; its answers are wanted as long as `isWanted` is. */
function handlerOf(opened: OpenedNode, open: OpenTableOptions = {}) {
  const state = { isWanted: true, calls: [] as string[], failures: [] as string[] };
  const attr = { size: 4096, mode: 0o600, uid: 0, gid: 0, mtime: 0, nlink: 1, allocatedSize: 0 };
  const namespace = {
    getattr: (node: typeof NODE) => {
      if (node.lo === 6) throw new DiskError('not-found', 'gone', { errno: 'ESTALE' });
      return { ...attr, node, kind: 'file' };
    },
    lookup: () => undefined,
    readdir: () => [
      { name: 'there', node: NODE, kind: 'file' },
      { name: 'gone', node: { hi: 1, lo: 6 }, kind: 'file' },
    ],
    open: () => {
      state.calls.push('open');
      return opened;
    },
    release: (_node: unknown, handle: number) => state.calls.push(`release ${handle}`),
  } as unknown as Namespace;
  const answers: Answer[] = [];
  const handler = new RequestHandler(
    namespace,
    (_unique, errno, body) => {
      answers.push({ errno, body });
      return state.isWanted;
    },
    (op, error) => state.failures.push(`${op}: ${error instanceof Error ? error.message : ''}`),
    open,
  );
  const ask = async (operation: ForwardedOperation, pid = 1): Promise<Answer> => {
    const unique = { lo: 10, hi: 0 };
    const request: ForwardedRequest = { ...operation, type: 'request', unique, node: NODE, pid };
    const before = answers.length;
    await handler.handle(request);
    if (answers.length !== before + 1) throw new Error(`${answers.length - before} answers`);
    return answers[before]!;
  };
  return { handler, ask, state };
}

const handleIn = ({ body }: Answer) => ({ lo: body!.readUInt32LE(0), hi: body!.readUInt32LE(4) });

t.test('an open whose answer nobody took is closed again', async (t) => {
  const { handler, ask, state } = handlerOf(DISK);
  await ask({ op: 'open', flags: O_RDWR });
  t.equal(handler.openDisks, 1);
  state.isWanted = false;
  await ask({ op: 'open', flags: O_RDWR });
  t.equal(handler.openDisks, 1);
  t.same(state.calls, ['open', 'open', 'release 3']);
  await handler.releaseAll();
  t.same(state.calls.slice(3), ['release 3']);
});

t.test('an open that cannot be noted is closed again', async (t) => {
  const log = {
    add: () => {
      throw new DiskError('failed', 'no memory', { errno: 'ENOMEM' });
    },
  } as unknown as NonNullable<OpenTableOptions['log']>;
  const { handler, ask, state } = handlerOf(DISK, { log });
  t.equal((await ask({ op: 'open', flags: O_RDWR })).errno, constants.errno.ENOMEM);
  t.same(state.calls, ['open', 'release 3']);
  t.equal(handler.openDisks, 0);
});

t.test('a truncating open is allowed to who opened for writing, and no one else', async (t) => {
  const { ask } = handlerOf(DISK);
  const truncate = { op: 'setattr', byHandle: false, size: 0 } as const;
  const { EPERM } = constants.errno;
  t.equal((await ask(truncate, 7)).errno, EPERM);
  await ask({ op: 'open', flags: 0 }, 7);
  t.equal((await ask(truncate, 7)).errno, EPERM, 'opened for reading');
  await ask({ op: 'open', flags: O_RDWR }, 7);
  t.equal((await ask(truncate, 7)).errno, 0);
  t.equal((await ask(truncate, 8)).errno, EPERM, 'another thread');
  t.equal((await ask({ ...truncate, byHandle: true }, 7)).errno, EPERM, 'ftruncate');
});

t.test('content is as it was when opened, and looked at anew after a takeover', async (t) => {
  const { ask, state } = handlerOf({ kind: 'content', bytes: Buffer.from('0123456789') });
  const handle = handleIn(await ask({ op: 'open', flags: 0 }));
  const read = async (offset: number, size: number, of = handle) =>
    (await ask({ op: 'read', handle: of, offset, size })).body?.toString();
  t.equal(await read(2, 3), '234');
  t.equal(await read(8, 100), '89');
  t.equal(await read(100, 1), '');
  t.same(state.calls, ['open']);
  const older = { lo: 77, hi: HANDLE_CONTENT };
  t.equal(await read(0, 4, older), '0123');
  t.equal(await read(4, 2, older), '45');
  t.same(state.calls, ['open', 'open'], 'once');
  await ask({ op: 'release', handle: older });
  await read(0, 1, older);
  t.equal(state.calls.length, 3);
});

t.test('a disk is not read as content, nor left open for it', async (t) => {
  const { ask, state } = handlerOf(DISK);
  const handle = { lo: 77, hi: HANDLE_CONTENT };
  const { errno } = await ask({ op: 'read', handle, offset: 0, size: 1 });
  t.equal(errno, constants.errno.EBADF);
  t.same(state.calls, ['open', 'release 3']);
});

t.test('a listing goes on where it was, without what went meanwhile', async (t) => {
  const { ask, state } = handlerOf(DISK);
  const handle = handleIn(await ask({ op: 'opendir' }));
  t.equal(handle.hi & 0xff, HANDLE_DIRECTORY);
  const list = (offset: number, op: 'readdir' | 'readdirplus' = 'readdir') =>
    ask({ op, handle, offset, size: 4096 });
  const all = await list(0);
  t.match(all.body?.toString(), /\.\..*there.*gone/s);
  t.notMatch((await list(3)).body?.toString(), /there/);
  t.equal((await list(4)).body?.length, 0);
  const plus = await list(0, 'readdirplus');
  t.equal(plus.errno, 0);
  t.match(plus.body?.toString(), /there.*gone/s, 'without attributes');
  t.same(state.failures, []);
});

t.test('what is not there', async (t) => {
  const { ask, state } = handlerOf(DISK);
  t.equal((await ask({ op: 'lookup', name: 'x' })).errno, constants.errno.ENOENT);
  t.match(state.failures, [/^lookup: no file named x/]);
});
