/** Small parts that need no mount: errno numbers, mountinfo, requests, replies. */
import { constants } from 'node:os';
import t from 'tap';
import { DiskError } from '../../src/common/errors.js';
import { parseMountinfo, topMountAt } from '../../src/host/mountinfo.js';
import { errnoNumber, errnoOf, isBug } from '../../src/transport/errno.js';
import { writeInitReply } from '../../src/transport/kernel/init.js';
import { forwardedRequest } from '../../src/transport/kernel/messages.js';
import { attrReply, listingReply } from '../../src/transport/kernel/replies.js';
import { TroubleReporter } from '../../src/transport/kernel/trouble.js';

const { errno } = constants;

t.test('errors become errno numbers', async (t) => {
  const fsError = Object.assign(new Error('disk full'), { code: 'ENOSPC' });
  t.equal(errnoOf(new DiskError('failed', 'x', { errno: 'EDQUOT' })), errno.EDQUOT);
  t.equal(errnoOf(new DiskError('damaged', 'x')), errno.EIO);
  t.equal(errnoOf(new DiskError('not-found', 'x')), errno.ENOENT);
  t.equal(errnoOf(fsError), errno.ENOSPC);
  t.equal(errnoOf(new TypeError('bug')), errno.EIO);
  t.equal(errnoOf(Object.assign(new Error(), { code: 'ERR_OUT_OF_RANGE' })), errno.EIO);
  t.equal(errnoOf(new DiskError('failed', 'x', { errno: 'ENOSYS' })), errno.EIO, 'never ENOSYS');
  t.equal(errnoOf('text'), errno.EIO);
  t.equal(errnoNumber('ENONSENSE'), errno.EIO);
  t.notOk(isBug(fsError));
  t.notOk(isBug(new DiskError('damaged', 'x')));
  t.ok(isBug(new TypeError('bug')));
  t.ok(isBug(Object.assign(new Error(), { code: 'ERR_OUT_OF_RANGE' })));
});

t.test('mountinfo', async (t) => {
  const mounts = parseMountinfo(
    [
      '36 35 98:0 / /mnt/with\\040space rw,noatime master:1 shared:2 - ext4 /dev/root rw',
      '42 27 0:39 / /run/layerdisk/mnt rw,nosuid - fuse.layerdisk layerdisk rw,user_id=0',
      '43 27 0:40 /sub /run/layerdisk/mnt rw - tmpfs t\\134mp rw',
      'not a line of it',
      '',
    ].join('\n'),
  );
  t.equal(mounts.length, 3);
  t.equal(mounts[0]?.mountpoint, '/mnt/with space');
  t.equal(mounts[2]?.source, 't\\mp');
  t.equal(mounts[2]?.root, '/sub');
  t.match(topMountAt('/run/layerdisk/mnt', mounts), { id: 43, device: '0:40', type: 'tmpfs' });
  t.equal(topMountAt('/run/layerdisk', mounts), undefined);
});

/** A request of the kernel's as words and bytes. */
function request(opcode: number, body: readonly number[], name = '') {
  const bytes = Buffer.alloc(40 + 4 * body.length + Buffer.byteLength(name) + 1);
  const header = [bytes.length, opcode, 0x11, 0x80000000, 0x22, 0x33, 0, 0, 77, 0];
  for (const [index, word] of [...header, ...body].entries()) bytes.writeUInt32LE(word, 4 * index);
  bytes.write(name, 40 + 4 * body.length);
  const words = new Uint32Array(bytes.length >> 2);
  for (const index of words.keys()) words[index] = bytes.readUInt32LE(4 * index);
  return forwardedRequest(words, bytes);
}

