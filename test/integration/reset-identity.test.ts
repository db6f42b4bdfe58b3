/**
 * Clones whose systems become others: what is cleared in real file systems, what a hostile one
 * cannot do, and that nothing is left when it fails.
 */
import { spawn } from 'node:child_process';
import {
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import type { VmSummary, VmView } from '../../src/control/protocol.js';
import { listLoopDevices } from '../../src/host/loop-devices.js';
import { readMounts } from '../../src/host/mountinfo.js';
import { findMountElsewhere } from '../../src/host/mounts-elsewhere.js';
import type { ResetOutcome } from '../../src/identity/reset.js';
import { startDaemon, type TestDaemon } from '../support/daemon.js';
import { childrenOf } from '../support/footprint.js';
import { cannotServe } from '../support/mount-guard.js';
import { checkRefusal, EXIT } from '../support/refusal.js';
import { cleanEnvironment, PROJECT, runProgram, tool } from '../support/run-program.js';

const MACHINE_ID = '0123456789abcdef0123456789abcdef\n';
const KEPT = ['/etc/hostname', '/etc/ssh/sshd_config', '/usr/bin/tool', '/var/lib/dhcp/readme'];
const CLEARED = [
  '/etc/machine-id',
  '/etc/ssh/ssh_host_ed25519_key',
  '/etc/ssh/ssh_host_ed25519_key.pub',
  '/etc/udev/rules.d/70-persistent-net.rules',
  '/var/lib/NetworkManager/secret_key',
  '/var/lib/dhcp/dhclient.eth0.leases',
  '/var/lib/dbus/machine-id',
  '/var/lib/systemd/random-seed',
].sort();

function put(root: string, path: string, text: string): void {
  mkdirSync(join(root, dirname(path)), { recursive: true });
  writeFileSync(join(root, path), text);
}

function fillSystem(root: string): void {
  for (const path of KEPT) put(root, path, `${path}\n`);
  for (const path of CLEARED) put(root, path, path.endsWith('machine-id') ? MACHINE_ID : path);
}

/** Works in a file system of a VM's disk, mounted by the daemon. */
async function inside(
  daemon: TestDaemon,
  vm: string,
  options: readonly string[],
  work: (root: string) => void | Promise<void>,
): Promise<void> {
  const root = join(daemon.folder, `inside-${vm}`);
  mkdirSync(root, { recursive: true });
  await daemon.ok('mount', vm, root, ...options);
  try {
    await work(root);
  } finally {
    await daemon.ok('unmount', root);
  }
}

/** The loop devices on disks of the daemon. */
function devices(daemon: TestDaemon): string[] {
  const ours = listLoopDevices().filter(({ file }) => file.startsWith(`${daemon.mountpoint}/`));
  return ours.map(({ device }) => device).sort();
}

/** Nothing of the work is to be seen on the host. */
function checkNothingLeft(t: Test, daemon: TestDaemon, before: readonly string[] = []) {
  t.same(devices(daemon), before, 'no loop device');
  const places = readdirSync(tmpdir()).filter((name) => name.startsWith('layerdisk-identity-'));
  t.same(places, [], 'no place to mount at');
}

async function names(daemon: TestDaemon): Promise<string[]> {
  return (await daemon.json<VmSummary[]>('list')).map(({ name }) => name);
}

interface CloneView {
  readonly identity: ResetOutcome;
}

const paths = (files: readonly { readonly path: string }[]) => files.map(({ path }) => path).sort();

/** The label of a physical volume of LVM, in its second sector. */
function lvmLabel(): Buffer {
  const sector = Buffer.alloc(512);
  sector.write('LABELONE', 0);
  sector.writeBigUInt64LE(1n, 8);
  sector.writeUInt32LE(32, 20);
  sector.write('LVM2 001', 24);
  let crc = 0xf597a6cf;
  for (const byte of sector.subarray(20)) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit += 1) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  sector.writeUInt32LE(crc >>> 0, 16);
  return sector;
}

