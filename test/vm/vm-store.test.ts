/**
 * The store on disk: made, found again, refused where it is not ours, with damaged VMs left alone.
 */
import { randomUUID } from 'node:crypto';
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { DiskError } from '../../src/common/errors.js';
import { hostFiles } from '../../src/storage/atomic-write.js';
import { VmNumbers } from '../../src/vm/store/vm-numbers.js';
import { VmStore } from '../../src/vm/store/vm-store.js';
import { codeOf, digestContents, VmWorld } from '../support/vm-world.js';

function scratch(t: Test): string {
  const folder = mkdtempSync(join(tmpdir(), 'layerdisk-store-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  return folder;
}

t.test('a new store', async (t) => {
  const folder = join(scratch(t), 'deep', 'store');
  const store = await VmStore.open(folder);
  const made = ['bases', 'deltas', 'lock', 'memory', 'store.json', 'trash', 'vms'];
  t.same(readdirSync(folder).sort(), made);
  t.match(store.identity, { format: 'layerdisk-store', version: 1, id: /^[0-9a-f-]{36}$/ });
  t.equal(await codeOf(VmStore.open(folder)), 'busy', 'a second daemon');
  store.close();
  const again = await VmStore.open(folder);
  t.same(again.identity, store.identity);
  again.close();
});

t.test('what is no store of ours is not touched', async (t) => {
  const refused: [what: string, code: string, make: (folder: string) => void][] = [
    ['not JSON', 'damaged', (folder) => writeFileSync(join(folder, 'store.json'), '{')],
    ['something else', 'damaged', (folder) => writeFileSync(join(folder, 'store.json'), '{"a":1}')],
    [
      'a newer store',
      'not-supported',
      (folder) => {
        const newer = { format: 'layerdisk-store', version: 2, id: randomUUID() };
        writeFileSync(join(folder, 'store.json'), JSON.stringify(newer));
      },
    ],
    [
      'content without identity',
      'damaged',
      (folder) => {
        mkdirSync(join(folder, 'vms'));
        writeFileSync(join(folder, 'vms', 'web.json'), '{}');
      },
    ],
    ['a file in the way', 'failed', (folder) => writeFileSync(join(folder, 'vms'), '')],
  ];
  for (const [what, code, make] of refused) {
    const folder = scratch(t);
    make(folder);
    const before = readdirSync(folder);
    t.equal(await codeOf(VmStore.open(folder)), code, what);
    t.same(
      readdirSync(folder).filter((name) => name !== 'lock'),
      before,
      `${what}: nothing was added`,
    );
  }
  const file = join(scratch(t), 'file');
  writeFileSync(file, '');
  t.equal(await codeOf(VmStore.open(file)), 'failed', 'a file as the store');
});

/** Restarts with one manifest replaced; the VM `good` is beside it. */
async function withManifest(t: Test, name: string, text: (old: string) => string) {
  const world = await VmWorld.create();
  t.teardown(() => world.destroy());
  await world.create('bad');
  await world.create('good');
  await world.write('good', 0, 100);
  const source = join(world.store.layout.vms, 'bad.json');
  writeFileSync(join(world.store.layout.vms, `${name}.json`), text(readFileSync(source, 'utf8')));
  await world.restart();
  return world;
}

t.test('a damaged manifest harms no other VM', async (t) => {
  const world = await withManifest(t, 'bad', (old) => old.slice(0, 300));
  const { service } = world;
  t.same(
    service.list().map((each) => each.name),
    ['good'],
  );
  t.match(service.damaged(), [{ name: 'bad', problem: { message: /^VM "bad": .*is not JSON/ } }]);
  const attempts: [what: string, attempt: () => Promise<unknown>, code: string][] = [
    ['read', async () => service.read('bad'), 'damaged'],
    ['delete', () => service.delete('bad'), 'damaged'],
    ['rename', () => service.rename('bad', 'new'), 'damaged'],
    ['take', () => service.takeSnapshot('bad', { name: 's' }), 'damaged'],
    ['create over it', () => service.create('bad', [{ size: 4096 }]), 'exists'],
    ['rename onto it', () => service.rename('good', 'bad'), 'exists'],
    ['collect', () => service.collectGarbage(false), 'damaged'],
    ['collect, dry', () => service.collectGarbage(true), 'damaged'],
    ['take of another', () => world.take('good', 's'), 'ok'],
  ];
  for (const [what, attempt, code] of attempts) t.equal(await codeOf(attempt()), code, what);
  t.ok(readdirSync(world.store.layout.vms).includes('bad.json'), 'the file is still there');
  world.forget('bad/');
  t.same(digestContents(await world.contents()), digestContents(world.model));
});

t.test('a copy that cannot be made anew keeps nobody from the VM', async (t) => {
  const world = await VmWorld.create();
  t.teardown(() => world.destroy());
  await world.create('web');
  await world.create('other');
  const root = join(scratch(t), 'store');
  cpSync(world.store.layout.root, root, { recursive: true });
  rmSync(join(root, 'lock'));
  const vms = join(root, 'vms');
  rmSync(join(vms, 'web.json.copy'));
  mkdirSync(join(vms, 'web.json.copy'));
  writeFileSync(join(vms, 'other.json.copy'), 'behind');
  // A full disk.
  const writeNew = async (_: string, __: string, step: string) => {
    throw new DiskError('failed', step, { errno: 'ENOSPC' });
  };
  const full = await VmStore.open(root, { ...hostFiles, writeNew });
  const names = full.catalog.list().map(({ name }) => name);
  t.same([names, full.catalog.damaged()], [['other', 'web'], []]);
  full.close();
  const store = await VmStore.open(root);
  t.equal(store.copies.compare('other'), 'same', 'made when there is room again');
  store.close();
});

t.test('a copied manifest is not a second VM', async (t) => {
  const world = await withManifest(t, 'copy', (old) => old);
  t.match(world.service.damaged(), [{ name: 'copy', problem: { hint: /copied by hand/ } }]);
});

t.test('a file of a wrong name is reported', async (t) => {
  const world = await withManifest(t, '-x', (old) => old);
  t.match(world.service.damaged(), [{ name: '-x', problem: { message: /no valid VM name/ } }]);
});

t.test('a manifest that is exchanged under a running daemon', async (t) => {
  const world = await VmWorld.create();
  t.teardown(() => world.destroy());
  await world.create('one');
  await world.create('two');
  const { layout } = world.store;
  await world.restart();
  writeFileSync(join(layout.vms, 'one.json'), readFileSync(join(layout.vms, 'two.json')));
  t.equal(await codeOf((async () => world.service.read('one'))()), 'damaged');
  rmSync(join(layout.vms, 'one.json'));
  t.equal(await codeOf((async () => world.service.read('one'))()), 'damaged');
  // The kernel knows its files by that number.
  const two = join(layout.vms, 'two.json');
  const { checksum: _, number, ...rest } = JSON.parse(readFileSync(two, 'utf8'));
  writeFileSync(two, JSON.stringify({ ...rest, number: number + 7 }));
  t.equal(await codeOf((async () => world.service.read('two'))()), 'damaged');
});

t.test('a manifest and its copy that are not to be leave nothing behind', async (t) => {
  const world = await VmWorld.create();
  t.teardown(() => world.destroy());
  await world.create('web');
  const { layout, catalog } = world.store;
  const entry = catalog.get('web');
  const pending = await world.store.prepareChange(entry, world.store.load('web'));
  t.equal(readdirSync(layout.vms).length, 4);
  await pending.abandon();
  t.same(readdirSync(layout.vms).sort(), ['web.json', 'web.json.copy']);
});

t.test('a number is not given out before it is set aside', async (t) => {
  const path = join(scratch(t), 'numbers.json');
  let full = true;
  const writeNew: typeof hostFiles.writeNew = async (...request) => {
    if (full) throw Object.assign(new Error('no'), { code: 'ENOSPC' });
    return hostFiles.writeNew(...request);
  };
  const numbers = VmNumbers.load(path, { ...hostFiles, writeNew }, 0);
  t.match(await numbers.take().catch((error) => error), { errno: 'ENOSPC' });
  const second = await numbers.take().catch((error) => error);
  t.match(second, { errno: 'ENOSPC' }, 'nor when it is asked for again');
  full = false;
  const taken = await numbers.take();
  t.ok((VmNumbers.read(path) ?? 0) > taken, 'the next daemon knows of it');
});

t.test('leftovers of interrupted replacements are removed, other files are not', async (t) => {
  const world = await VmWorld.create();
  t.teardown(() => world.destroy());
  const { layout } = world.store;
  const leftovers = [
    join(layout.vms, '.web.json.tmp-0123456789ab'),
    join(layout.bases, '.x.json.tmp-0123456789ab'),
    join(layout.root, '.store.json.tmp-0123456789ab'),
  ];
  const foreign = [join(layout.vms, 'web.json~'), join(layout.vms, '.hidden.json')];
  for (const path of [...leftovers, ...foreign]) writeFileSync(path, '{}');
  await world.restart();
  t.same(readdirSync(layout.vms).sort(), ['.hidden.json', 'web.json~']);
  t.same(readdirSync(layout.bases), []);
  t.notOk(readdirSync(layout.root).some((name) => name.includes('.tmp-')));
  t.same(world.service.damaged(), []);
});

t.test('numbers are never given twice', async (t) => {
  const world = await VmWorld.create();
  t.teardown(() => world.destroy());
  const seen = new Set<number>();
  for (const round of [1, 2, 3]) {
    await world.create(`vm${round}`);
    const { number } = world.manifest(`vm${round}`);
    t.notOk(seen.has(number), `number ${number}`);
    seen.add(number);
    await world.delete(`vm${round}`);
    await world.service.collectGarbage(false);
    await world.restart();
  }
  t.comment('with the file lost, those in use are still avoided');
  await world.create('kept');
  rmSync(world.store.layout.numbers);
  await world.restart();
  await world.create('next');
  t.ok(world.manifest('next').number > world.manifest('kept').number);
  writeFileSync(world.store.layout.numbers, 'x');
  await world.restart();
  t.equal(await codeOf(world.create('none')), 'damaged');
});
