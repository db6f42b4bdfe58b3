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
