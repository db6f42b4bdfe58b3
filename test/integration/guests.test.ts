/**
 * Real guests on the exposed disks: their hardware, their networks, snapshots under them, and what
 * may not be done while they run.
 */
import { readdirSync } from 'node:fs';
import { open, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { MiB } from '../../src/common/units.js';
import type { GuestView, SnapshotView, VmSummary, VmView } from '../../src/control/protocol.js';
import { startDaemon, type TestDaemon } from '../support/daemon.js';
import { cannotBoot, TestGuest } from '../support/guest.js';
import { checkRefusal, EXIT } from '../support/refusal.js';
import { runProgram, tool } from '../support/run-program.js';
import { ask, askOnce, cannotResend, eventually, successor } from '../support/takeover.js';

const skip = cannotBoot();
const MEMORY_MIB = [96, 128, 112, 144];
/** What the kernel keeps for itself of a small memory, at most. */
const KERNEL_MIB = 48;

async function fsckClean(t: Test, path: string) {
  const { code, stdout } = await runProgram('e2fsck', ['-fn', path]);
  t.equal(code, 0, `e2fsck of ${path}: ${stdout}`);
}

/** `golden` with a file system that holds a word, a snapshot of it, and four linked clones. */
async function makeClones(daemon: TestDaemon) {
  await daemon.ok('create', 'golden', '--disk', '32M');
  await tool('mkfs.ext4', ['-q', '-F', daemon.rawFile('golden')]);
  await tool('debugfs', ['-w', '-R', 'write /etc/hostname word', daemon.rawFile('golden')]);
  await daemon.ok('snapshot', 'take', 'golden@base');
  for (const [index, memory] of MEMORY_MIB.entries()) {
    const network = index === 2 ? 'other' : 'lan';
    const nics = ['--nic', `internal,network=${network}`];
    if (index === 3) nics.push('--nic', 'internal,network=other', '--nic', 'none');
    const hardware = ['--vcpus', String(index + 1), '--memory', `${memory}M`, ...nics];
    await daemon.ok('clone', 'golden@base', `c${index}`, '--linked', ...hardware);
  }
}

async function checkHardware(t: Test, guest: TestGuest, vm: VmView) {
  t.equal(await guest.ask('nproc'), String(vm.vcpus), `${vm.name}: vCPUs`);
  const total = /\d+/.exec(await guest.ask('grep MemTotal /proc/meminfo'))?.[0];
  const mib = Number(total) / 1024;
  const given = vm.memory / 2 ** 20;
  t.ok(mib <= given && mib > given - KERNEL_MIB, `${vm.name}: ${mib} of ${given} MiB`);
  const macs = await guest.ask('cat /sys/class/net/eth*/address');
  t.same(
    macs.split('\n'),
    vm.nics.map(({ mac }) => mac),
    `${vm.name}: MAC addresses`,
  );
  const serial = await guest.ask('cat /sys/block/vda/serial');
  t.equal(serial, vm.disks[0]?.serial, `${vm.name}: serial of the disk`);
}

type Four = readonly [TestGuest, TestGuest, TestGuest, TestGuest];

async function checkNetworks(t: Test, [one, two, three, both]: Four) {
  const address = (guest: TestGuest, nic: string, ip: string) =>
    guest.ask(`ip link set ${nic} up; ip addr add ${ip}/24 dev ${nic}`);
  await address(one, 'eth0', '10.9.1.1');
  await address(two, 'eth0', '10.9.1.2');
  await address(three, 'eth0', '10.9.1.3');
  await address(both, 'eth0', '10.9.1.4');
  const ping = async (from: TestGuest, to: string) => {
    const said = await from.ask(`ping -c 3 -w 20 ${to} >/dev/null && echo reached`);
    return said.includes('reached');
  };
  t.ok(await ping(one, '10.9.1.2'), 'two guests on one network reach each other');
  t.ok(await ping(both, '10.9.1.1'), 'a third one, too');
  const strayed = await three.ask('ping -c 3 -W 1 10.9.1.1 >/dev/null || echo nobody');
  t.equal(strayed, 'nobody', 'a guest on another network does not');

  // The one with two cards routes between them.
  await address(both, 'eth1', '10.9.2.4');
  await both.ask('echo 1 >/proc/sys/net/ipv4/ip_forward');
  await three.ask('ip addr flush dev eth0; ip addr add 10.9.2.3/24 dev eth0');
  await three.ask('ip route add 10.9.1.0/24 via 10.9.2.4');
  await one.ask('ip route add 10.9.2.0/24 via 10.9.1.4');
  t.ok(await ping(three, '10.9.1.1'), 'a guest on both networks routes between them');
}

t.test('four linked clones, each with its own hardware', { skip }, async (t) => {
  const daemon = await startDaemon(t);
  await makeClones(daemon);
  const names = MEMORY_MIB.map((_, index) => `c${index}`);
  const guests = await Promise.all(names.map((name) => TestGuest.boot(t, daemon, name)));
  const four = guests as unknown as Four;
  const [one, two, three] = four;
  const vms = await Promise.all(names.map((name) => daemon.json<VmView>('info', name)));
  await Promise.all(guests.map((guest, index) => checkHardware(t, guest, vms[index]!)));
  const running = (await daemon.json<VmSummary[]>('list')).filter(({ guest }) => guest);
  t.same(
    running.map(({ name }) => name),
    names,
    'the list shows who runs',
  );

  await t.test('internal networks', (t) => checkNetworks(t, four));

  await t.test('what they write', async (t) => {
    const word = (await readFile('/etc/hostname', 'utf8')).trim();
    await Promise.all(
      guests.map(async (guest, index) => {
        await guest.ask('mount /dev/vda /mnt');
        t.equal(await guest.ask('cat /mnt/word'), word, 'the word that the host wrote');
        await guest.ask(`echo c${index} >/mnt/name`);
      }),
    );
    one.type('umount /mnt; poweroff -f');
    t.equal(await one.ended, 0, 'powered off from inside');
    await daemon.ok('stop', 'c1');
    t.equal(await two.ended, 0, 'powered off by its power button');
    await daemon.ok('stop', 'c2', '--force');
    t.equal(await three.ended, 0, 'ended by force');
    checkRefusal(t, await daemon.cli(['stop', 'c2']), [EXIT.notFound], /c2/);
    for (const index of [0, 1]) {
      await fsckClean(t, daemon.rawFile(`c${index}`));
      const name = await tool('debugfs', ['-R', 'cat name', daemon.rawFile(`c${index}`)]);
      t.equal(name.trim(), `c${index}`, 'each clone has its own');
    }
    await fsckClean(t, daemon.rawFile('golden'));
  });
});

/** Of the disk for records: more than a guest writes during the test. */
const LOG_BYTES = 8 * MiB;

/** Records that the writer in the guest puts into sectors 0, 1, 2, ... one after the other. */
const WRITER = [
  'n=0; while true; do printf "%0512d" $n |',
  'dd of=/dev/vdb bs=512 seek=$n oflag=direct conv=notrunc 2>/dev/null;',
  'n=$((n+1)); echo $n >/tmp/m; mv /tmp/m /tmp/n; done &',
].join(' ');

/** How many records there are; fails if they are no prefix. */
async function countRecords(t: Test, path: string, what: string): Promise<number> {
  const file = await open(path, 'r');
  try {
    const { buffer } = await file.read(Buffer.alloc(LOG_BYTES), 0, LOG_BYTES, 0);
    let count = 0;
    while (buffer.toString('latin1', count * 512, count * 512 + 512) === pad(count)) count += 1;
    t.ok(
      buffer.subarray(count * 512).every((byte) => byte === 0),
      `${what}: a prefix of ${count}`,
    );
    return count;
  } finally {
    await file.close();
  }
}

function pad(number: number): string {
  return String(number).padStart(512, '0');
}

t.test('snapshots while it writes, and what is refused meanwhile', { skip }, async (t) => {
  const daemon = await startDaemon(t, { supervise: cannotResend() === false });
  const disks = ['--disk', 'root=32M', '--disk', 'log=8M'];
  disks.push('--disk', 'fixed=1M,kind=read-only', '--disk', 'scratch=1M,kind=immutable');
  await daemon.ok('create', 'web', ...disks, '--memory', '128M', '--nic', 'nat');
  await tool('mkfs.ext4', ['-q', '-F', daemon.rawFile('web', undefined, 'root')]);
  await daemon.ok('snapshot', 'take', 'web@before');
  const guest = await TestGuest.boot(t, daemon, 'web');
  await guest.ask('mount /dev/vda /mnt');
  await guest.ask(WRITER);
  await guest.ask('while true; do date >>/mnt/dates; done & sleep 1');

  const take = async (name: string) =>
    (await daemon.json<{ consistency: string }>('snapshot', 'take', `web@${name}`)).consistency;
  t.match(await take('paused'), /^paused: /, 'without an agent it is paused');
  t.equal(await guest.ask('echo goes on'), 'goes on');
  await guest.ask('qemu-ga -d -p /dev/vport*; sleep 2; killall -STOP qemu-ga');
  t.match(await take('hung'), /^paused: .*the guest agent did not answer within/, 'an agent hangs');
  await guest.ask('killall -CONT qemu-ga');
  t.match(await take('frozen'), /^frozen: /, 'with an agent its file systems are frozen');
  t.equal(await guest.ask('touch /mnt/thawed && echo thawed'), 'thawed');

  const first = await countRecords(t, daemon.rawFile('web', 'paused', 'log'), 'paused');
  const hung = await countRecords(t, daemon.rawFile('web', 'hung', 'log'), 'hung');
  const second = await countRecords(t, daemon.rawFile('web', 'frozen', 'log'), 'frozen');
  t.ok(first > 0 && hung > first && second > hung, 'the writer went on in between');
  // Without replaying its journal: the superblock says that there is nothing to replay.
  const features = await tool('dumpe2fs', ['-h', daemon.rawFile('web', 'frozen', 'root')]);
  t.notMatch(features, /needs_recovery/, 'the frozen file system is whole');
  await fsckClean(t, daemon.rawFile('web', 'frozen', 'root'));

  await checkRefusals(t, daemon);
  const { vm } = await daemon.json<{ vm: VmView }>('clone', 'web', 'twin', '--linked');
  t.equal(vm.guest, undefined, 'a clone of it does not run');
  await countRecords(t, daemon.rawFile('twin', undefined, 'log'), 'the clone');

  await t.test('the daemon is killed under it', { skip: cannotResend() }, (t) =>
    checkKilled(t, daemon, guest),
  );
  await t.test('its memory', (t) => checkMemory(t, daemon, guest));

  await daemon.ok('snapshot', 'restore', 'web@paused', '--discard');
  const restored = await countRecords(t, daemon.rawFile('web', undefined, 'log'), 'restored');
  t.equal(restored, first);
});

/** Answers when the writer has gone on by some records since it was asked. */
async function writerGoesOn(guest: TestGuest): Promise<boolean> {
  const wait = 'was=$(cat /tmp/n); until [ $(cat /tmp/n) -gt $((was+5)) ]; do sleep 0.1; done';
  return (await guest.ask(`${wait}; echo wrote`)) === 'wrote';
}

async function checkKilled(t: Test, daemon: TestDaemon, guest: TestGuest): Promise<void> {
  for (const time of ['once', 'twice']) {
    const former = daemon.servingPid;
    process.kill(former, 'SIGKILL');
    t.ok(await writerGoesOn(guest), `${time}: the guest waits, and goes on`);
    await eventually('the next daemon', () => successor(daemon, former));
  }
  t.equal(await guest.ask('touch /mnt/still && echo written'), 'written');
  t.equal(await guest.ask("dmesg | grep -iE 'i/o error|ext4-fs error|remount'"), '', 'no error');

  // In the middle of saving its memory: the file is there, and not whole.
  const former = daemon.servingPid;
  const asked = askOnce(daemon, 'snapshot.take', { vm: 'web', snapshot: 'cut', memory: true });
  await eventually('a part of the memory', () => {
    const names = readdirSync(join(daemon.store, 'memory'));
    return names.some((name) => name.includes('.tmp-')) || undefined;
  });
  process.kill(former, 'SIGKILL');
  t.equal(await asked, undefined, 'the snapshot was not answered');
  await eventually('the next daemon', () => successor(daemon, former));
  const { snapshots } = await ask(daemon, 'info', { vm: 'web' });
  t.notOk(
    snapshots.some(({ name }) => name === 'cut'),
    'it is not there at all',
  );
  t.ok(await writerGoesOn(guest), 'the guest goes on, although nobody was left to tell it');
  await daemon.ok('gc');
  t.same(readdirSync(join(daemon.store, 'memory')), [], 'nothing of it is left');
  t.match(await daemon.json('snapshot', 'take', 'web@next'), { consistency: /^frozen: / });
}

async function checkMemory(t: Test, daemon: TestDaemon, guest: TestGuest): Promise<void> {
  t.equal(await guest.ask('cat /sys/block/vdc/ro'), '1', 'a read-only disk is one for the guest');
  await guest.ask('printf session | dd of=/dev/vdd bs=512 conv=sync,notrunc oflag=direct');
  const token = await guest.ask('token=$(head -c 9 /dev/urandom | base64); echo $token');
  const taken = await daemon.json<SnapshotView>('snapshot', 'take', 'web@live', '--memory');
  t.match(taken, { consistency: /^paused: .*memory/, memoryState: Number });
  t.ok(await writerGoesOn(guest), 'it goes on after that');
  await daemon.ok('stop', 'web', '--force');
  await guest.ended;
  const late = await countRecords(t, daemon.rawFile('web', undefined, 'log'), 'stopped');

  checkRefusal(
    t,
    await daemon.cli(['snapshot', 'take', 'web@x', '--memory']),
    [EXIT.notFound],
    /web/,
  );
  t.match(await daemon.ok('tree', 'web'), /live .*\[memory: /);
  t.match(await daemon.ok('clone', 'web@live', 'cold', '--linked'), /cold starts cold/);
  await daemon.ok('snapshot', 'restore', 'web@live', '--discard');
  const saved = await countRecords(t, daemon.rawFile('web', undefined, 'log'), 'restored');
  t.ok(saved < late, 'the disk is as it was');

  await checkUnfit(t, daemon);
  const resumed = await TestGuest.resume(t, daemon, 'web');
  t.equal(await resumed.ask('echo $token'), token, 'what only was in its memory');
  t.equal(await resumed.ask('cat /mnt/thawed && echo there'), 'there', 'what it had mounted');
  t.equal(await resumed.ask('head -c 7 /dev/vdd'), 'session', 'not reset: it is no start');
  t.ok(await writerGoesOn(resumed), 'it counts on');
  t.match(await daemon.json('snapshot', 'take', 'web@again'), { consistency: /^frozen: / });
  await daemon.ok('stop', 'web', '--force');
  await resumed.ended;
  const more = await countRecords(t, daemon.rawFile('web', undefined, 'log'), 'counted on');
  t.ok(more > saved, 'from the very number that was saved');
  await fsckClean(t, daemon.rawFile('web', 'again', 'root'));

  const { resume } = await daemon.json<VmView>('info', 'web');
  t.equal(resume, undefined, 'the memory was used up');
  await checkColdStart(t, daemon);
}

/**
 * An immutable disk is reset when the guest starts: one that stands still is enough to see that.
 */
async function checkColdStart(t: Test, daemon: TestDaemon): Promise<void> {
  const scratch = daemon.rawFile('web', undefined, 'scratch');
  t.equal((await readFile(scratch)).toString('latin1', 0, 7), 'session');
  await daemon.ok('run', 'web', '--detach', '--', '-S');
  t.ok(
    (await readFile(scratch)).every((byte) => byte === 0),
    'as it was made',
  );
  await daemon.ok('stop', 'web', '--force');
  const fixed = open(daemon.rawFile('web', undefined, 'fixed'), 'r+');
  await t.rejects(fixed, { code: 'EROFS' }, 'nor does the host write to a read-only disk');
  const shared = await daemon.cli(['set', 'web', '--disk-kind', 'log=shareable']);
  checkRefusal(t, shared, [EXIT.notSupported], /log=shareable/);
}

/** Everything that must not lead to a guest whose memory and disks do not fit. */
async function checkUnfit(t: Test, daemon: TestDaemon): Promise<void> {
  const refused = async (args: readonly string[], exit: number, about: RegExp) =>
    checkRefusal(t, await daemon.cli(args), [exit], about);
  await refused(['run', 'web', '--', '-vga', 'none'], EXIT.usage, /web@live.*arguments/);
  await daemon.ok('set', 'web', '--memory', '96M');
  await refused(['run', 'web'], EXIT.exists, /web@live.*hardware was changed/);
  await daemon.ok('set', 'web', '--memory', '128M');

  const manifest = join(daemon.store, 'vms/web.json');
  t.match(await readFile(manifest, 'utf8'), /"machine": "pc-q35-/, 'a machine with a version');

  const file = await open(daemon.rawFile('web', undefined, 'log'), 'r+');
  await file.write(Buffer.alloc(512), 0, 512, LOG_BYTES - 512).finally(() => file.close());
  await refused(['run', 'web'], EXIT.exists, /disk "log" was written to/);
  await daemon.ok('snapshot', 'restore', 'web@live', '--discard');
}

async function checkRefusals(t: Test, daemon: TestDaemon) {
  const refused = async (args: readonly string[], about: RegExp) =>
    checkRefusal(t, await daemon.cli(args), [EXIT.busy], about);
  await refused(['run', 'web'], /web.*already runs \(pid \d+\)/);
  await refused(['snapshot', 'restore', 'web@before', '--discard'], /it has a guest/);
  await refused(['delete', 'web'], /it has a guest/);
  await refused(['rename', 'web', 'www'], /it has a guest/);
  await refused(['attach', 'web', '--disk', 'root'], /it has a guest/);
  const { pid } = (await daemon.json<VmView>('info', 'web')).guest as GuestView;
  t.match(await daemon.ok('list'), new RegExp(`web .* pid ${pid} `));
}
