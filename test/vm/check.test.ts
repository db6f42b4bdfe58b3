/**
 * `check` finds every flipped bit and names what it hurts and who sees it; a whole store has
 * nothing to report, whatever goes on in it; repairs lose nothing.
 */
import { readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { BLOCK_SIZE, KiB } from '../../src/common/units.js';
import type { CheckOutcome, Finding } from '../../src/vm/upkeep/check.js';
import { createRandom, newSeed, type Random } from '../support/random.js';
import { type Contents, digestContents, VmWorld } from '../support/vm-world.js';
import { Tally, triesOr } from '../torture/tally.js';

const FLIPS = triesOr(process.env.LAYERDISK_LONG === undefined ? 200 : 1000);
const OWN_FILES = ['store.json', 'numbers.json'];

/** VMs of several disks, snapshots, linked clones and a base, all flushed and summed. */
async function open(t: Test): Promise<VmWorld> {
  const world = await VmWorld.create('real');
  t.teardown(() => world.destroy());
  await world.create('web', ['disk0', 'log']);
  await world.write('web', 0, 20 * KiB);
  await world.write('web', 8 * KiB, 8 * KiB, 'log');
  await world.take('web', 'first');
  await world.write('web', 4 * KiB, 12 * KiB);
  await world.take('web', 'second');
  await world.write('web', 0, 4 * KiB);
  await world.clone('web@first', 'fork', 'linked');
  await world.write('fork', 8 * KiB, 4 * KiB);
  await world.take('fork', 'own');
  await world.write('fork', 0, 32 * KiB);
  await world.import('gold', Buffer.alloc(32 * KiB, 'gold'), false);
  await world.write('gold', 12 * KiB, 9 * KiB);
  await world.take('gold', 'day');
  await world.restart();
  await world.engine.health?.sum({});
  return world;
}

function check(world: VmWorld, how: { deep?: boolean; repair?: boolean; vm?: string } = {}) {
  return world.service.check({ deep: true, repair: false, ...how });
}

/** What is wrong, without the way it is said. */
function brief({ findings }: CheckOutcome) {
  return findings.map(({ kind, part, file, repaired }) => ({ kind, part, file, repaired }));
}

interface Place {
  /** In the store. */
  readonly file: string;
  readonly offset: number;
}

/**
 * Bytes that carry meaning. Not among them: the rest of the two pages that the header copies lie
 * in, and the data of heads, which is not covered before the sealing.
 */
function pickPlace(world: VmWorld, random: Random): Place {
  const root = world.store.layout.root;
  const { disks } = {
    disks: world.service.list().flatMap(({ name }) => world.manifest(name).disks),
  };
  const heads = new Set(disks.map((disk) => disk.head));
  const folder = random.pick(['deltas', 'deltas', 'deltas', 'deltas', 'vms', 'bases', '']);
  for (;;) {
    const names = folder === '' ? OWN_FILES : readdirSync(join(root, folder));
    const file = join(folder, random.pick(names));
    const isHead = heads.has(file.slice('deltas/'.length).split('.')[0] ?? '');
    if (file.endsWith('.data') && isHead) continue;
    const offset = random.below(Math.max(1, statSync(join(root, file)).size));
    if (file.endsWith('.tuples') && offset < 8192 && offset % 4096 >= 512) continue;
    if (statSync(join(root, file)).size > 0) return { file, offset };
  }
}

/** Which disks and snapshots have a delta in their chain: read from the files by hand. */
function reaching(world: VmWorld, delta: string): string[] {
  const below = (id: string): string | undefined => {
    const header = readFileSync(join(world.store.layout.deltas, `${id}.tuples`));
    const at = header.readUInt32LE(0) === 0x5554444c ? 0 : 4096;
    const kind = header.readUInt32LE(at + 32);
    return kind === 1 ? header.toString('hex', at + 40, at + 56) : undefined;
  };
  const names: string[] = [];
  for (const { name } of world.service.list()) {
    const { disks, snapshots } = world.manifest(name);
    const tops = [
      ...disks.map((disk) => [`${name}/${disk.name}`, disk.head] as const),
      ...snapshots.flatMap((each) =>
        each.disks.map((disk) => [`${name}@${each.name}/${disk.name}`, disk.delta] as const),
      ),
    ];
    for (const [label, top] of tops) {
      for (let id: string | undefined = top; id !== undefined; id = below(id)) {
        if (id === delta) names.push(label);
      }
    }
  }
  return names.sort();
}

/** Who sees a change: those whose content is another one. */
function changed(before: Contents, after: Contents): string[] {
  const old = digestContents(before);
  return Object.entries(digestContents(after))
    .filter(([label, digest]) => digest !== old[label])
    .map(([label]) => label);
}

/** The block of the disk that a slot of a delta holds: its log read by hand. */
function blockOf(world: VmWorld, delta: string, slot: number): number {
  const log = readFileSync(join(world.store.layout.deltas, `${delta}.tuples`));
  for (let at = 8192; at < log.length; at += 32) {
    const first = log.readUInt32LE(at + 20);
    const isIn = slot >= first && slot < first + log.readUInt32LE(at + 16);
    if (log.readUInt32LE(at) === 1 && isIn) return log.readUInt32LE(at + 8) + slot - first;
  }
  return -1;
}

function flip(world: VmWorld, { file, offset }: Place, bit: number): () => void {
  const path = join(world.store.layout.root, file);
  const whole = readFileSync(path);
  const spoilt = Buffer.from(whole);
  spoilt[offset]! ^= 1 << bit;
  writeFileSync(path, spoilt);
  return () => writeFileSync(path, whole);
}

/** The store before a flip. */
interface Whole {
  readonly contents: Contents;
  readonly reaching: ReadonlyMap<string, readonly string[]>;
}

function byFile(a: readonly string[], b: readonly string[]): number {
  return (a[1] ?? '') < (b[1] ?? '') ? -1 : 1;
}

async function checkFlip(t: Test, world: VmWorld, whole: Whole, place: Place, name: string) {
  const { file, offset } = place;
  const found = await check(world);
  const finding: Finding | undefined = found.findings.find((each) => each.file === file);
  if (finding === undefined) return t.fail(`${name} was not found`, { found });
  t.equal(found.damaged, found.findings.length, `${name}: nothing but damage`);
  const seenBy = [...finding.seenBy].sort();
  if (OWN_FILES.includes(file)) {
    return t.same([finding.part, seenBy], ['file', ['fork', 'gold', 'web']], `${name}: all VMs`);
  }
  if (!file.startsWith('deltas/')) {
    const vm = file.startsWith('vms/') ? file.slice(4).split('.')[0] : 'gold';
    return t.equal(finding.vm, vm, `${name}: names the VM`);
  }
  const delta = file.slice('deltas/'.length).split('.')[0] ?? '';
  t.equal(finding.delta, delta, `${name}: names the delta`);
  const { offset: start = -1, length = 0 } = finding;
  t.ok(offset >= start && offset < start + length, `${name}: the place`, { finding });
  if (!file.endsWith('.data')) {
    return t.same(seenBy, whole.reaching.get(delta), `${name}: all that stand on it`);
  }
  t.equal(finding.block, blockOf(world, delta, Math.floor(offset / BLOCK_SIZE)), `${name}: block`);
  const viewers = changed(whole.contents, await world.contents());
  t.same(seenBy, viewers, `${name}: those who see it`);
  const [first] = viewers;
  if (first !== undefined) {
    t.ok(
      viewers.some(
        (each) => each.startsWith(finding.vm ?? '-') && each.endsWith(finding.disk ?? '-'),
      ),
    );
  }
}

t.test(`${FLIPS} flipped bits are all found and named`, async (t) => {
  const world = await open(t);
  const random = createRandom(newSeed());
  t.comment(`LAYERDISK_SEED=${random.seed}`);
  const clean = await check(world);
  t.match(clean, { vms: 3, notSummed: 0, findings: [], damaged: 0, leaks: 0, repaired: 0 });
  const ids = await world.engine.deltas.list();
  const whole: Whole = {
    contents: await world.contents(),
    reaching: new Map(ids.map((id) => [id, reaching(world, id)])),
  };
  t.same(digestContents(whole.contents), digestContents(world.model));
  const counts: Record<string, number> = {};
  const tally = new Tally(t);
  for (let count = 0; count < FLIPS; count += 1) {
    const place = pickPlace(world, random);
    const bit = random.below(8);
    const undo = flip(world, place, bit);
    const name = `${place.file} byte ${place.offset} bit ${bit}`;
    const failures = t.counts.fail;
    await checkFlip(t, world, whole, place, name);
    tally.judge(name, t.counts.fail > failures ? 'not as it should be' : undefined);
    undo();
    const kind = place.file.replace(/^.*\./, '');
    counts[kind] = (counts[kind] ?? 0) + 1;
  }
  t.comment(counts);
  t.same((await check(world)).findings, [], 'whole again');
  tally.print();
});

t.test('one VM alone; a VM that is not there', async (t) => {
  const world = await open(t);
  const { deltas, vms } = await check(world, { vm: 'gold' });
  t.same({ deltas, vms }, { deltas: 2, vms: 1 });
  await t.rejects(check(world, { vm: 'nobody' }), { code: 'not-found' });
});

t.test('what is missing is named', async (t) => {
  const world = await open(t);
  const sealed = world.manifest('web').snapshots[0]?.disks[0]?.delta ?? '';
  const gone = join(world.store.layout.deltas, `${sealed}.1.data`);
  renameSync(gone, `${gone}.kept`);
  const { findings } = await check(world, { deep: false });
  t.match(findings, [{ part: 'data', delta: sealed, message: /is missing/, vm: 'web' }]);
  t.ok(findings[0]?.seenBy.includes('fork/disk0'));
  renameSync(`${gone}.kept`, gone);
  rmSync(join(world.folder, 'gold.img'));
  t.match((await check(world)).findings, [{ part: 'base', vm: 'gold', seenBy: { length: 2 } }]);
});

t.test('leaks', async (t) => {
  const world = await open(t);
  const stray = `${'ab'.repeat(16)}.1.data`;
  writeFileSync(join(world.store.layout.deltas, stray), 'x');
  const expected = { kind: 'leak', part: 'file', file: `deltas/${stray}` };
  const found = await check(world);
  t.same(brief(found), [{ ...expected, repaired: false }]);
  t.match(found, { damaged: 0, leaks: 1 });
  t.same(brief(await check(world, { repair: true })), [{ ...expected, repaired: true }]);
  t.same(readdirSync(world.store.layout.trash), [stray], 'into the trash');
  t.same((await check(world)).findings, []);
});

t.test('repairs', async (t) => {
  const world = await open(t);
  const root = world.store.layout.root;
  const { head } = world.manifest('fork').disks[0]!;
  const sums = `deltas/${world.manifest('web').snapshots[0]?.disks[0]?.delta}.sums`;
  flip(world, { file: `deltas/${head}.tuples`, offset: 4096 + 80 }, 1);
  flip(world, { file: 'vms/web.json', offset: 300 }, 0);
  flip(world, { file: 'vms/gold.json.copy', offset: 20 }, 6);
  const whole = readFileSync(join(root, sums));
  rmSync(join(root, sums));
  const parts = [
    ['manifest', 'vms/gold.json.copy'],
    ['manifest', 'vms/web.json'],
    ['header', `deltas/${head}.tuples`],
  ];
  const look = async (how: { repair?: boolean } = {}) => {
    const found = await check(world, how);
    const list = found.findings.map(({ part, file }) => [part, file]).sort(byFile);
    return { list, counts: [found.damaged, found.repaired, found.notSummed] };
  };
  const sorted = [parts[2], parts[0], parts[1]];
  t.same(await look(), { list: sorted, counts: [3, 0, 1] });
  t.same(await look({ repair: true }), { list: sorted, counts: [0, 3, 0] });
  t.same(await look(), { list: [], counts: [0, 0, 0] });
  t.same(readFileSync(join(root, sums)), whole, 'the same checksums again');
  await world.restart();
  t.same(digestContents(await world.contents()), digestContents(world.model));

  t.comment('the files of the store as a whole');
  const undo = flip(world, { file: 'numbers.json', offset: 20 }, 0);
  t.match(await check(world, { repair: true }), { damaged: 1, repaired: 0 }, 'known to nobody');
  undo();
  await world.create('one-more');
  for (const file of OWN_FILES) {
    flip(world, { file, offset: 20 }, 0);
    t.match(await check(world), { damaged: 1, findings: [{ part: 'file', file }] });
    t.match(await check(world, { repair: true }), { damaged: 0, repaired: 1 });
    t.match(await check(world), { damaged: 0 });
    rmSync(join(root, file));
    t.match(await check(world), { damaged: 1, findings: [{ part: 'file', file }] }, 'gone');
    t.match(await check(world, { repair: true }), { damaged: 0, repaired: 1 });
    t.match(await check(world), { damaged: 0 });
  }

  t.comment('found at the start: the VM is refused, and comes back without a restart');
  flip(world, { file: 'vms/web.json', offset: 300 }, 0);
  await world.restart();
  t.throws(() => world.manifest('web'), {
    code: 'damaged',
    message: /its manifest/,
    hint: /--repair/,
  });
  t.match(await check(world, { repair: true }), { damaged: 0, repaired: 1 });
  rmSync(join(root, 'vms/web.json'));
  await world.restart();
  t.throws(() => world.manifest('web'), { code: 'damaged', message: /gone/ });
  t.match(await check(world, { repair: true }), { damaged: 0, repaired: 1 });
  t.same(digestContents(await world.contents()), digestContents(world.model));
});

t.test('damage that cannot be repaired is left, and said to be', async (t) => {
  const world = await open(t);
  const delta = world.manifest('web').snapshots[0]?.disks[0]?.delta ?? '';
  flip(world, { file: `deltas/${delta}.1.data`, offset: 5 }, 5);
  const before = readFileSync(join(world.store.layout.deltas, `${delta}.sums`));
  const { findings, damaged } = await check(world, { repair: true });
  t.equal(damaged, 1);
  t.match(findings, [{ part: 'data', repaired: false, block: 0, remedy: /backup/ }]);
  t.same(readFileSync(join(world.store.layout.deltas, `${delta}.sums`)), before);
});

t.test('a file beside the manifests whose name no VM may have', async (t) => {
  const world = await open(t);
  writeFileSync(join(world.store.layout.root, 'vms/we ird.json'), '{}');
  await world.restart();
  const { findings } = await check(world);
  t.match(findings, [{ file: 'vms/we ird.json', remedy: /^rename that file, or move it out/ }]);
});

t.test('nothing false while the store is in use', async (t) => {
  const world = await open(t);
  let running = true;
  const use = async () => {
    for (let round = 0; running; round += 1) {
      await world.write('web', (round % 8) * 4 * KiB, 4 * KiB);
      await world.take('web', `r${round}`);
      if (round > 1) await world.deleteSnapshot('web', `r${round - 2}`);
      await world.write('fork', 0, 32 * KiB);
    }
  };
  const using = use();
  for (let round = 0; round < 10; round += 1) {
    t.same((await check(world)).findings, [], `check ${round}`);
    await world.engine.health?.sum({});
    await world.service.collectGarbage(false);
  }
  running = false;
  await using;
  t.same(digestContents(await world.contents()), digestContents(world.model));
});

t.test('a check is cancelled', async (t) => {
  const world = await open(t);
  const request = { deep: true, repair: false };
  const work = { signal: AbortSignal.abort() };
  await t.rejects(world.service.check(request, work), { code: 'interrupted' });
  t.same((await check(world)).findings, []);
});
