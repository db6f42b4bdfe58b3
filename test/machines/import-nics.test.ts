/** Network adapters of whole machines, beside those that the user asks for in their place. */
import { writeFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { VmView } from '../../src/control/protocol.js';
import { startDaemon, type TestDaemon } from '../support/daemon.js';
import { writeVboxMachine } from '../support/machine-writer.js';
import { cannotServe } from '../support/mount-guard.js';
import { tool } from '../support/run-program.js';

/** Of the two adapters that `writeVboxMachine` gives to the machine and all its snapshots. */
const FIRST = '08:00:27:0a:0b:0c';
const SECOND = '08:00:27:0a:0b:0d';
const MOST = 32;

type View = Pick<VmView, 'nics'> & { readonly warnings?: readonly string[] };

/** Warnings about addresses, for the rest is about drives. */
function ofAddresses({ warnings = [] }: View): string[] {
  return warnings.filter((warning) => warning.includes('MAC address'));
}

async function checkAsked(t: Test, daemon: TestDaemon, folder: string): Promise<void> {
  const { path } = writeVboxMachine(folder);
  const other = '08:00:27:0a:0b:0e';
  for (const [what, nics, expected] of [
    ['its own address', [`nat,mac=${FIRST}`], [FIRST]],
    ['its own in other words', [`nat,mac=${FIRST.toUpperCase().replaceAll(':', '-')}`], [FIRST]],
    ['its own in another place', ['nat', `nat,mac=${FIRST}`], [undefined, FIRST]],
    ['both in turn', [`nat,mac=${SECOND}`, `nat,mac=${FIRST}`], [SECOND, FIRST]],
    ['another one', [`nat,mac=${other}`, 'none'], [other, SECOND]],
    ['none', ['bridged,network=br0', 'none'], [FIRST, SECOND]],
  ] as const) {
    const options = nics.flatMap((nic) => ['--nic', nic]);
    const view = await daemon.json<View>('import', path, 'web', ...options);
    const found = view.nics.map(({ mac }) => mac);
    t.strictSame(
      found.filter((_, index) => expected[index] !== undefined),
      expected.filter((mac) => mac !== undefined),
      what,
    );
    t.equal(new Set(found).size, nics.length, 'no two have one address');
    t.same(ofAddresses(view), [], 'and no address became another one');
    await daemon.ok('snapshot', 'restore', 'web@First', '--discard');
    const { nics: restored } = await daemon.json<View>('info', 'web');
    t.strictSame(
      restored.map(({ mac }) => mac),
      [FIRST, SECOND],
      'snapshots have what they had',
    );
    await daemon.ok('delete', 'web');
  }
}

async function checkTaken(t: Test, daemon: TestDaemon, folder: string): Promise<void> {
  const { path } = writeVboxMachine(folder);
  await daemon.ok('create', 'user', '--disk', '1M', '--nic', `nat,mac=${SECOND}`);
  const view = await daemon.json<View>('import', path, 'web', '--nic', `nat,mac=${FIRST}`);
  t.match(view.nics, [{ mac: FIRST }]);
  const [warning = '', ...more] = ofAddresses(view);
  t.match(warning, `MAC address ${SECOND} became`, 'that of the snapshots');
  t.same(more, [], 'is told once');
  const refused = await daemon.cli(['import', path, 'more', '--nic', `nat,mac=${SECOND}`]);
  t.equal(refused.code, 5, 'what another VM has is given to nobody');
  t.match(refused.stderr, 'VM "user" already has the MAC address');
  for (const vm of ['user', 'web']) await daemon.ok('delete', vm);
}

async function checkMany(t: Test, daemon: TestDaemon, folder: string): Promise<void> {
  await tool('qemu-img', ['create', '-q', '-f', 'raw', join(folder, 'a.raw'), '1M']);
  const path = join(folder, 'many.xml');
  const write = (count: number) =>
    writeFileSync(
      path,
      `<domain><memory>65536</memory><devices><disk type='file'><source file='${folder}/a.raw'/>
       </disk>${"<interface type='user'/>".repeat(count)}</devices></domain>`,
    );
  for (const [count, warnings] of [
    [MOST, undefined],
    [MOST + 4, [`only the first ${MOST} of ${MOST + 4} network adapters are taken over`]],
  ] as const) {
    write(count);
    const view = await daemon.json<View>('import', path, `n${count}`);
    t.equal(view.nics.length, MOST);
    t.strictSame(view.warnings, warnings);
  }
}

const TESTS = {
  'the NICs that the user asks for come before those of the machine': checkAsked,
  'addresses that another VM has': checkTaken,
  'more adapters than a VM has are told of': checkMany,
};

t.test('network adapters of machines', { skip: cannotServe() }, async (t) => {
  const daemon = await startDaemon(t);
  for (const [index, [name, check]] of Object.entries(TESTS).entries()) {
    const place = join(daemon.folder, `place${index}`);
    await mkdir(place);
    await t.test(name, (t) => check(t, daemon, place));
  }
});