t.test('requests for the main thread', async (t) => {
  const common = {
    type: 'request',
    unique: { lo: 0x11, hi: 0x80000000 },
    node: { lo: 0x22, hi: 0x33 },
    pid: 77,
  };
  t.strictSame(request(1, [], 'däsk'), { ...common, op: 'lookup', name: 'däsk' });
  t.strictSame(request(3, [0, 0, 0, 0]), { ...common, op: 'getattr' });
  t.strictSame(request(14, [0x8002, 0]), { ...common, op: 'open', flags: 0x8002 });
  t.strictSame(request(28, [5, 2, 7, 1, 4096, 0]), {
    ...common,
    op: 'readdir',
    handle: { lo: 5, hi: 2 },
    offset: 2 ** 32 + 7,
    size: 4096,
  });
  const setattr = Array.from({ length: 22 }, (_, index) => index + 100);
  setattr[0] = (1 << 3) | (1 << 6);
  t.strictSame(request(4, setattr), {
    ...common,
    op: 'setattr',
    byHandle: true,
    size: 104 + 105 * 2 ** 32,
  });
  setattr[0] = 7;
  t.strictSame(request(4, setattr), {
    ...common,
    op: 'setattr',
    byHandle: false,
    mode: 117,
    uid: 119,
    gid: 120,
  });
  t.equal(request(9, []), undefined, 'mkdir is not forwarded');
});

t.test('listings fill what they are given and no more', async (t) => {
  const entries = ['a', 'bb', 'c'.repeat(64)].map((name, index) => ({
    name,
    node: { hi: 1, lo: index + 1 },
    kind: 'file' as const,
  }));
  t.equal(listingReply(entries, 0, 4096, false).length, 32 + 32 + 88);
  t.equal(listingReply(entries, 0, 64, false).length, 64, 'two entries');
  t.equal(listingReply(entries, 0, 31, false).length, 0);
  t.equal(listingReply(entries, 0, 4096, true).length, 3 * 128 + 32 + 32 + 88);
  const reply = listingReply(entries, 7, 64, false);
  t.equal(reply.readUInt32LE(8), 8, 'where to go on');
  t.equal(reply.readUInt32LE(32 + 8), 9);
});

t.test('attributes of large disks and old times', async (t) => {
  const reply = attrReply({
    ...{ node: { hi: 9, lo: 8 }, kind: 'file', size: 64 * 2 ** 40, allocatedSize: 1 },
    ...{ mode: 0o600, uid: 1, gid: 2, mtime: 1500, nlink: 3 },
  });
  t.equal(reply.readBigUInt64LE(16), (9n << 32n) | 8n);
  t.equal(reply.readBigUInt64LE(24), 64n << 40n);
  t.equal(reply.readBigUInt64LE(32), 1n, 'blocks are rounded up');
  t.equal(reply.readBigUInt64LE(48), 1n);
  t.equal(reply.readUInt32LE(68), 500_000_000);
  t.equal(reply.readUInt32LE(76), 0o100600);
});

t.test('only what the kernel offers is taken', async (t) => {
  const options = { writeback: true, maxBackground: 512 };
  const body = new Uint32Array(16);
  const offer = new Uint32Array(32);
  offer.set([7, 31, 131072, 1 << 22], 10);
  t.match(writeInitReply(offer, body, options), { minor: 31, flags: 1 << 22, flags2: 0 });
  t.strictSame([...body.slice(0, 4)], [7, 31, 131072, 1 << 22]);
  offer.set([7, 99, 131072, 0xffffffff, 0xffffffff], 10);
  const ready = writeInitReply(offer, body, { ...options, writeback: false });
  t.equal(ready.flags & (1 << 16), 0, 'no write-back caching unless asked for');
  t.equal(ready.flags & (1 << 3), 0, 'O_TRUNC is left to the kernel');
  t.equal(body[1], 40);
});

t.test('a flood of errors is reported once a second', async (t) => {
  const said: { message: string; suppressed: number }[] = [];
  let now = 0;
  const reporter = new TroubleReporter(
    1,
    (message) => said.push(message),
    () => now,
  );
  const full = new DiskError('failed', 'full', { errno: 'ENOSPC' });
  for (let round = 0; round < 50; round += 1) reporter.report(16, full);
  reporter.report(16, new DiskError('usage', 'past the end', { errno: 'EFBIG' }));
  now = 1000;
  reporter.report(16, full);
  reporter.report(15, new TypeError('a bug'));
  t.match(said, [
    { message: 'full', suppressed: 0, errno: 28 },
    { message: 'full', suppressed: 49 },
    { message: 'a bug', suppressed: 0, bug: true, stack: /TypeError/ },
  ]);
});