async function onPartition(t: Test, daemon: TestDaemon) {
  await daemon.ok('create', 'web', '--disk', '48M');
  const raw = daemon.rawFile('web');
  const table = 'label: gpt\nstart=2048, size=16384, type=swap\nstart=20480\n';
  const made = await runProgram('sfdisk', ['-q', raw], { input: table });
  t.equal(made.code, 0, made.stderr);
  await tool('mkfs.ext4', ['-q', '-E', `offset=${20480 * 512}`, raw, '32M']);
  const partition = ['--partition', '2'];
  await inside(daemon, 'web', partition, fillSystem);

  const view = await daemon.json<CloneView>('clone', 'web', 'one', '--linked', '--reset-identity');
  t.same(paths(view.identity.cleared), CLEARED, 'what was cleared');
  t.same(view.identity.left, []);
  checkNothingLeft(t, daemon);
  const fsck = await runProgram('e2fsck', ['-fn', `${daemon.rawFile('one')}?offset=10485760`]);
  t.equal(fsck.code, 0, `whole afterwards: ${fsck.stdout}`);
  await inside(daemon, 'one', [...partition, '--read-only'], (root) => {
    for (const path of KEPT) t.equal(readFileSync(join(root, path), 'utf8'), `${path}\n`, path);
    t.equal(statSync(join(root, '/etc/machine-id')).size, 0, 'the machine-id is empty');
    t.same(readdirSync(join(root, '/etc/ssh')), ['sshd_config'], 'no host keys');
  });
  await inside(daemon, 'web', [...partition, '--read-only'], (root) => {
    t.equal(readFileSync(join(root, '/etc/machine-id'), 'utf8'), MACHINE_ID, 'not in the source');
  });
  const plain = await daemon.ok('clone', 'web', 'two', '--linked');
  t.match(plain, /note: inside it is still web: .*layerdisk reset-identity two/);
  t.match(await daemon.ok('reset-identity', 'two'), /cleared in two: machine-id \(2\), SSH host/);
  t.match(await daemon.ok('reset-identity', 'two'), /nothing was there/, 'once more');
}

/** Everything that could be a link or no file, is, and leads to canaries on the host. */
async function hostile(t: Test, daemon: TestDaemon) {
  const trap = join(daemon.folder, 'trap');
  const canaries = ['machine-id', 'ssh_host_rsa_key', 'x.leases', 'random-seed'];
  for (const name of canaries) put(trap, name, name);
  await daemon.ok('create', 'evil', '--disk', '320M');
  await tool('mkfs.xfs', ['-q', daemon.rawFile('evil')]);
  await inside(daemon, 'evil', [], async (root) => {
    put(root, '/usr/bin/tool', 'tool');
    put(root, '/var/lib/dhcp/dhclient.leases', 'lease');
    mkdirSync(join(root, 'etc'));
    symlinkSync(join(trap, 'machine-id'), join(root, 'etc/machine-id'));
    symlinkSync(trap, join(root, 'etc/ssh'));
    symlinkSync(`../../../../../../../../../../..${trap}`, join(root, 'var/lib/systemd'));
    mkdirSync(join(root, 'etc/udev/rules.d/70-persistent-net.rules'), { recursive: true });
    mkdirSync(join(root, 'var/lib/dbus'));
    await tool('mkfifo', [join(root, 'var/lib/dbus/machine-id')]);
    await tool('mknod', [join(root, 'var/lib/random-seed'), 'c', '1', '3']);
  });
  const view = await daemon.json<CloneView>('clone', 'evil', 'e1', '--full', '--reset-identity');
  t.same(paths(view.identity.cleared), ['/var/lib/dhcp/dhclient.leases']);
  const left = [
    '/etc/machine-id',
    '/etc/ssh',
    '/etc/udev/rules.d/70-persistent-net.rules',
    '/var/lib/dbus/machine-id',
    '/var/lib/random-seed',
    '/var/lib/systemd',
  ];
  t.same(paths(view.identity.left), left, 'what was left, and why');
  for (const name of canaries) t.equal(readFileSync(join(trap, name), 'utf8'), name, name);
  t.same(readdirSync(trap).sort(), [...canaries].sort(), 'nothing of the host was touched');
  checkNothingLeft(t, daemon);
}

async function subvolumes(t: Test, daemon: TestDaemon) {
  await daemon.ok('create', 'sub', '--disk', '128M');
  await tool('mkfs.btrfs', ['-q', daemon.rawFile('sub')]);
  await inside(daemon, 'sub', [], async (root) => {
    for (const name of ['@', '@var', '@home']) {
      await tool('btrfs', ['-q', 'subvolume', 'create', join(root, name)]);
    }
    put(root, '@/usr/bin/tool', 'tool');
    put(root, '@/etc/machine-id', MACHINE_ID);
    put(root, '@var/lib/systemd/random-seed', 'seed');
    put(root, '@home/etc/machine-id', MACHINE_ID);
  });
  const view = await daemon.json<CloneView>('clone', 'sub', 's1', '--linked', '--reset-identity');
  const cleared = ['/@/etc/machine-id', '/@var/lib/systemd/random-seed'];
  t.same(paths(view.identity.cleared), cleared, 'the system and its /var, and nobody’s home');
  checkNothingLeft(t, daemon);
}

