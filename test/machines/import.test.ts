/**
 * Whole machines through the daemon and the command line: every snapshot and the present state show
 * what the hypervisor would, over the mount, and no file of the machine changes.
 */
import { createHash } from 'node:crypto';
import { readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { mkdir, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { startDaemon, type TestDaemon } from '../support/daemon.js';
import { mergedContent, stampedModel } from '../support/disk-model.js';
import {
  type MadeMachine,
  manifestText,
  ovfText,
  SIZE,
  tarBytes,
  writeVboxMachine,
  writeVmwareMachine,
} from '../support/machine-writer.js';
import { cannotServe } from '../support/mount-guard.js';
import { tool } from '../support/run-program.js';
import { writeMonolithic } from '../support/vmdk-writer.js';

interface View {
  readonly name: string;
  readonly vcpus: number;
  readonly memory: number;
  readonly nics: readonly { mode: string; mac: string; network?: string }[];
  readonly disks: readonly { name: string; base?: { path: string } }[];
  readonly snapshots: readonly {
    name: string;
    created: string;
    message?: string;
    parent?: string;
    current: boolean;
    memory: number;
  }[];
  readonly warnings?: readonly string[];
}

const MIB = 1024 * 1024;

function fingerprints(files: readonly string[]): string[] {
  return files.map((path) => {
    const { size, mtimeMs, ctimeMs } = statSync(path);
    return `${path} ${size} ${mtimeMs} ${ctimeMs} ${readFileSync(path).toString('base64').length}`;
  });
}

async function checkContents(
  t: Test,
  daemon: TestDaemon,
  vm: string,
  contents: MadeMachine['contents'],
): Promise<void> {
  for (const [snapshot, expected] of contents) {
    const file = snapshot === '' ? daemon.rawFile(vm) : daemon.rawFile(vm, snapshot);
    const found = await readFile(file);
    t.ok(found.equals(expected), `${vm}@${snapshot} shows what it must`);
  }
}

/** Bytes that the deltas of the store take. */
async function storedBytes(daemon: TestDaemon): Promise<number> {
  const text = await tool('du', ['-s', '--block-size=1', join(daemon.store, 'deltas')]);
  return Number(text.split('\t')[0]);
}

/** The snapshots that `machine-writer.ts` makes of any kind of machine. */
function checkTree(t: Test, view: View): void {
  const expected = [
    ['First', undefined, false],
    ['Second', 'First', false],
    ['Side-branch', 'First', true],
  ].map(([name, parent, current], index) => {
    return { name, parent, current, created: `2021-03-0${index + 1}T10:20:30.000Z` };
  });
  const found = view.snapshots.map(({ name, parent, current, created }) => {
    return { name, parent, current, created };
  });
  t.strictSame(found, expected, 'the tree of snapshots');
}

function checkVboxView(t: Test, view: View): void {
  t.equal(view.name, 'Test-machine', 'its own name, by our rules');
  t.match(view, { vcpus: 2, memory: 4096 * MIB });
  t.strictSame(view.nics, [
    { mode: 'nat', mac: '08:00:27:0a:0b:0c' },
    { mode: 'internal', network: 'int-net', mac: '08:00:27:0a:0b:0d' },
  ]);
  checkTree(t, view);
  const memories = view.snapshots.map(({ memory }) => memory);
  t.strictSame(memories, [512 * MIB, 1024 * MIB, 1536 * MIB], 'the memory of each snapshot');
  t.equal(view.snapshots[2]?.message, 'Side branch: about Side branch & A');
  t.match(view.warnings?.join('\n'), /DVD drive[\s\S]*USB[\s\S]*shared folder "work"/);
}

async function goesOn(t: Test, daemon: TestDaemon, made: MadeMachine): Promise<void> {
  writeFileSync(daemon.rawFile('alone'), Buffer.alloc(4096, 'new'), { flag: 'r+' });
  await daemon.ok('snapshot', 'restore', 'alone@Second', '--save-current', 'kept');
  t.ok((await readFile(daemon.rawFile('alone'))).equals(made.contents.get('Second')!));
  await daemon.ok('snapshot', 'delete', 'alone@First');
  await daemon.ok('gc');
  await daemon.stop();
  await daemon.start();
  const rest = new Map([...made.contents].filter(([name]) => name !== '' && name !== 'First'));
  await checkContents(t, daemon, 'alone', rest);
  const kept = Buffer.from(made.contents.get('')!);
  Buffer.alloc(4096, 'new').copy(kept);
  await checkContents(t, daemon, 'alone', new Map([['kept', kept]]));
}

async function checkVirtualBox(t: Test, daemon: TestDaemon, place: string): Promise<void> {
  const folder = join(place, 'machine');
  const made = writeVboxMachine(folder);
  const before = fingerprints(made.files);
  const view = await daemon.json<View>('import', made.path);
  checkVboxView(t, view);
  await checkContents(t, daemon, 'Test-machine', made.contents);
  t.match(await daemon.ok('tree', 'Test-machine'), /First[\s\S]*Side-branch[\s\S]*current/);
  t.match(await daemon.ok('info', 'Test-machine'), /Snapshots\/\{now\}\.vdi/);

  const copied = await daemon.cli([
    'import',
    made.path,
    'alone',
    '--copy',
    '--vcpus',
    '7',
    '--json',
  ]);
  t.equal(copied.code, 0, copied.stderr);
  const alone = JSON.parse(copied.stdout) as View;
  t.match(alone, { name: 'alone', vcpus: 7, memory: 4096 * MIB });
  t.not(alone.nics[0]?.mac, '08:00:27:0a:0b:0c', 'two VMs have not one address');
  t.match(alone.warnings?.join('\n'), /MAC address 08:00:27:0a:0b:0c became/);
  t.strictSame(fingerprints(made.files), before, 'no file of the machine has changed');
  await daemon.ok('delete', 'Test-machine');
  rmSync(folder, { recursive: true });
  await checkContents(t, daemon, 'alone', made.contents);

  await t.test('and it goes on as any other VM', (t) => goesOn(t, daemon, made));
}

async function checkSharing(t: Test, daemon: TestDaemon, place: string): Promise<void> {
  const made = writeVboxMachine(join(place, 'machine'), { isNew: true });
  // What earlier machines left goes first.
  await daemon.ok('gc');
  const before = await storedBytes(daemon);
  await daemon.ok('import', made.path, 'alone', '--copy');
  await checkContents(t, daemon, 'alone', made.contents);
  await daemon.ok('gc');
  // Blocks that the four images hold themselves; flattened, it would be all of every state.
  const flat = [...made.contents.values()].reduce((sum, bytes) => sum + dataBytes(bytes), 0);
  const stored = (await storedBytes(daemon)) - before;
  t.ok(stored < 0.7 * flat, `${stored} bytes instead of ${flat}`);
  t.comment(`${stored} bytes stored, ${flat} would be needed without sharing`);
}

function dataBytes(content: Buffer): number {
  let count = 0;
  for (let at = 0; at < content.length; at += 4096) {
    if (content.subarray(at, at + 4096).some((byte) => byte !== 0)) count += 4096;
  }
  return count;
}

async function checkVmware(t: Test, daemon: TestDaemon, place: string): Promise<void> {
  const made = writeVmwareMachine(join(place, 'machine'));
  const before = fingerprints(made.files);
  const view = await daemon.json<View>('import', made.path, 'vm');
  t.match(view, { name: 'vm', vcpus: 4, memory: 2048 * MIB });
  t.match(view.nics, [
    { mode: 'nat', mac: '00:0c:29:01:02:03' },
    { mode: 'internal', network: 'VMnet2' },
  ]);
  checkTree(t, view);
  t.match(view.warnings?.join('\n'), /CD drive ide1:0[\s\S]*USB[\s\S]*\.vmsn/);
  await checkContents(t, daemon, 'vm', made.contents);
  await daemon.ok('import', made.path, 'alone', '--copy');
  await checkContents(t, daemon, 'alone', made.contents);
  t.strictSame(fingerprints(made.files), before, 'no file of the machine has changed');
}

async function checkAppliance(t: Test, daemon: TestDaemon, place: string): Promise<void> {
  const folder = join(place, 'appliance');
  await mkdir(folder);
  const model = stampedModel({ size: SIZE, unitSize: 65536, pattern: 'duddz', salt: 9 });
  const contents = new Map([['', mergedContent([model])]]);
  writeMonolithic(join(folder, 'disk 1.vmdk'), model, { stream: 'end', zeroedGrains: true });
  const disk = readFileSync(join(folder, 'disk 1.vmdk'));
  const ovf = Buffer.from(ovfText(disk.length).replace('disk 1.vmdk', 'disk%201.vmdk'));
  writeFileSync(join(folder, 'a.ovf'), ovf);
  writeFileSync(join(folder, 'a.mf'), manifestText({ 'a.ovf': ovf, 'disk 1.vmdk': disk }));
  const view = await daemon.json<View>('import', join(folder, 'a.ovf'));
  t.match(view, { name: 'Appliance-1.0', vcpus: 3, memory: 768 * MIB });
  t.match(view.nics, [{ mode: 'nat', network: 'VM-Network' }]);
  await checkContents(t, daemon, 'Appliance-1.0', contents);

  const ova = join(place, 'box.ova');
  const members = { 'a.ovf': Buffer.from(ovfText(disk.length)), 'disk 1.vmdk': disk };
  const manifest = Buffer.from(manifestText(members, 'sha1'));
  const entries = Object.entries({ ...members, 'a.mf': manifest });
  writeFileSync(ova, tarBytes(entries.map(([name, bytes]) => ({ name, bytes }))));
  const before = fingerprints([ova]);
  const inPlace = await daemon.json<View>('import', ova, 'box');
  t.equal(inPlace.disks[0]?.base?.path, ova, 'read where it lies');
  await checkContents(t, daemon, 'box', contents);
  writeFileSync(daemon.rawFile('box'), Buffer.alloc(700, 'x'), { flag: 'r+' });
  await daemon.ok('import', ova, 'copied', '--copy');
  await daemon.stop();
  await daemon.start();
  const written = Buffer.from(contents.get('')!);
  Buffer.alloc(700, 'x').copy(written);
  await checkContents(t, daemon, 'box', new Map([['', written]]));
  t.strictSame(fingerprints([ova]), before, 'the archive has not changed');

  await t.test('what changes in the archive is noticed, and can be accepted', async (t) => {
    await daemon.ok('snapshot', 'take', 'box@kept');
    const bytes = readFileSync(ova);
    // In the manifest, behind the disk.
    bytes[bytes.indexOf('SHA1(a.ovf)')] = 'X'.charCodeAt(0);
    await daemon.stop();
    writeFileSync(ova, bytes);
    await daemon.start();
    await t.rejects(readFile(daemon.rawFile('box')), { code: 'EIO' });
    await daemon.ok('base', 'accept', 'box');
    await checkContents(t, daemon, 'box', new Map([['', written]]));
    await checkContents(t, daemon, 'copied', contents);
  });
}

async function checkRoundTrip(t: Test, daemon: TestDaemon, place: string): Promise<void> {
  await daemon.ok(
    ...['create', 'web', '--disk', 'root=3M', '--disk', 'data=1M', '--vcpus', '3'],
    ...['--memory', '734003201', '--nic', 'none', '--nic', 'nat', '--nic', 'host-only'],
  );
  const root = stampedModel({ size: 3 * MIB, unitSize: 65536, pattern: 'duuddu', salt: 3 });
  writeFileSync(daemon.rawFile('web', undefined, 'root'), root.content, { flag: 'r+' });
  await daemon.ok('snapshot', 'take', 'web@kept');
  writeFileSync(daemon.rawFile('web', undefined, 'data'), Buffer.alloc(MIB, 'new'), { flag: 'r+' });
  const folder = join(place, 'out');
  await mkdir(folder);
  const ova = join(folder, 'web.ova');
  await daemon.ok('export', 'web', ova);
  await daemon.ok('export', 'web@kept', join(folder, 'kept.ova'), '--ova');
  t.strictSame((await readdir(folder)).sort(), ['kept.ova', 'web.ova'], 'nothing else is left');
  const members = await tool('tar', ['-tf', ova]);
  t.equal(members, 'web.ovf\nweb.mf\nweb-root.vmdk\nweb-data.vmdk\n', 'the order that OVF wants');
  await tool('tar', ['-xf', ova, '-C', folder]);
  await tool('qemu-img', ['check', '-q', join(folder, 'web-root.vmdk')]);
  await tool('qemu-img', ['check', '-q', join(folder, 'web-data.vmdk')]);
  checkStatements(t, folder, ['web.ovf', 'web-root.vmdk', 'web-data.vmdk']);
  for (const [path, vm] of [
    [ova, 'back'],
    [join(folder, 'kept.ova'), 'old'],
    [join(folder, 'web.ovf'), 'unpacked'],
  ] as const) {
    const view = await daemon.json<View>('import', path, vm);
    t.match(view, { vcpus: 3, memory: 701 * MIB }, 'memory in MiB, never less than there was');
    t.strictSame(
      view.nics.map(({ mode }) => mode),
      ['none', 'nat', 'host-only'],
    );
    t.equal(view.warnings, undefined, 'all of it is understood');
    const data = vm === 'old' ? Buffer.alloc(MIB) : Buffer.alloc(MIB, 'new');
    t.ok((await readFile(daemon.rawFile(vm))).equals(root.content), `${vm}: the first disk`);
    t.ok((await readFile(daemon.rawFile(vm, undefined, 'disk1'))).equals(data), 'the second');
  }
  const again = await daemon.cli(['export', 'web', ova]);
  t.equal(again.code, 5, 'nothing is replaced unasked');
  const spared = await daemon.cli(['export', 'web', ova, '--force']);
  t.equal(spared.code, 5, 'nor at all when a VM stands on it');
  const wrong = await daemon.cli(['export', 'web', join(folder, 'x.ova'), '--disk', 'root']);
  t.equal(wrong.code, 2, 'one disk is no machine');
}

/** What an unpacked archive's manifest and descriptor say of its files. */
function checkStatements(t: Test, folder: string, names: readonly string[]): void {
  const lines = names.map((name) => {
    const hash = createHash('sha256').update(readFileSync(join(folder, name)));
    return `SHA256(${name})= ${hash.digest('hex')}\n`;
  });
  t.equal(readFileSync(join(folder, 'web.mf'), 'utf8'), lines.join(''), 'the digests are right');
  const text = readFileSync(join(folder, 'web.ovf'), 'utf8');
  const sizes = [...text.matchAll(/ovf:href="([^"]+)" ovf:size="(\d+)"/g)];
  t.strictSame(
    sizes.map(([, name, size]) => [name, Number(size)]),
    names.slice(1).map((name) => [name, statSync(join(folder, name)).size]),
    'and so are the sizes',
  );
}

/** A name without the VM's is not the one of another disk with it. */
async function checkNamesAlike(t: Test, daemon: TestDaemon, place: string): Promise<void> {
  const vm = 'v'.repeat(50);
  const disks = ['d', `${vm}-d`];
  await daemon.ok('create', vm, ...disks.flatMap((disk) => ['--disk', `${disk}=1M`]));
  const ova = join(place, 'alike.ova');
  await daemon.ok('export', vm, ova);
  const members = `${vm}.ovf\n${vm}.mf\n${disks.map((disk) => `${disk}.vmdk\n`).join('')}`;
  t.equal(await tool('tar', ['-tf', ova]), members);
  t.equal((await daemon.json<View>('import', ova, 'back')).disks.length, 2);
}

/** Together they are longer than the name of a member may be. */
async function checkLongNames(t: Test, daemon: TestDaemon, place: string): Promise<void> {
  const vm = 'v'.repeat(64);
  const disk = 'd'.repeat(64);
  await daemon.ok('create', vm, '--disk', `${disk}=1M`);
  writeFileSync(daemon.rawFile(vm, undefined, disk), Buffer.alloc(MIB, 'long'), { flag: 'r+' });
  const ova = join(place, 'long.ova');
  await daemon.ok('export', vm, ova);
  t.equal(await tool('tar', ['-tf', ova]), `${vm}.ovf\n${vm}.mf\n${disk}.vmdk\n`);
  await daemon.ok('import', ova, 'back');
  t.ok((await readFile(daemon.rawFile('back'))).equals(Buffer.alloc(MIB, 'long')));
}

async function checkLibvirt(t: Test, daemon: TestDaemon, place: string): Promise<void> {
  const images = join(place, 'images');
  await mkdir(images);
  const disk = join(images, 'web.qcow2');
  await tool('qemu-img', ['create', '-q', '-f', 'qcow2', disk, '1M']);
  await tool('qemu-io', ['-f', 'qcow2', '-c', 'write -P 7 64k 64k', disk]);
  const content = Buffer.alloc(MIB);
  content.fill(7, 65536, 131072);
  const path = join(place, 'web.xml');
  writeFileSync(
    path,
    `<domain type='kvm'><name>web</name><memory unit='MiB'>300</memory>
     <currentMemory unit='KiB'>1024</currentMemory><vcpu placement='static'>2</vcpu>
     <devices><disk type='file' device='disk'><driver name='qemu' type='qcow2'/>
     <source file='${disk}'/><target dev='vda' bus='virtio'/></disk>
     <disk type='file' device='cdrom'><target dev='sda'/></disk>
     <interface type='bridge'><mac address='52:54:00:aa:bb:cc'/><source bridge='br0'/></interface>
     </devices></domain>`,
  );
  const view = await daemon.json<View>('import', path);
  t.match(view, { name: 'web', vcpus: 2, memory: 300 * MIB });
  t.strictSame(view.nics, [{ mode: 'bridged', mac: '52:54:00:aa:bb:cc', network: 'br0' }]);
  await checkContents(t, daemon, 'web', new Map([['', content]]));
}

/** Each test has a folder of its own, and leaves the daemon without VMs for the next one. */
const TESTS = {
  'a machine of VirtualBox, referenced and copied': checkVirtualBox,
  'a copy stores what the snapshots share once': checkSharing,
  'a machine of VMware with its snapshots': checkVmware,
  'an appliance, as OVF and as OVA': checkAppliance,
  'a VM goes out as an OVA and comes back the same': checkRoundTrip,
  'an OVA of a VM and a disk with long names': checkLongNames,
  'an OVA of disks whose names are alike': checkNamesAlike,
  'a domain of libvirt': checkLibvirt,
};

t.test('whole machines', { skip: cannotServe() }, async (t) => {
  const daemon = await startDaemon(t);
  for (const [index, [name, check]] of Object.entries(TESTS).entries()) {
    const place = join(daemon.folder, `place${index}`);
    await mkdir(place);
    await t.test(name, (t) => check(t, daemon, place));
    for (const vm of await daemon.json<readonly View[]>('list')) {
      await daemon.ok('delete', vm.name);
    }
  }
});
