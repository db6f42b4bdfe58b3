/** One of each operation on a prepared store: what the tests of faults and crashes go through. */
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { memoryStates } from '../../src/vm/store/manifest.js';
import { type FolderState, layOut, stateOfFolder } from './crash-states.js';
import { type Contents, digestContents, edgesOf, VmWorld } from './vm-world.js';

export interface Operation {
  readonly name: string;
  readonly act: (world: VmWorld) => Promise<unknown>;
  /** For operations with two commits: the state that is left when the second is not reached. */
  readonly between?: (world: VmWorld) => Promise<unknown>;
}

const base = Buffer.alloc(8192, 'base');

/**
 * `web` with first -- second and the present state under second, and between the two a row of
 * deltas whose names are gone; `twin` is a linked clone of first; `foreign` lies on a base image
 * that is larger than it.
 */
export async function prepareOperations(world: VmWorld): Promise<void> {
  await world.create('web', ['disk0', 'data']);
  await world.write('web', 0, 5000);
  await world.take('web', 'first');
  for (const [index, name] of ['one', 'two', 'three'].entries()) {
    await world.write('web', 4096 * index, 5000, 'data');
    await world.take('web', name);
  }
  // Checksums, so that giving blocks back has some to change; the last snapshot is left without.
  await world.service.check({ repair: true, deep: true });
  await world.write('web', 4096, 5000, 'data');
  await world.take('web', 'second');
  await world.write('web', 8192, 100);
  await world.clone('web@first', 'twin', 'linked');
  await world.write('twin', 0, 10);
  await world.writeZeroes('web', 12_288, 8192);
  await world.import('foreign', base, false);
  await world.write('foreign', 100, 700);
  await world.resize('foreign', 4096);
  for (const name of ['one', 'two', 'three']) await world.deleteSnapshot('web', name);
}

export const operations: readonly Operation[] = [
  { name: 'create', act: (world) => world.create('new', ['disk0', 'data']) },
  {
    name: 'create, allocation static',
    act: (world) =>
      world.service.create('new', [{ name: 'disk0', size: 65536, allocation: 'static' }]),
  },
  { name: 'import', act: (world) => world.import('new', base, false) },
  { name: 'import --copy', act: (world) => world.import('new', base, true) },
  { name: 'rename', act: (world) => world.service.rename('web', 'new') },
  { name: 'delete', act: (world) => world.delete('web') },
  { name: 'set', act: (world) => world.service.setHardware('web', { vcpus: 3 }) },
  { name: 'disk add', act: (world) => world.addDisk('web', 'more') },
  { name: 'disk remove', act: (world) => world.removeDisk('web', 'data') },
  { name: 'disk resize', act: (world) => world.resize('web', 131_072) },
  { name: 'disk resize --shrink', act: (world) => world.resize('web', 8192) },
  {
    name: 'disk resize past what it was',
    act: (world) => world.resize('foreign', 12_288),
    between: async () => undefined,
  },
  { name: 'snapshot take', act: (world) => world.take('web', 'third') },
  { name: 'snapshot delete', act: (world) => world.deleteSnapshot('web', 'first') },
  { name: 'snapshot rename', act: (world) => world.service.renameSnapshot('web', 'first', 'eins') },
  { name: 'restore --discard', act: (world) => world.restore('web', 'first') },
  {
    name: 'restore --save-current',
    act: (world) => world.restore('web', 'first', 'saved'),
    between: (world) => world.take('web', 'saved'),
  },
  { name: 'linked clone of a snapshot', act: (world) => world.clone('web@first', 'new', 'linked') },
  {
    name: 'linked clone of the present state',
    act: (world) => world.clone('web', 'new', 'linked'),
    between: (world) => world.take('web', 'clone-new'),
  },
  { name: 'full clone of a snapshot', act: (world) => world.clone('web@first', 'new', 'full') },
  { name: 'full clone of the present state', act: (world) => world.clone('web', 'new', 'full') },
  { name: 'gc', act: (world) => world.service.collectGarbage(false) },
  { name: 'compact', act: (world) => world.service.compact('web') },
  { name: 'check --repair', act: (world) => world.service.check({ repair: true, deep: true }) },
];

/** All that users can see, as one comparable text. */
export async function stateOf(world: VmWorld): Promise<string> {
  world.faults.record();
  const vms = world.service.list().map(({ name }) => {
    const manifest = world.manifest(name);
    const memory = memoryStates(manifest).length;
    return { name, vcpus: manifest.vcpus, edges: edgesOf(manifest), memory };
  });
  return JSON.stringify({ vms, contents: digestContents(await world.contents()) });
}

/**
 * A prepared store that is copied for each try: what it took to make it is not done again. In
 * memory, where a sync costs nothing.
 */
export class StoreTemplate {
  readonly folder: string;
  readonly #state: FolderState;
  readonly #model: Contents;

  private constructor(folder: string, model: Contents) {
    this.folder = folder;
    this.#state = stateOfFolder(join(folder, 'store'));
    this.#model = model;
  }

  static async make(prepare: (world: VmWorld) => Promise<void>): Promise<StoreTemplate> {
    const world = await VmWorld.create('real', scratchParent());
    await prepare(world);
    await world.stop();
    return new StoreTemplate(world.folder, world.model);
  }

  async open(): Promise<VmWorld> {
    const folder = await mkdtemp(join(scratchParent(), 'layerdisk-vm-'));
    layOut(this.#state, join(folder, 'store'));
    return VmWorld.adopt(folder, this.#model);
  }

  async remove(): Promise<void> {
    await rm(this.folder, { recursive: true, force: true });
  }
}

/** A file system in memory where there is one. */
export function scratchParent(): string {
  return existsSync('/dev/shm') ? '/dev/shm' : tmpdir();
}
