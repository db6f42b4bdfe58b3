/** What the kernel has open, over the death of the daemon that opened it. */
import { closeSync } from 'node:fs';
import t from 'tap';
import { memoryFile } from '../../src/storage/libc.js';
import { HandleLog } from '../../src/transport/kernel/handle-log.js';
import { OpenTable } from '../../src/transport/kernel/open-table.js';
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
