/**
 * Names that change: one that was given anew stands for what has it now, at once, though the kernel
 * remembers names; and who has a disk open under a former name still has it open.
 */
import { closeSync, openSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { MiB } from '../../src/common/units.js';
import { ControlSocket } from '../support/control-socket.js';
import { startDaemon, type TestDaemon } from '../support/daemon.js';
import { cannotServe } from '../support/mount-guard.js';

/** The kernel believes names and attributes for a second. */
const BELIEVED_MS = 1100;

async function open(t: Test): Promise<{ daemon: TestDaemon; control: ControlSocket }> {
  const daemon = await startDaemon(t);
  const control = await ControlSocket.connect(daemon.socket);
  await control.call('create', { vm: 'vm', disks: [{ size: MiB }] });
  return { daemon, control };
}

t.test('of a snapshot', { skip: cannotServe() }, async (t) => {
  const { daemon, control } = await open(t);
  const take = (text: string) => {
    writeFileSync(daemon.rawFile('vm'), text, { flag: 'r+' });
    return control.call('snapshot.take', { vm: 'vm', snapshot: 'daily' });
  };
  const file = daemon.rawFile('vm', 'daily');
  const shown = () => readFileSync(file).subarray(0, 3).toString();
  await take('one');
  t.equal(shown(), 'one');
  await control.call('snapshot.rename', { vm: 'vm', snapshot: 'daily', name: 'older' });
  await take('two');
  t.equal(shown(), 'two', 'renamed, and another one taken');
  await sleep(BELIEVED_MS);
  statSync(dirname(file));
  await control.call('snapshot.delete', { vm: 'vm', snapshot: 'daily' });
  await take('six');
  t.equal(shown(), 'six', 'deleted, while its folder was known and nothing in it');
});

t.test('of a disk', { skip: cannotServe() }, async (t) => {
  const { daemon, control } = await open(t);
  const file = daemon.rawFile('vm', undefined, 'data');
  await control.call('disk.add', { vm: 'vm', disk: { name: 'data', size: MiB } });
  t.equal(statSync(file).size, MiB);
  await control.call('disk.remove', { vm: 'vm', disk: 'data' });
  await control.call('disk.add', { vm: 'vm', disk: { name: 'data', size: 2 * MiB } });
  t.equal(statSync(file).size, 2 * MiB);
});

t.test('open under a former name', { skip: cannotServe() }, async (t) => {
  const { daemon, control } = await open(t);
  const fd = openSync(daemon.rawFile('vm'), 'r+');
  t.teardown(() => closeSync(fd));
  await control.call('rename', { vm: 'vm', name: 'new' });
  const busy = { code: 'busy' };
  await t.rejects(control.call('run', { vm: 'new' }), busy, 'no guest writes beside it');
  await t.rejects(control.call('export.machine', { vm: 'new', kind: 'libvirt-xml' }), busy);
  await t.rejects(control.call('delete', { vm: 'new' }), busy, 'what it writes is not lost');
});
