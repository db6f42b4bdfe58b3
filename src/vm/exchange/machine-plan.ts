/**
 * What a machine becomes in this store, before anything is made: names, addresses, images. Pure.
 */
import { basename, extname } from 'node:path';
import { invariant } from '../../common/assert.js';
import type {
  MachineDescription,
  MachineDisk,
  MachineNic,
  MachineSnapshot,
} from '../../machines/machine.js';
import { isName } from '../store/names.js';

const LONGEST_NAME = 64;
const LONGEST_MESSAGE = 4096;

/**
 * Any text as a name by our rules: what is not allowed becomes `-`, accents are taken off.
 * @param otherwise the name where nothing is left.
 */
export function nameFrom(text: string, otherwise: string): string {
  const name = text
    .normalize('NFKD')
    .replace(/\p{M}/gu, '')
    .replace(/[^A-Za-z0-9._-]+/g, '-')
    .replace(/^[^A-Za-z0-9]+|[-.]+$/g, '')
    .slice(0, LONGEST_NAME);
  return isName(name) ? name : otherwise;
}

/** The name for the VM of a machine, where the user gives none. */
export function vmNameOf({ name, path }: MachineDescription): string {
  return nameFrom(name, nameFrom(basename(path, extname(path)), 'machine'));
}

export interface NamedSnapshot {
  readonly snapshot: MachineSnapshot<MachineDisk>;
  readonly name: string;
  /** The description, and the name that it had where ours is another. */
  readonly message: string | undefined;
}

/** Gives each snapshot a name of its own; parents come before their children. */
export function nameSnapshots(snapshots: readonly MachineSnapshot<MachineDisk>[]): NamedSnapshot[] {
  const taken = new Set<string>();
  return parentsFirst(snapshots).map((snapshot) => {
    const wanted = nameFrom(snapshot.name, 'snapshot');
    let name = wanted;
    for (let count = 2; taken.has(name); count += 1) {
      const suffix = `-${count}`;
      name = wanted.slice(0, LONGEST_NAME - suffix.length) + suffix;
    }
    taken.add(name);
    const original = snapshot.name === name ? '' : snapshot.name;
    const message = [original, snapshot.description].filter((part) => part !== '').join(': ');
    return { snapshot, name, message: message.slice(0, LONGEST_MESSAGE) || undefined };
  });
}

/** Machines are trees: whoever reads one sees to that. */
function parentsFirst(
  snapshots: readonly MachineSnapshot<MachineDisk>[],
): MachineSnapshot<MachineDisk>[] {
  const children = new Map<string | null, MachineSnapshot<MachineDisk>[]>();
  for (const snapshot of snapshots) {
    const known = children.get(snapshot.parent);
    if (known === undefined) children.set(snapshot.parent, [snapshot]);
    else known.push(snapshot);
  }
  const sorted = [...(children.get(null) ?? [])];
  // Grows while it is walked: each snapshot is followed by its children.
  for (const each of sorted) sorted.push(...(children.get(each.id) ?? []));
  invariant(sorted.length === snapshots.length, 'snapshots form a tree');
  return sorted;
}

/** What tells one image from another: the file and the place in it. */
export function imageKey(path: string, window: { readonly offset: number } | undefined): string {
  return window === undefined ? path : `${path}@${window.offset}`;
}

/** The key of a disk's top image; undefined for an empty disk. */
export function topKey({ image }: MachineDisk): string | undefined {
  return image && imageKey(image.path, image.window);
}

/** All disks with an image, those of the present state first. */
export function allDisks(machine: MachineDescription): MachineDisk[] {
  return [machine, ...machine.snapshots]
    .flatMap((state) => state.disks)
    .filter((disk) => disk.image !== undefined);
}

/**
 * Names for disks, the same in all states for the same disk: `disk0`, `disk1`, ... A disk is known
 * by what is at the bottom of its chain, which no snapshot changes.
 */
export class DiskNames {
  readonly #names = new Map<string, string>();

  /**
   * @param roots of all disks of one state, in order: the bottom image's key, or the slot of an
   * empty disk.
   */
  of(roots: readonly string[]): string[] {
    const seen = new Map<string, number>();
    return roots.map((root) => {
      // Two disks of one state may stand on one image.
      const nth = seen.get(root) ?? 0;
      seen.set(root, nth + 1);
      const key = `${nth} ${root}`;
      const name = this.#names.get(key) ?? `disk${this.#names.size}`;
      this.#names.set(key, name);
      return name;
    });
  }
}

/** A NIC whose network has a name by our rules. */
export function nicOf({ mode, network }: MachineNic): Omit<MachineNic, 'mac'> {
  return network === undefined ? { mode } : { mode, network: nameFrom(network, 'network') };
}
