/** What the kernel has open, over the death of the daemon that opened it. */
import { closeSync } from 'node:fs';
import t, { type Test } from 'tap';
import { memoryFile } from '../../src/storage/libc.js';
import { HandleLog } from '../../src/transport/kernel/handle-log.js';
import { OpenTable } from '../../src/transport/kernel/open-table.js';
import type { Passthrough } from '../../src/transport/kernel/passthrough.js';
import { HANDLE_SERIALS, UNIQUE_RESENT } from '../../src/transport/kernel/protocol.js';
import type { Namespace } from '../../src/transport/namespace.js';
import { cannotMount } from '../support/disk-server.js';

t.test(
  'a disk that one of its users lost is lost to all',
  { skip: cannotMount() ?? false },
  async (t) => {
    const fd = memoryFile('open-table-test');
    t.teardown(() => closeSync(fd));
    let isThere = false;
    let tries = 0;
    const reopened: number[] = [];
    const namespace = {
      reopen: async (_node: unknown, handle: number) => {
        tries += 1;
        if (!isThere) throw new Error('not now');
        reopened.push(handle);
      },
      release: () => undefined,
    } as unknown as Namespace;
    const tableOf = () => new OpenTable(namespace, { log: new HandleLog(fd) });
    const node = { hi: 1, lo: 5 };
    const opened = { kind: 'device', handle: 3 } as const;
    const log = new HandleLog(fd);
    log.load();
    const before = new OpenTable(namespace, { log });
    const [first, second] = [10, 12].map((lo) =>
      before.addDevice(node, opened, { unique: { lo, hi: 0 }, pid: 1, write: true }),
    );
    const after = tableOf();
    t.equal((await after.restore()).length, 1);
    t.equal(tries, 1, 'it is not tried again for the other one');
    t.equal(after.openDisks, 0);
    t.equal((await tableOf().restore()).length, 1, 'the next daemon knows of it, too');
    await after.release(node, first!.handle);
    isThere = true;
    t.equal((await tableOf().restore()).length, 0);
    t.same(reopened, [3], 'who has closed it is forgotten');
    await after.release(node, second!.handle);
    t.equal((await tableOf().restore()).length, 0);
    t.equal(reopened.length, 1);
  },
);

const skip = cannotMount() ?? false;
const OPENER = { unique: { lo: 10, hi: 0 }, pid: 1, write: true };
const OPENED = { kind: 'device', handle: 3 } as const;
const NODE = { hi: 1, lo: 5 };

function logOf(t: Test): { readonly log: HandleLog; readonly fd: number } {
  const fd = memoryFile('open-table-test');
  t.teardown(() => closeSync(fd));
  const log = new HandleLog(fd);
  log.load();
  return { log, fd };
}

t.test(
  'the number of a lost disk goes to no other, also when all numbers were given',
  {
    skip,
  },
  async (t) => {
    const { log, fd } = logOf(t);
    const record = { handle: 3, node: NODE, unique: { lo: 1, hi: 0 }, pid: 1, write: true };
    log.add({ ...record, serial: 7, backing: 0 });
    log.add({ ...record, serial: HANDLE_SERIALS + 6, backing: 0 });
    const namespace = {
      reopen: async () => {
        throw new Error('lost');
      },
    } as unknown as Namespace;
    const table = new OpenTable(namespace, { log: new HandleLog(fd) });
    await table.restore();
    const { handle } = table.addDevice(NODE, OPENED, OPENER);
    t.equal((handle.hi >>> 8) % HANDLE_SERIALS, 8, 'seven is passed over');
  },
);

t.test('an OPEN that is sent again is known until its RELEASE', { skip }, async (t) => {
  const { log, fd } = logOf(t);
  const quiet = { reopen: async () => undefined, release: () => undefined };
  const namespace = quiet as unknown as Namespace;
  const opened = new OpenTable(namespace, { log }).addDevice(NODE, OPENED, OPENER);
  const table = new OpenTable(namespace, { log: new HandleLog(fd) });
  await table.restore();
  const again = { unique: { lo: 10, hi: UNIQUE_RESENT } };
  t.same(table.resent(again), opened);
  t.equal(table.resent({ unique: { lo: 10, hi: 0 } }), undefined, 'only when it is sent again');
  t.equal(table.resent({ unique: { lo: 12, hi: UNIQUE_RESENT } }), undefined);
  await table.release(NODE, opened.handle);
  t.equal(table.resent(again), undefined);
});

