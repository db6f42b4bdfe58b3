/**
 * Files by which other hypervisors run on the exposed disks: read again by our own importer, judged
 * by libvirt's schema, and the disks by qemu-img.
 */
import { open, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { MachineFilesView, VmView } from '../../src/control/protocol.js';
import type { MachineDescription } from '../../src/machines/machine.js';
import { readMachine } from '../../src/machines/read-machine.js';
import { startDaemon, type TestDaemon } from '../support/daemon.js';
import { cannotValidate, validateDomain } from '../support/libvirt-schema.js';
import { cannotServe } from '../support/mount-guard.js';
import { checkRefusal, EXIT } from '../support/refusal.js';
import { tool } from '../support/run-program.js';

const MIB = 2 ** 20;
const NICS = ['nat', 'bridged,network=br7', 'host-only', 'internal,network=lan', 'none'];

async function pattern(path: string, byte: number, offset: number, length: number) {
  const file = await open(path, 'r+');
  await file.write(Buffer.alloc(length, byte), 0, length, offset);
  await file.close();
}

async function bytesAt(path: string, offset: number, length: number): Promise<Buffer> {
  const file = await open(path, 'r');
  const buffer = Buffer.alloc(length);
  await file.read(buffer, 0, length, offset);
  await file.close();
  return buffer;
}

/** What our importer makes of a machine file; the disks may lie in the mount. */
function readBack({ mountpoint }: TestDaemon, path: string): MachineDescription {
  return readMachine(path, { allowFolders: [mountpoint] });
}

function checkHardware(t: Test, machine: MachineDescription, vm: VmView, memory = vm.memory) {
  const { hardware } = machine;
  t.equal(machine.name, 'web');
  t.equal(hardware.vcpus, vm.vcpus, 'vCPUs');
  t.equal(hardware.memory, memory, 'memory');
  t.strictSame(
    hardware.nics.map(({ mac }) => mac),
    vm.nics.map(({ mac }) => mac),
    'MAC addresses',
  );
  t.equal(machine.disks.length, vm.disks.length, 'disks');
}

function modes(machine: MachineDescription): string[] {
  return machine.hardware.nics.map(({ mode }) => mode);
}

/** The same bytes through the descriptor as in the raw file, and writes arrive there. */
async function checkDescriptor(t: Test, vmdk: string, raw: string, byte: number) {
  const info = JSON.parse(await tool('qemu-img', ['info', '--output=json', vmdk]));
  t.equal(info.format, 'vmdk', 'QEMU knows it for a VMDK');
  await tool('qemu-img', ['compare', '-f', 'vmdk', '-F', 'raw', vmdk, raw]);
  await tool('qemu-io', ['-f', 'vmdk', '-c', `write -P ${byte} 2M 64k`, '-c', 'flush', vmdk]);
  t.same(await bytesAt(raw, 2 * MIB, 65536), Buffer.alloc(65536, byte), 'a write arrives');
  await tool('qemu-img', ['compare', '-f', 'vmdk', '-F', 'raw', vmdk, raw]);
}

/** What the subtests share. */
interface World {
  readonly daemon: TestDaemon;
  readonly place: (name: string) => string;
  /** The raw files. */
  readonly root: string;
  readonly data: string;
  readonly vm: VmView;
}

async function libvirtDomain(t: Test, { daemon, place, root, data, vm }: World) {
  const xml = place('web.xml');
  const view = await daemon.json<MachineFilesView>('export', 'web', '--libvirt-xml', xml);
  t.strictSame(view.files, [xml]);
  t.match(view.notes.join('\n'), /NIC 2 \(host-only\): .*ldho.*\n.*NIC 3 \(internal\): .*"lan"/);
  const machine = readBack(daemon, xml);
  checkHardware(t, machine, vm);
  // libvirt keeps isolated networks, and bridges of the host, apart from the domain.
  t.strictSame(modes(machine), ['nat', 'bridged', 'bridged', 'nat', 'none']);
  t.strictSame(
    machine.disks.map(({ image }) => [image?.path, image?.format]),
    [
      [root, 'raw'],
      [data, 'raw'],
    ],
    'the raw files themselves',
  );
  const text = await readFile(xml, 'utf8');
  for (const { serial } of vm.disks) t.ok(text.includes(`<serial>${serial}</serial>`), serial);
  t.match(text, /cache="none" io="native" discard="unmap" detect_zeroes="unmap"/);
  t.match(text, /detect_zeroes="off"/, 'a static disk keeps its zeroes');
  t.equal(await daemon.ok('export', 'web', '--libvirt-xml', '-'), text.trimEnd(), 'as a stream');
  await t.test('by its schema', { skip: cannotValidate() }, async (t) => {
    const { code, stderr } = await validateDomain(xml);
    t.equal(code, 0, stderr);
    await writeFile(xml, text.replace('discard="unmap"', 'discard="perhaps"'));
    t.not((await validateDomain(xml)).code, 0, 'the schema finds what is wrong');
  });
}

async function virtualBox(t: Test, { daemon, place, root, data, vm }: World) {
  const vbox = place('web.vbox');
  const files = [vbox, place('web-root.vmdk'), place('web-data.vmdk')];
  const view = await daemon.json<MachineFilesView>('export', 'web', '--vbox', vbox);
  t.strictSame(view.files, files);
  const machine = readBack(daemon, vbox);
  checkHardware(t, machine, vm);
  t.strictSame(modes(machine), ['nat', 'bridged', 'host-only', 'internal', 'none']);
  t.equal(machine.hardware.nics[3]?.network, 'lan');
  t.strictSame(
    machine.disks.map(({ image }) => image?.path),
    files.slice(1),
  );
  await checkDescriptor(t, files[1]!, root, 0x51);
  await checkDescriptor(t, files[2]!, data, 0x52);
  const kept = await bytesAt(daemon.rawFile('web', 'before', 'root'), 2 * MIB, 65536);
  t.same(kept, Buffer.alloc(65536), 'the snapshot has nothing of it');

  const [settings, descriptor] = await Promise.all([readFile(vbox), readFile(files[1]!)]);
  const uuid = /uuid\.image = "(.*)"/.exec(descriptor.toString())?.[1] ?? 'none';
  t.ok(settings.includes(`<HardDisk uuid="{${uuid}}"`), 'the registry knows the image by it');
  t.match(settings.toString(), /type="Writethrough"/, 'not in snapshots of VirtualBox');
  await daemon.ok('export', 'web', '--vbox', vbox, '--force');
  t.ok((await readFile(files[1]!)).includes(uuid), 'it keeps its UUID when written again');
}

async function vmware(t: Test, { daemon, place, root, vm }: World) {
  const vmx = place('other.vmx');
  const view = await daemon.json<MachineFilesView>('export', 'web', '--vmx', vmx);
  t.match(view.notes.join('\n'), /rounded up from 538968064 to 541065216/);
  const machine = readBack(daemon, vmx);
  checkHardware(t, machine, vm, 516 * MIB);
  t.strictSame(modes(machine), ['nat', 'bridged', 'host-only', 'internal', 'none']);
  t.strictSame(
    machine.disks.map(({ image }) => image?.path),
    [place('other-root.vmdk'), place('other-data.vmdk')],
  );
  t.match(await readFile(vmx, 'utf8'), /scsi0:1\.mode = "independent-persistent"/);
  await checkDescriptor(t, place('other-root.vmdk'), root, 0x53);
}

async function oneDisk(t: Test, { daemon, place, data }: World) {
  const vmdk = place('data.vmdk');
  await daemon.ok('export', 'web', '--vmdk-descriptor', vmdk, '--disk', 'data');
  await checkDescriptor(t, vmdk, data, 0x54);
  const both = ['export', 'web', '--vmdk-descriptor', place('x.vmdk')];
  checkRefusal(t, await daemon.cli(both), [EXIT.usage], /2 disks: root, data/);
}

async function refusals(t: Test, { daemon, place, root }: World) {
  const refused = async (code: number, about: RegExp, ...args: string[]) =>
    checkRefusal(t, await daemon.cli(['export', 'web', ...args]), [code], about);
  await refused(EXIT.exists, /web\.vbox exists/, '--vbox', place('web.vbox'));
  await refused(EXIT.usage, /must end in \.vmx/, '--vmx', place('web.vbox'));
  await refused(EXIT.notFound, /no such folder/, '--vmx', place('nowhere/web.vmx'));
  const inMount = join(daemon.mountpoint, 'web', 'a.vmdk');
  await refused(EXIT.usage, /layerdisk itself/, '--vmdk-descriptor', inMount, '--disk', 'root');
  await writeFile(place('web-data.vmdk'), 'somebody has put another disk here');
  await refused(EXIT.exists, /web-data\.vmdk.*no disk/, '--vbox', place('web.vbox'), '--force');
  t.match(await readFile(place('web-data.vmdk'), 'utf8'), /^somebody/, 'and left as it was');

  const holder = await open(root, 'r+');
  await refused(EXIT.busy, /process \d+ .* has .*root\.raw open/, '--vmx', place('new.vmx'));
  await holder.close();
  await daemon.ok('create', 'guest', '--disk', '1M');
  await daemon.ok('run', 'guest', '--detach', '--accel', 'tcg');
  t.teardown(() => daemon.cli(['stop', 'guest', '--force']));
  const running = await daemon.cli(['export', 'guest', '--libvirt-xml', '-']);
  checkRefusal(t, running, [EXIT.busy], /"guest" already runs/);
  t.match(running.stderr, /hint: end it first: layerdisk stop guest/);
}

t.test('machine files', { skip: cannotServe() }, async (t) => {
  const daemon = await startDaemon(t);
  const place = (name: string) => join(daemon.folder, name);
  const nics = NICS.flatMap((nic) => ['--nic', nic]);
  const disks = ['--disk', 'root=8M', '--disk', 'data=4M,allocation=static'];
  await daemon.ok('create', 'web', ...disks, '--vcpus', '3', '--memory', '514M', ...nics);
  const root = daemon.rawFile('web', undefined, 'root');
  const data = daemon.rawFile('web', undefined, 'data');
  await pattern(root, 7, MIB, MIB);
  await daemon.ok('snapshot', 'take', 'web@before');
  await pattern(data, 9, 0, MIB);
  const vm = await daemon.json<VmView>('info', 'web');
  const world = { daemon, place, root, data, vm };
  await t.test('a domain of libvirt', (t) => libvirtDomain(t, world));
  await t.test('a machine of VirtualBox', (t) => virtualBox(t, world));
  await t.test('a machine of VMware', (t) => vmware(t, world));
  await t.test('one disk', (t) => oneDisk(t, world));
  await t.test('what is refused', (t) => refusals(t, world));
});
