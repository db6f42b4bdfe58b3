/** Checking manifests as they lie on the disk, whatever is in memory, and their copies. */
import { DiskError } from '../../common/errors.js';
import type { VmContext } from '../context.js';
import type { Manifest } from '../store/manifest.js';
import { isName } from '../store/names.js';

export interface ManifestProblem {
  readonly name: string;
  readonly problem: string;
  /** In the store. */
  readonly file: string;
  readonly repaired: boolean;
  readonly remedy: string;
}

export interface CheckedManifests {
  /** All that could be read, from a copy if need be. */
  readonly manifests: readonly { readonly name: string; readonly manifest: Manifest }[];
  readonly problems: readonly ManifestProblem[];
}

/** @throws DiskError `not-found` when the one VM asked for is not there. */
export async function checkManifests(
  context: VmContext,
  { vm, repair }: { readonly vm: string | undefined; readonly repair: boolean },
): Promise<CheckedManifests> {
  const { catalog } = context.store;
  if (vm !== undefined && !catalog.knows(vm)) catalog.get(vm);
  const all = [...catalog.list(), ...catalog.damaged()].map(({ name }) => name);
  const manifests: { name: string; manifest: Manifest }[] = [];
  const problems: ManifestProblem[] = [];
  for (const name of all.filter((each) => vm === undefined || each === vm)) {
    // Renamed or deleted since.
    if (!catalog.knows(name)) continue;
    const { manifest, problem } = await checkManifest(context, name, repair);
    if (manifest !== undefined) manifests.push({ name, manifest });
    if (problem !== undefined) problems.push(problem);
  }
  return { manifests, problems };
}

interface Checked {
  readonly manifest?: Manifest;
  readonly problem?: ManifestProblem;
}

async function checkManifest(
  { store }: VmContext,
  name: string,
  repair: boolean,
): Promise<Checked> {
  const file = `vms/${name}.json`;
  let manifest: Manifest;
  // Both in one tick: a change gives both their names in one.
  const copied = store.copies.compare(name);
  try {
    manifest = store.readFile(name);
  } catch (error) {
    if (!(error instanceof DiskError)) throw error;
    // An older copy of what a newer version wrote must not take its place.
    if (error.code === 'not-supported') return { problem: asSaid(name, file, error) };
    // No backup helps against a name that no VM may have, and a copy is not looked for under it.
    if (!isName(name)) return { problem: asSaid(name, file, error) };
    const copy = store.copies.read(name);
    const repaired = repair && copy !== undefined && (await restored(store, name));
    const remedy =
      copy === undefined
        ? 'there is no good copy of it: restore this file from a backup of the store'
        : `take its copy, which is whole: layerdisk check --repair`;
    const problem = { name, problem: error.message, file, repaired, remedy };
    return copy === undefined ? { problem } : { manifest: copy.manifest, problem };
  }
  if (repair && copied !== 'same') {
    await alone(store, name, () => store.copies.refresh(name));
  }
  if (copied !== 'different') return { manifest };
  return {
    manifest,
    problem: {
      ...{ name, file: `${file}.copy`, repaired: repair, remedy: 'layerdisk check --repair' },
      problem: `VM "${name}": the copy of its manifest is not like it; the manifest is whole`,
    },
  };
}

/** Where the error itself knows what to do. */
function asSaid(name: string, file: string, { message, hint }: DiskError): ManifestProblem {
  return { name, file, problem: message, repaired: false, remedy: hint ?? 'leave it as it is' };
}

/** Runs `task` while nothing changes the VM. */
async function alone<T>(
  { catalog }: VmContext['store'],
  name: string,
  task: () => Promise<T>,
): Promise<T> {
  const entry = catalog.find(name);
  return entry === undefined ? task() : entry.mutex.run(task);
}

async function restored(store: VmContext['store'], name: string): Promise<boolean> {
  try {
    await alone(store, name, () => store.restoreManifest(name));
    return true;
  } catch (error) {
    // Said by the finding, which stays unrepaired.
    if (error instanceof DiskError) return false;
    throw error;
  }
}
