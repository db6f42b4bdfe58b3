/**
 * Something else in the place of files of the store: FIFOs, devices, folders. The thing is named,
 * everything else goes on, and no thread waits for the other end of a FIFO.
 */
import { readFileSync, rmSync } from 'node:fs';
import { mkdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { CheckView } from '../../src/control/protocol.js';
import { startDaemon, type TestDaemon } from '../support/daemon.js';
import { checkSaid, makeGoldStore, onCopy, refusalOf } from '../support/gold-store.js';
import { cannotServe } from '../support/mount-guard.js';
import { checkRefusal, EXIT } from '../support/refusal.js';
import { runProgram, tool } from '../support/run-program.js';

const skip = cannotServe();

const WAYS: Readonly<Record<string, (path: string) => Promise<unknown>>> = {
  'a FIFO': (path) => tool('mkfifo', [path]),
  'a device without an end': (path) => symlink('/dev/zero', path),
  'a folder': (path) => mkdir(path),
};

interface Manifest {
  readonly disks: readonly { readonly head: string }[];
  readonly snapshots: readonly { readonly disks: readonly { readonly delta: string }[] }[];
}

/** By the name of a VM: which of its files is replaced. */
const PLACES: Readonly<Record<string, (manifest: Manifest) => string>> = {
  data: ({ disks }) => `deltas/${disks[0]!.head}.1.data`,
  tuples: ({ disks }) => `deltas/${disks[0]!.head}.tuples`,
  sums: ({ snapshots }) => `deltas/${snapshots[0]!.disks[0]!.delta}.sums`,
  manifest: () => 'vms/manifest.json',
};

async function makeStore(t: Test): Promise<TestDaemon> {
  const daemon = await startDaemon(t);
  for (const vm of [...Object.keys(PLACES), 'whole']) {
    await daemon.ok('create', vm, '--disk', '1M');
    const text = `yes ${vm} | head -c 64k | dd of="$0" conv=notrunc,fsync status=none`;
    await tool('sh', ['-c', text, daemon.rawFile(vm)]);
    await daemon.ok('snapshot', 'take', `${vm}@one`);
  }
  const image = join(daemon.folder, 'base.raw');
  await writeFile(image, Buffer.alloc(1024 * 1024, 7));
  await daemon.ok('import', image, 'base');
  await daemon.ok('check', '--repair');
  await daemon.stop();
  return daemon;
}

t.test('in the place of files of VMs', { skip }, async (t) => {
  const daemon = await makeStore(t);
  const places = Object.entries(PLACES).map(([vm, place]): [vm: string, path: string] => {
    const text = readFileSync(join(daemon.store, 'vms', `${vm}.json`), 'utf8');
    return [vm, join(daemon.store, place(JSON.parse(text) as Manifest))];
  });
  const bases = await runProgram('find', [join(daemon.store, 'bases'), '-type', 'f']);
  places.push(['base', bases.stdout.trim()], ['numbers', join(daemon.store, 'numbers.json')]);
  for (const [what, put] of Object.entries(WAYS)) {
    const kept = places.map(([, path]) => readFileSync(path));
    for (const [, path] of places) {
      rmSync(path);
      await put(path);
    }
    await daemon.start();
    const check = await daemon.quick(['check', '--json']);
    t.equal(check.code, EXIT.damaged, what);
    const found = check.json<CheckView>().findings.map(({ vm, part }) => vm ?? part);
    t.same([...new Set(found)].sort(), ['base', 'data', 'file', 'manifest', 'sums', 'tuples']);
    for (const vm of ['base', 'data', 'tuples']) {
      const read = await runProgram('cat', [daemon.rawFile(vm)]);
      t.match(read, { code: 1, stderr: /Input\/output error/ }, `${what}: ${vm}`);
    }
    for (const vm of ['sums', 'whole']) {
      t.equal((await runProgram('cat', [daemon.rawFile(vm)])).code, 0, `${what}: ${vm}`);
    }
    await daemon.ok('snapshot', 'take', 'whole@more');
    await daemon.ok('snapshot', 'delete', 'whole@more');
    t.match(await daemon.ok('list'), /manifest: cannot be used: .*vms\/manifest\.json/);
    await daemon.stop();
    for (const [index, [, path]] of places.entries()) {
      rmSync(path, { recursive: true });
      await writeFile(path, kept[index]!, { mode: 0o600 });
    }
  }
  await daemon.start();
  await daemon.ok('check');
});

t.test('in the place of what the store cannot be without', { skip }, async (t) => {
  const gold = await makeGoldStore(t);
  for (const [what, put] of Object.entries(WAYS)) {
    const names = what === 'a folder' ? ['store.json'] : ['store.json', 'vms', 'deltas', 'bases'];
    for (const name of names) {
      const daemon = await onCopy(t, gold);
      rmSync(join(daemon.store, name), { recursive: true });
      await put(join(daemon.store, name));
      const said = await refusalOf(daemon);
      checkSaid(t, said, said.code, new RegExp(`store/${name}`));
    }
  }
});

t.test('in the place of the log', { skip }, async (t) => {
  const daemon = await onCopy(t, await makeGoldStore(t));
  await tool('mkfifo', [join(daemon.store, 'daemon.log')]);
  const args = ['--store', daemon.store, '--socket', daemon.socket];
  const start = await daemon.cli(['daemon', 'start', ...args]);
  checkRefusal(t, start, [EXIT.failed], /daemon\.log.*ENXIO/);
});

t.test('beside a machine file', { skip }, async (t) => {
  const daemon = await startDaemon(t);
  await daemon.ok('create', 'vm', '--disk', '1M');
  const machine = join(daemon.folder, 'vm.vmx');
  for (const [what, put] of Object.entries(WAYS)) {
    const beside = join(daemon.folder, 'vm-disk0.vmdk');
    await put(beside);
    const write = await daemon.cli(['export', 'vm', '--vmx', machine, '--force']);
    checkRefusal(t, write, [EXIT.exists], /vm-disk0\.vmdk exists already/);
    t.match(await daemon.ok('list', '-q'), 'vm', what);
    rmSync(beside, { recursive: true });
  }
});
