/** The suite of control operations: what they take, in milliseconds or as memory. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { longestWrite } from './fio.mjs';
import { command, MiB, scatter } from './targets.mjs';
import { median } from './tournament.mjs';

const REPEATS = 50;
const CLONES = 1000;
const VMS = 10_000;
/** VMs made at the same time, such as those that fill the large store. */
const AT_ONCE = 8;

export async function controlSuite(bench, { sizeMib }) {
  const daemon = await bench.daemon('ours');
  const figures = [];
  const note = (what, value, unit) => {
    figures.push({ what, value, unit });
    console.log(`${what.padEnd(52)} ${value.toFixed(value < 10 ? 2 : 0)} ${unit}`);
  };
  const disk = await bench.layerdisk(daemon, 'disk');
  await snapshots(daemon, disk, sizeMib, note);
  await largeDisk(daemon, sizeMib, note);
  await cachedRestore(daemon, note);
  await deletion(bench, daemon, sizeMib, note);
  // Before the clones, which give index back when nobody has had them open for a while.
  await indexMemory(daemon, sizeMib, note);
  await manyClones(daemon, note);
  await largeStore(bench, note);
  return { figures };
}

async function timed(task) {
  const start = performance.now();
  await task();
  return performance.now() - start;
}

function noteSpread(note, what, times) {
  const sorted = [...times].sort((a, b) => a - b);
  note(`${what}, median`, median(times), 'ms');
  note(`${what}, 99 of 100`, sorted[Math.floor(sorted.length * 0.99)] ?? 0, 'ms');
}

async function snapshots({ call }, disk, sizeMib, note) {
  const repeat = async (tag) => {
    const times = [];
    for (let count = 0; count < REPEATS; count += 1) {
      const params = { vm: 'disk', snapshot: `${tag}${count}` };
      times.push(await timed(() => call('snapshot.take', params)));
    }
    return times;
  };
  noteSpread(note, 'snapshot, idle', await repeat('idle'));
  const alone = await longestWrite(disk.file, { seconds: 3, sizeMib });
  const writing = longestWrite(disk.file, { seconds: 8, sizeMib });
  await new Promise((resolve) => setTimeout(resolve, 1000));
  noteSpread(note, 'snapshot under 4 writers', await repeat('load'));
  note('longest write meanwhile', await writing, 'ms');
  note('longest write without snapshots', alone, 'ms');
  const steps = { restore: [], clone: [], delete: [] };
  for (let count = 0; count < REPEATS; count += 1) {
    const snapshot = `load${count}`;
    const restore = { vm: 'disk', snapshot, discard: true };
    const clone = { vm: 'disk', snapshot, name: `c${count}`, mode: 'linked' };
    steps.restore.push(await timed(() => call('snapshot.restore', restore)));
    steps.clone.push(await timed(() => call('clone', clone)));
    steps.delete.push(await timed(() => call('snapshot.delete', { vm: 'disk', snapshot })));
  }
  for (const [what, times] of Object.entries(steps)) noteSpread(note, what, times);
}

/** Snapshots of a disk of 1 TiB on 64 layers while it is written to. */
async function largeDisk({ call }, sizeMib, note) {
  await call('create', { vm: 'large', disks: [{ size: 2 ** 40 }] });
  const { path: file } = await call('path', { vm: 'large' });
  for (let layer = 1; layer < 64; layer += 1) {
    await scatter(file, sizeMib, 4096);
    await call('snapshot.take', { vm: 'large', snapshot: `s${layer}` });
  }
  const writing = longestWrite(file, { seconds: 8, sizeMib });
  await new Promise((resolve) => setTimeout(resolve, 1000));
  const times = [];
  for (let count = 0; count < REPEATS; count += 1) {
    const take = { vm: 'large', snapshot: `load${count}` };
    times.push(await timed(() => call('snapshot.take', take)));
  }
  noteSpread(note, 'snapshot at 1 TiB, depth 64, 4 writers', times);
  note('longest write meanwhile', await writing, 'ms');
}

const CACHED_MIB = 512;