/** As openSUSE has it: the system in a snapshot that is the default, its /var beside it. */
async function snapshotSystem(t: Test, daemon: TestDaemon) {
  await daemon.ok('create', 'suse', '--disk', '128M');
  await tool('mkfs.btrfs', ['-q', daemon.rawFile('suse')]);
  const system = '@/.snapshots/1/snapshot';
  await inside(daemon, 'suse', [], async (root) => {
    mkdirSync(join(root, 'root'));
    put(root, 'root/var/lib/systemd/random-seed', 'the home of root');
    for (const name of ['@', '@/var', '@/.snapshots']) {
      await tool('btrfs', ['-q', 'subvolume', 'create', join(root, name)]);
    }
    mkdirSync(join(root, dirname(system)));
    await tool('btrfs', ['-q', 'subvolume', 'create', join(root, system)]);
    await tool('btrfs', ['-q', 'subvolume', 'set-default', join(root, system)]);
    put(root, `${system}/usr/bin/tool`, 'tool');
    put(root, `${system}/etc/machine-id`, MACHINE_ID);
    put(root, '@/var/lib/systemd/random-seed', 'seed');
    put(root, '@/var/lib/NetworkManager/secret_key', 'key');
    put(root, '@/var/lib/misc', 'kept');
  });
  const view = await daemon.json<CloneView>('clone', 'suse', 'o1', '--full', '--reset-identity');
  t.same(paths(view.identity.cleared), [
    '/@/var/lib/NetworkManager/secret_key',
    '/@/var/lib/systemd/random-seed',
    '/etc/machine-id',
  ]);
  checkNothingLeft(t, daemon);
}

async function refusals(t: Test, daemon: TestDaemon) {
  const before = await names(daemon);
  const refused = async (vm: string, code: number, about: RegExp) => {
    const args = ['clone', vm, 'never', '--linked', '--reset-identity'];
    checkRefusal(t, await daemon.cli(args), [code], about);
    t.same(await names(daemon), before, 'no clone is left');
    const { snapshots } = await daemon.json<{ snapshots: unknown[] }>('info', vm);
    t.same(snapshots, [], 'nor a snapshot that was taken for it');
    checkNothingLeft(t, daemon);
  };
  await refused('empty', EXIT.notSupported, /no Linux system was found on the disks of "empty"/);
  await refused('lvm', EXIT.notSupported, /disk0 of "lvm" is a physical volume of LVM/);
  await refused('data', EXIT.notSupported, /no Linux system.* the clone was removed again/);
  await refused('stiff', EXIT.failed, /ssh_host_rsa_key in the guest.*removed again/);

  const nobody = { uid: 65534, gid: 65534 };
  const args = ['clone', 'web', 'never', '--linked', '--reset-identity'];
  checkRefusal(t, await daemon.cli(args, { user: nobody }), [EXIT.notPermitted], /only root/);
  const device = await daemon.ok('attach', 'one');
  const busy = await daemon.cli(['reset-identity', 'one']);
  checkRefusal(t, busy, [EXIT.busy], new RegExp(`attached as ${device}`));
  await daemon.ok('detach', 'one');
}

/** What a clone has of its own from outside: addresses and serial numbers. */
async function hardware(t: Test, daemon: TestDaemon) {
  const nics = ['--nic', 'nat', '--nic', 'internal,network=lan'];
  await daemon.ok('create', 'gold', '--disk', 'root=1M', '--disk', 'data=1M', ...nics);
  await daemon.ok('snapshot', 'take', 'gold@s');
  const serials = async (vm: string) =>
    (await daemon.json<VmView>('info', vm)).disks.map(({ serial }) => serial);
  const macs = async (vm: string) =>
    (await daemon.json<VmView>('info', vm)).nics.map(({ mac }) => mac);
  const [gold, addresses] = [await serials('gold'), await macs('gold')];

  const plain = await daemon.ok('clone', 'gold@s', 'h1', '--linked', '--mac', 'keep-nat');
  t.match(plain, new RegExp(`warning: gold has the MAC address ${addresses[0]}, too`));
  t.notMatch(plain, addresses[1] ?? '');
  t.notOk(
    (await serials('h1')).some((serial) => gold.includes(serial)),
    'new serials',
  );

  const kept = ['--serials', 'keep', '--mac', 'keep', '--vcpus', '3', '--memory', '300M'];
  await daemon.ok('clone', 'gold@s', 'h2', '--full', ...kept);
  t.same(await serials('h2'), gold, 'the serials of the source');
  t.same(await macs('h2'), addresses, 'its addresses');
  const { sharedMacs, ...view } = await daemon.json<VmView>('info', 'h2');
  t.match(view, { vcpus: 3, memory: 300 * 2 ** 20 });
  t.same(
    sharedMacs,
    [
      { mac: addresses[0], vms: ['gold', 'h1'] },
      { mac: addresses[1], vms: ['gold'] },
    ],
    'who has them, too',
  );
  await daemon.ok('snapshot', 'take', 'h2@later');
  await daemon.ok('snapshot', 'restore', 'h2@later', '--discard');
  await daemon.ok('rename', 'h2', 'h3');
  await daemon.ok('clone', 'h3', 'h4', '--linked', '--serials', 'keep');
  t.same(await serials('h3'), gold, 'through snapshot, restore and rename');
  t.same(await serials('h4'), gold, 'and a clone of the clone');
}

