/**
 * A daemon that may open few files: when disks have taken what there is for them, no more of them
 * open, what is open works, also when the next daemon takes over, and it can still be talked to.
 */
import { type FileHandle, open } from 'node:fs/promises';
import t from 'tap';
import { errnoName } from '../../src/common/errors.js';
import { KiB } from '../../src/common/units.js';
import { startDaemon } from '../support/daemon.js';
import { cannotServe } from '../support/mount-guard.js';
import { checkRefusal, EXIT } from '../support/refusal.js';
import { stampedPattern } from '../support/stamped-pattern.js';
import { cannotTakeOver, eventually, successor } from '../support/takeover.js';

const LIMIT = 100;
/** More than there can be: each takes two descriptors. */
const DISKS = LIMIT / 2;
/** Of them in the end. */
const KEPT = 6;
const LENGTH = 4 * KiB;

t.test('more disks than it may open files', { skip: cannotServe() }, async (t) => {
  const through = ['prlimit', `--nofile=${LIMIT}:${LIMIT}`];
  const daemon = await startDaemon(t, { through, supervise: true });
  const disks = Array.from({ length: DISKS }, (_, index) => `disk${index}`);
  await daemon.ok('create', 'vm', ...disks.flatMap((disk) => ['--disk', `${disk}=1M`]));
  const files: FileHandle[] = [];
  t.teardown(() => Promise.all(files.map((file) => file.close())));
  let refused: unknown;
  for (const disk of disks) {
    try {
      const file = await open(daemon.rawFile('vm', undefined, disk), 'r+');
      files.push(file);
      await file.write(stampedPattern(files.length, 0, LENGTH), 0, LENGTH, 0);
    } catch (error) {
      refused = error;
      break;
    }
  }
  t.equal(errnoName(refused), 'EMFILE');
  t.ok(files.length > 8, `${files.length} disks are open`);

  t.match(await daemon.ok('daemon', 'status'), new RegExp(`open disks: +${files.length}`));
  const take = await daemon.cli(['snapshot', 'take', 'vm@one']);
  checkRefusal(t, take, [EXIT.failed], /may open no more files \(EMFILE\)/);
  t.match(take.stderr, /hint: close disks, or raise its limit/);
  t.equal(await daemon.ok('snapshot', 'list', 'vm', '-q'), '', 'wholly refused');
  await daemon.ok('create', 'other', '--disk', '1M');
  await daemon.ok('delete', 'other');
  await daemon.ok('check', '--deep');
  if (!cannotTakeOver()) {
    const former = daemon.servingPid;
    process.kill(former, 'SIGKILL');
    await eventually('the next daemon', () => successor(daemon, former));
  }
  const bytes = Buffer.alloc(LENGTH);
  for (const [index, file] of files.entries()) {
    await file.read(bytes, 0, LENGTH, 0);
    t.ok(bytes.equals(stampedPattern(index + 1, 0, LENGTH)), `disk ${index} shows what it got`);
    await file.write(stampedPattern(0, LENGTH, LENGTH), 0, LENGTH, LENGTH);
    await file.sync();
  }

  for (const file of files.splice(KEPT)) await file.close();
  // Disks that were closed stay ready for a while, unless others need their room.
  const another = await eventually('room for another disk', async () => {
    return open(daemon.rawFile('vm', undefined, disks.at(-1)), 'r').catch(() => undefined);
  });
  files.push(another);
  t.equal((await another.read(bytes, 0, LENGTH, 0)).bytesRead, LENGTH);
});