t.test('an open that cannot be noted leaves no file registered', { skip }, async (t) => {
  const calls: string[] = [];
  const passthrough = {
    open: () => {
      calls.push('open');
      return 4;
    },
    release: () => calls.push('release'),
  } as unknown as Passthrough;
  const full = {
    add: () => {
      throw new Error('no memory');
    },
  } as unknown as HandleLog;
  const table = new OpenTable({} as Namespace, { log: full, passthrough });
  t.throws(() => table.addDevice(NODE, OPENED, OPENER), /no memory/);
  t.same(calls, ['open', 'release']);
  t.equal(table.openDisks, 0);
});

/** Notes what is asked of it; one number for all files. */
function passthroughOf(calls: string[], backing = 4): Passthrough {
  return {
    open: () => {
      calls.push('open');
      return backing;
    },
    inherit: (node: { lo: number }, number: number) => calls.push(`inherit ${node.lo} ${number}`),
    release: (node: { lo: number }) => calls.push(`release ${node.lo}`),
  } as unknown as Passthrough;
}

t.test(
  'a file that the kernel reads by itself is let go with its last open',
  { skip },
  async (t) => {
    const { log, fd } = logOf(t);
    const calls: string[] = [];
    const lost = { ...NODE, lo: 6 };
    const namespace = {
      reopen: async (node: { lo: number }) => {
        if (node.lo === lost.lo) throw new Error('lost');
      },
      release: () => calls.push('closed'),
    } as unknown as Namespace;
    const before = new OpenTable(namespace, { log, passthrough: passthroughOf([]) });
    const first = before.addDevice(NODE, OPENED, OPENER);
    const second = before.addDevice(lost, { kind: 'device', handle: 9 }, OPENER);
    t.equal(first.backing, 4);
    const table = new OpenTable(namespace, {
      log: new HandleLog(fd),
      passthrough: passthroughOf(calls),
    });
    await table.restore();
    t.same(calls.splice(0), ['inherit 5 4', 'inherit 6 4'], 'of the lost one, too');
    const stranger = { lo: 8, hi: first.handle.hi };
    await table.release(NODE, stranger);
    await table.release(lost, { lo: 8, hi: second.handle.hi });
    t.same(calls, [], 'handles that are not known');
    await table.release(NODE, first.handle);
    t.same(calls.splice(0), ['release 5', 'closed']);
    await table.release(NODE, first.handle);
    t.same(calls, [], 'a RELEASE that is sent again');
    await table.release(lost, second.handle);
    t.same(calls, ['release 6'], 'what could not be opened is not closed');
    t.same(new HandleLog(fd).load().open, []);
  },
);

t.test('the next daemon gives no handle again that this one gave', { skip }, async (t) => {
  const { log, fd } = logOf(t);
  const namespace = { reopen: () => undefined, release: () => undefined } as unknown as Namespace;
  const before = new OpenTable(namespace, { log });
  const used = before.addDevice(NODE, OPENED, OPENER);
  await before.release(NODE, used.handle);
  const next = new OpenTable(namespace, { log: new HandleLog(fd), generation: 1 });
  await next.restore();
  t.strictNotSame(next.addDevice(NODE, OPENED, OPENER).handle, used.handle);
  const content = Buffer.from('text');
  const [old, young] = [before, next].map((table) => table.addContent(content));
  t.strictNotSame(old, young, 'nor that of a file with content');
  t.equal(next.content(young!), content);
  t.equal(next.content(old!), undefined);
  await next.release(NODE, young!);
  t.equal(next.content(young!), undefined);
});

t.test('who just opened what for writing', { skip }, async (t) => {
  const { log, fd } = logOf(t);
  const namespace = { reopen: () => undefined } as unknown as Namespace;
  new OpenTable(namespace, { log }).addDevice(NODE, OPENED, OPENER);
  const table = new OpenTable(namespace, { log: new HandleLog(fd) });
  await table.restore();
  t.ok(table.hasJustOpened(OPENER.pid, NODE), 'with the daemon before');
  t.notOk(table.hasJustOpened(OPENER.pid, { ...NODE, hi: 2 }));
  t.notOk(table.hasJustOpened(OPENER.pid, { ...NODE, lo: 2 }));
  const others = Array.from({ length: 64 }, (_, index) => index + 2);
  for (const pid of others.slice(0, 63)) table.noteOpen(pid, NODE);
  table.noteOpen(OPENER.pid, NODE);
  table.noteOpen(others[63]!, NODE);
  t.ok(table.hasJustOpened(OPENER.pid, NODE), 'it is among the latest again');
  t.notOk(table.hasJustOpened(others[0]!, NODE), 'the oldest is forgotten');
  t.ok(table.hasJustOpened(others[1]!, NODE));
});