/** A restore makes the kernel drop what it has cached of the disk. */
async function cachedRestore({ call }, note) {
  await call('create', { vm: 'cached', disks: [{ size: CACHED_MIB * MiB }] });
  const { path: file } = await call('path', { vm: 'cached' });
  await command('dd', 'if=/dev/zero', `of=${file}`, 'bs=1M', `count=${CACHED_MIB}`, 'status=none');
  await call('snapshot.take', { vm: 'cached', snapshot: 's' });
  const times = [];
  for (let count = 0; count < 5; count += 1) {
    await scatter(file, CACHED_MIB, 4096);
    await command('dd', `if=${file}`, 'of=/dev/null', 'bs=1M', 'status=none');
    const restore = { vm: 'cached', snapshot: 's', discard: true };
    times.push(await timed(() => call('snapshot.restore', restore)));
  }
  note(`restore of a disk with ${CACHED_MIB} MiB in the page cache`, median(times), 'ms');
}

/** The delta of a snapshot that holds the whole disk, against `qemu-img commit` of the same. */
async function deletion(bench, { call }, sizeMib, note) {
  const { file: raw } = await bench.raw('commit');
  const overlay = join(bench.folder, 'commit.qcow2');
  const below = ['-b', raw, '-F', 'raw', '-f', 'qcow2'];
  await command('qemu-img', 'create', '-q', ...below, overlay);
  await command('qemu-io', '-f', 'qcow2', '-c', `write 0 ${sizeMib * MiB}`, overlay);
  const commit = await timed(() => command('qemu-img', 'commit', '-q', overlay));
  const take = { vm: 'disk', snapshot: 'whole' };
  await call('snapshot.take', take);
  const ours = await timed(() => call('snapshot.delete', take));
  note(`delete of a snapshot, ${sizeMib} MiB`, ours, 'ms');
  note(`qemu-img commit of ${sizeMib} MiB`, commit, 'ms');
}

async function manyClones({ call }, note) {
  await call('snapshot.take', { vm: 'disk', snapshot: 'many' });
  const { pid } = await call('daemon.status');
  const names = Array.from({ length: CLONES }, (_, index) => `many${index}`);
  const clone = (name) => call('clone', { vm: 'disk', snapshot: 'many', name, mode: 'linked' });
  const made = await timed(async () => {
    for (const name of names) await clone(name);
  });
  note(`${CLONES} linked clones, one after the other`, made, 'ms');
  const others = names.map((name) => `other-${name}`);
  const madeAtOnce = await timed(async () => {
    const makeRest = async () => {
      for (let name = others.pop(); name !== undefined; name = others.pop()) await clone(name);
    };
    await Promise.all(Array.from({ length: AT_ONCE }, makeRest));
  });
  note(`${CLONES} linked clones, ${AT_ONCE} at a time`, madeAtOnce, 'ms');
  const idle = await residentBytes(pid);
  const paths = [];
  for (const vm of names) paths.push((await call('path', { vm })).path);
  const read = await timed(() => command('head', '-qc', '4096', ...paths));
  note('their first 4 KiB read', read, 'ms');
  note(
    'memory for each that was opened',
    ((await residentBytes(pid)) - idle) / CLONES / 1024,
    'KiB',
  );
  await call('gc');
}

async function indexMemory({ call }, sizeMib, note) {
  for (const [what, bytes] of [
    ['4 KiB', 4096],
    ['64 KiB', 65_536],
  ]) {
    const vm = `index${bytes}`;
    await call('create', { vm, disks: [{ size: sizeMib * MiB }] });
    const { path: file } = await call('path', { vm });
    const before = await call('stats');
    const writes = Math.min(20_000, Math.floor((sizeMib * MiB) / bytes / 2));
    for (let done = 0; done < writes; done += 48) await scatter(file, sizeMib, bytes);
    const after = await call('stats');
    const gib = (after.storeBytes - before.storeBytes) / 1024 ** 3;
    const mib = (after.indexBytes - before.indexBytes) / MiB;
    note(`index for each GiB of scattered ${what}`, mib / gib, 'MiB');
  }
}

async function largeStore(bench, note) {
  const { run, call, start } = await bench.daemon('large');
  const disks = [{ size: MiB }];
  for (let made = 0; made < VMS; made += AT_ONCE) {
    const batch = Array.from({ length: AT_ONCE }, (_, index) => `vm${made + index}`);
    await Promise.all(batch.map((vm) => call('create', { vm, disks })));
  }
  await run('daemon', 'stop');
  note(`start of the daemon with ${VMS} VMs, CLI and all`, await timed(start), 'ms');
  note(`list of ${VMS} VMs, CLI and all`, await timed(() => run('list', '-q')), 'ms');
}

async function residentBytes(pid) {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1] ?? 0) * 1024;
}
