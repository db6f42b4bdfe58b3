/**
 * Machines into the store: copies of awkward chains, and what is left when it fails or is
 * cancelled.
 */
import { readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { DiskError } from '../../src/common/errors.js';
import type { MachineDescription, MachineDisk } from '../../src/machines/machine.js';
import { type DiskModel, mergedContent, stampedModel } from '../support/disk-model.js';
import { writeVdi } from '../support/vdi-writer.js';
import { codeOf, VmWorld } from '../support/vm-world.js';

const UNIT = 4096;

interface Layer {
  readonly name: string;
  readonly units: number;
  readonly pattern: string;
}

/** A chain of VDIs, bottom first; answers the models, top first, of each name. */
function writeChain(folder: string, layers: readonly Layer[]): Map<string, DiskModel[]> {
  const uuid = (index: number) => `0000000${index}-0000-4000-8000-000000000001`;
  const chains = new Map<string, DiskModel[]>();
  let below: DiskModel[] = [];
  for (const [index, { name, units, pattern }] of layers.entries()) {
    const model = stampedModel({ size: units * UNIT, unitSize: UNIT, pattern, salt: index + 1 });
    const parent = index === 0 ? {} : { type: 4, parent: uuid(index - 1) };
    writeVdi(join(folder, `${name}.vdi`), model, { uuid: uuid(index), ...parent });
    below = [model, ...below];
    chains.set(name, below);
  }
  return chains;
}

async function open(t: Test): Promise<VmWorld> {
  const world = await VmWorld.create('real');
  t.teardown(() => world.destroy());
  return world;
}

function machineOf(folder: string, snapshots: readonly string[], top: string): MachineDescription {
  const disk = (name: string): MachineDisk => ({
    slot: 'SATA 0:0',
    image: { path: join(folder, `${name}.vdi`), format: 'vdi', parents: [] },
  });
  return {
    path: join(folder, 'm.vbox'),
    folder,
    name: 'm',
    digests: [],
    warnings: [],
    hardware: { nics: [] },
    disks: [disk(top)],
    snapshots: snapshots.map((name, index) => ({
      id: name,
      name,
      description: '',
      parent: snapshots[index - 1] ?? null,
      hardware: { nics: [] },
      disks: [disk(name)],
    })),
    current: snapshots.at(-1) ?? null,
  };
}

const request = { vm: 'm', copy: true, hardware: {}, allowFolders: [] };

async function checkContents(t: Test, world: VmWorld, chains: Map<string, DiskModel[]>) {
  const { disks, snapshots } = world.manifest('m');
  for (const { name, disks: sealed } of snapshots) {
    const found = await world.engine.readAll(sealed[0]?.delta ?? '', false);
    t.ok(found.equals(mergedContent(chains.get(name) ?? [])), name);
  }
  const head = await world.engine.readAll(disks[0]?.head ?? '', true);
  t.ok(head.equals(mergedContent(chains.get('top') ?? [])), 'the present state');
}

const CHAINS: Readonly<Record<string, readonly Layer[]>> = {
  'an image between that is shorter': [
    { name: 'base', units: 64, pattern: 'd' },
    { name: 'middle', units: 20, pattern: 'udz' },
    { name: 'top', units: 64, pattern: 'uuuud' },
  ],
  'a disk that grew': [
    { name: 'base', units: 16, pattern: 'dz' },
    { name: 'middle', units: 64, pattern: 'ud' },
    { name: 'top', units: 64, pattern: 'zuuud' },
  ],
  'zeroes that hide data': [
    { name: 'base', units: 64, pattern: 'd' },
    { name: 'middle', units: 64, pattern: 'uzz' },
    { name: 'top', units: 64, pattern: 'uuz' },
  ],
};

for (const [what, layers] of Object.entries(CHAINS)) {
  for (const snapshots of [['base'], ['base', 'middle'], ['middle'], []]) {
    t.test(`copied: ${what}; snapshots ${snapshots.join(', ')}`, async (t) => {
      const world = await open(t);
      const chains = writeChain(world.folder, layers);
      const machine = machineOf(world.folder, snapshots, 'top');
      await world.service.importMachine({ ...request, machine });
      for (const { name } of layers) rmSync(join(world.folder, `${name}.vdi`));
      await checkContents(t, world, chains);
      t.same(readdirSync(world.store.layout.bases), [], 'no base is left');
    });
  }
}

t.test('when it fails, nothing is left', async (t) => {
  const world = await open(t);
  writeChain(world.folder, CHAINS['zeroes that hide data'] ?? []);
  const machine = machineOf(world.folder, ['base', 'middle'], 'top');
  const left = async () => [
    ...readdirSync(world.store.layout.bases),
    ...readdirSync(world.store.layout.vms),
    ...(await world.engine.deltas.list()),
  ];
  for (const copy of [false, true]) {
    const missing = { ...machine, disks: [...machine.disks, ...machineOf('/x', [], 'y').disks] };
    const importing = world.service.importMachine({ ...request, copy, machine: missing });
    t.equal(await codeOf(importing), 'not-found');
    t.same(await left(), []);
    const vcpus = { ...request, copy, machine, hardware: { vcpus: 5000 } };
    t.equal(await codeOf(world.service.importMachine(vcpus)), 'usage');
    t.same(await left(), []);
  }
  const controller = new AbortController();
  const work = { signal: controller.signal, onProgress: () => controller.abort() };
  t.equal(await codeOf(world.service.importMachine({ ...request, machine }, work)), 'interrupted');
  await world.service.collectGarbage(false);
  t.same(readdirSync(world.store.layout.vms), []);
  t.same(readdirSync(world.store.layout.bases), []);
  await world.service.importMachine({ ...request, machine });
  await t.rejects(world.service.importMachine({ ...request, machine }), DiskError);
  t.equal(await codeOf(world.service.importMachine({ ...request, machine })), 'exists');
});

t.test('a machine that states another format than an image has', async (t) => {
  const world = await open(t);
  writeChain(world.folder, [{ name: 'top', units: 2, pattern: 'd' }]);
  const machine = machineOf(world.folder, [], 'top');
  const disks = machine.disks.map((disk) => ({
    ...disk,
    image: { ...disk.image!, format: 'vmdk' },
  }));
  await t.rejects(world.service.importMachine({ ...request, machine: { ...machine, disks } }), {
    code: 'damaged',
    message: /m\.vbox states another format: .*top\.vdi is not vmdk: .* it is vdi/,
    hint: /correct the format in this file/,
  });
});

t.test('kinds of disks', async (t) => {
  const layers = [
    { name: 'base', units: 16, pattern: 'd' },
    { name: 'middle', units: 16, pattern: 'ud' },
    { name: 'top', units: 16, pattern: 'uuud' },
  ];
  for (const copy of [false, true]) {
    const world = await open(t);
    const chains = writeChain(world.folder, layers);
    const plain = machineOf(world.folder, ['base'], 'top');
    const kinds = ['write-through', 'immutable', 'read-only'] as const;
    const disksOf = (image: string): MachineDisk[] =>
      kinds.map((kind, index) => ({
        ...machineOf(world.folder, [], image).disks[0],
        slot: `SATA ${index}:0`,
        kind,
      }));
    const machine = {
      ...plain,
      disks: disksOf('top'),
      snapshots: plain.snapshots.map((each) => ({ ...each, disks: disksOf('base') })),
    };
    await world.service.importMachine({ ...request, copy, machine });
    const { disks, snapshots } = world.manifest('m');
    t.same(
      disks.map(({ kind }) => kind),
      kinds,
    );
    const names = disks.map(({ name }) => name);
    t.same(
      snapshots[0]?.disks.map(({ name }) => name),
      names.slice(1),
      'a write-through disk is in no snapshot',
    );
    const top = mergedContent(chains.get('top') ?? []);
    for (const { head } of disks) t.ok((await world.engine.readAll(head, true)).equals(top));
    const start = disks[1]?.start ?? '';
    t.ok((await world.engine.readAll(start, false)).equals(top), 'what it goes back to');
  }
});