/** A clone whose file system takes a while to clear. */
async function prepareLongWork(daemon: TestDaemon) {
  await inside(daemon, 'data', [], (root) => {
    put(root, '/usr/bin/tool', 'tool');
    put(root, '/etc/machine-id', MACHINE_ID);
    for (let n = 0; n < 600; n += 1) put(root, `/var/lib/dhcp/${n}.lease`, 'lease');
  });
}

/**
 * Something happens to the work while the file system is mounted: all of it or nothing is done, and
 * nothing stays mounted.
 */
async function interrupted(t: Test, daemon: TestDaemon, happens: (cliPid: number) => void) {
  const before = devices(daemon);
  const args = ['clone', 'data', 'late', '--full', '--reset-identity'];
  const child = spawn(
    'env',
    ['-u', 'NODE_OPTIONS', 'node', join(PROJECT, 'dist/cli/main.js'), ...args],
    {
      env: cleanEnvironment({ LAYERDISK_STORE: daemon.store, LAYERDISK_SOCKET: daemon.socket }),
      stdio: 'ignore',
    },
  );
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
  let over = false;
  void ended.then(() => {
    over = true;
  });
  const raw = daemon.rawFile('late');
  while (!over && !listLoopDevices().some(({ file }) => file === raw)) await sleep(1);
  if (!over) happens(child.pid ?? 0);
  const code = await ended;
  t.equal(
    (await names(daemon)).includes('late'),
    code === 0,
    `ended with ${code}: a clone or none`,
  );
  checkNothingLeft(t, daemon, before);
  if (code === 0) await daemon.ok('delete', 'late');
}

/** The work begins with a copy of all mounts; it keeps none of other disks. */
async function beside(t: Test, daemon: TestDaemon) {
  await inside(daemon, 'web', ['--partition', '2'], async (root) => {
    const isThere = ({ mountpoint }: { mountpoint: string }) => mountpoint === root;
    const number = readMounts().find(isThere)?.device ?? '';
    const mounted = listLoopDevices().find(({ numbers }) => numbers.includes(number));
    if (mounted === undefined) throw new Error('the disk has no loop device');
    const copies: unknown[] = [];
    await interrupted(t, daemon, () => copies.push(findMountElsewhere(mounted)));
    t.same(copies, [undefined], 'looked once, found none');
  });
}

function killChildOf(pid: number): void {
  for (const child of childrenOf(pid)) process.kill(child, 'SIGKILL');
}

t.test('identities', { skip: cannotServe() }, async (t) => {
  const daemon = await startDaemon(t);
  await t.test('serials and addresses', (t) => hardware(t, daemon));
  await t.test('ext4 on a partition', (t) => onPartition(t, daemon));
  await t.test('a hostile XFS', (t) => hostile(t, daemon));
  await t.test('subvolumes of a btrfs', (t) => subvolumes(t, daemon));
  await t.test('a system in a snapshot', (t) => snapshotSystem(t, daemon));

  await daemon.ok('create', 'empty', '--disk', '1M');
  await daemon.ok('create', 'lvm', '--disk', '4M');
  const pv = await open(daemon.rawFile('lvm'), 'r+');
  await pv.write(lvmLabel(), 0, 512, 512);
  await pv.close();
  for (const name of ['data', 'stiff']) {
    await daemon.ok('create', name, '--disk', '32M');
    // It says that an error in it is to stop the host.
    await tool('mkfs.ext4', ['-q', '-F', '-e', 'panic', '-N', '4096', daemon.rawFile(name)]);
  }
  await inside(daemon, 'stiff', [], async (root) => {
    const mounted = readFileSync('/proc/self/mounts', 'utf8').split('\n');
    const line = mounted.find((each) => each.split(' ')[1] === root);
    t.match(line, /errors=remount-ro/, 'which the mount does not allow');
    fillSystem(root);
    put(root, '/etc/ssh/ssh_host_rsa_key', 'key');
    await tool('chattr', ['+i', join(root, '/etc/ssh/ssh_host_rsa_key')]);
    t.ok(lstatSync(join(root, '/etc/ssh/ssh_host_rsa_key')).isFile());
  });
  await t.test('refusals leave nothing', (t) => refusals(t, daemon));
  await prepareLongWork(daemon);
  await t.test('other disks meanwhile', (t) => beside(t, daemon));
  await t.test('ctrl-C leaves nothing', (t) =>
    interrupted(t, daemon, (pid) => process.kill(pid, 'SIGINT')),
  );
  await t.test('nor does a kill -9', (t) => interrupted(t, daemon, killChildOf));
});
