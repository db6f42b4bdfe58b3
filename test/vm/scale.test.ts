/**
 * Ten thousand VMs: all found and listed, addresses unique, little memory held. Times are shown,
 * not judged.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { MacPool } from '../../src/vm/hardware.js';
import { formatManifest, type Manifest } from '../../src/vm/store/manifest.js';
import { VmWorld } from '../support/vm-world.js';

const COUNT = 10_000;

/** Like `gold`, a linked clone of it, but as number `index`. */
function cloneOf(gold: Manifest, index: number): Manifest {
  const hex = index.toString(16).padStart(12, '0');
  const source = gold.snapshots[0]!;
  const lineage = [gold.id];
  return {
    ...gold,
    id: `00000000-0000-4000-8000-${hex}`,
    number: 100 + index,
    nics: [{ mode: 'nat', mac: `52:54:00:${hex.slice(6).replace(/..(?=.)/g, '$&:')}` }],
    disks: gold.disks.map((disk) => ({ ...disk, head: hex.padStart(32, 'f') })),
    snapshots: [],
    current: null,
    origin: {
      vm: 'gold',
      vmId: gold.id,
      snapshot: source.name,
      snapshotId: source.id,
      lineage,
    },
  };
}

t.test('ten thousand VMs', async (t) => {
  const world = await VmWorld.create();
  t.teardown(() => world.destroy());
  await world.create('gold');
  await world.take('gold', 'first');
  const gold = world.manifest('gold');
  for (let index = 0; index < COUNT; index += 1) {
    const text = formatManifest(cloneOf(gold, index));
    writeFileSync(join(world.store.layout.vms, `vm${index}.json`), text);
  }
  const timed = async <T>(what: string, work: () => T | Promise<T>): Promise<T> => {
    const start = performance.now();
    const result = await work();
    t.comment(`${what}: ${(performance.now() - start).toFixed(0)} ms`);
    return result;
  };
  global.gc?.();
  const before = process.memoryUsage().heapUsed;
  await timed('start', () => world.restart());
  global.gc?.();
  const held = (process.memoryUsage().heapUsed - before) / COUNT;
  t.comment(`memory: ${held.toFixed(0)} bytes a VM`);
  t.equal(world.service.list().length, COUNT + 1);
  t.same(world.service.damaged(), []);
  await timed('list', () => world.service.list());
  await timed('names of the mount point', () => world.service.exposure.list());
  await timed('one VM by name', () => world.service.exposure.find('vm777'));
  await timed('one more VM', () => world.create('another'));
  await timed('deleting a clone', () => world.delete('vm5'));
  t.equal(
    await timed('deleting what all clones stand on, but for it', () => world.delete('another')),
    0,
  );
  t.equal(world.store.catalog.descendants(gold.id).length, COUNT - 1);
  const macs = new MacPool(world.store.catalog).claims();
  const taken = new Set(world.service.list().flatMap((each) => each.facts.macs));
  for (let count = 0; count < 1000; count += 1) {
    const mac = macs.take();
    if (taken.has(mac)) t.fail(`${mac} was given twice`);
    taken.add(mac);
  }
});
