/** A daemon whose program is replaced, taken away or half there while it runs. */
import { renameSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { change, daemonOfCopy } from '../support/copied-program.js';
import type { TestDaemon } from '../support/daemon.js';
import { checkRefusal, EXIT } from '../support/refusal.js';
import { cannotTakeOver } from '../support/takeover.js';

/** A mount that nobody serves would hold a test up for ever. */
const limits = { skip: cannotTakeOver(), timeout: 240_000 };
const BYTES = Buffer.alloc(1 << 20, 0xa5);

async function fill(daemon: TestDaemon): Promise<void> {
  await daemon.ok('create', 'vm', '--disk', '4M');
  await writeAt(daemon, 'vm');
}

async function writeAt(daemon: TestDaemon, vm: string): Promise<void> {
  const file = await open(daemon.rawFile(vm), 'r+');
  await file.write(BYTES, 0, BYTES.length, 1 << 20);
  await file.sync();
  await file.close();
}

async function checkCopy(t: Test, daemon: TestDaemon, vm: string): Promise<void> {
  const file = await open(daemon.rawFile(vm), 'r');
  const { buffer } = await file.read(Buffer.alloc(BYTES.length), 0, BYTES.length, 1 << 20);
  await file.close();
  t.ok(buffer.equals(BYTES), `${vm} has what was written`);
}

t.test('another build is in its place: its thread gets no memory', limits, async (t) => {
  const { daemon, program } = await daemonOfCopy(t);
  await daemon.start();
  await fill(daemon);
  const { servingPid } = daemon;
  change(join(program, 'dist/common/build-id.js'), "'modules'", "'another'");
  // Another layout of what threads share.
  change(join(program, 'dist/engine/shared/shared-memory.js'), 'mapRoot: 5', 'mapRoot: 25');
  const refused = await daemon.cli(['clone', 'vm', 'copy', '--full']);
  checkRefusal(t, refused, [EXIT.failed], /program of this daemon was replaced while it ran/);
  t.match(refused.stderr, /hint: layerdisk daemon restart/);
  t.equal(daemon.servingPid, servingPid, 'the daemon goes on');
  await writeAt(daemon, 'vm');
  await daemon.ok('daemon', 'restart');
  await daemon.ok('clone', 'vm', 'copy', '--full');
  await checkCopy(t, daemon, 'copy');
  await daemon.ok('daemon', 'stop');
  t.equal(await daemon.ended(), 0);
});

t.test('the program of a thread is not there, or half there', limits, async (t) => {
  const { daemon, program } = await daemonOfCopy(t);
  await daemon.start();
  await fill(daemon);
  const { servingPid } = daemon;
  const path = join(program, 'dist/daemon/background-thread.js');
  renameSync(path, `${path}.away`);
  for (const what of [/Cannot find module/, /its program ended at once/]) {
    const refused = await daemon.cli(['clone', 'vm', 'copy', '--full']);
    checkRefusal(t, refused, [EXIT.failed], what);
    t.match(refused.stderr, /hint: .*layerdisk daemon restart/);
    writeFileSync(path, '');
  }
  t.equal(daemon.servingPid, servingPid, 'the daemon goes on');
  renameSync(`${path}.away`, path);
  await daemon.ok('clone', 'vm', 'copy', '--full');
  await checkCopy(t, daemon, 'copy');
  await daemon.ok('daemon', 'stop');
  t.equal(await daemon.ended(), 0);
});
