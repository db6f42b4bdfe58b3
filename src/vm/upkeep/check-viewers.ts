/** Who sees what of the deltas: disks, snapshots and clones, as a check names them. */
import type { DeltaId } from '../../engine/delta-id.js';
import type { BlockRange, StoreHealth } from '../../engine/engine.js';
import type { Manifest } from '../store/manifest.js';

/** A name for the top of a chain: a disk's present state or a snapshot of it. */
export interface Label {
  readonly vm: string;
  readonly disk: string;
  readonly snapshot?: string;
  /** What an immutable disk goes back to. */
  readonly isStart?: boolean;
  readonly top: DeltaId;
  readonly size: number;
  readonly isClone: boolean;
}

export function labelsOf(vm: string, manifest: Manifest): Label[] {
  const isClone = manifest.origin !== undefined;
  return [
    ...manifest.disks.map(({ name, head, size }) => ({ vm, disk: name, top: head, size, isClone })),
    ...manifest.disks.flatMap(({ name, start, size }) =>
      start === undefined ? [] : [{ vm, disk: name, isStart: true, top: start, size, isClone }],
    ),
    ...manifest.snapshots.flatMap((snapshot) =>
      snapshot.disks.map(({ name, delta, size }) => ({
        ...{ vm, disk: name, snapshot: snapshot.name },
        ...{ top: delta, size, isClone },
      })),
    ),
  ];
}

/** `web/disk0`, `web@first/disk0`. */
export function nameLabel({ vm, disk, snapshot, isStart }: Label): string {
  const start = isStart === true ? ' (its start)' : '';
  return `${vm}${snapshot === undefined ? '' : `@${snapshot}`}/${disk}${start}`;
}

export class Viewers {
  readonly #labels: readonly Label[];
  readonly #below: ReadonlyMap<DeltaId, DeltaId | undefined>;

  /** @param labels those of VMs that are no clones are named first. */
  constructor(labels: readonly Label[], below: ReadonlyMap<DeltaId, DeltaId | undefined>) {
    this.#labels = [...labels].sort((a, b) => Number(a.isClone) - Number(b.isClone));
    this.#below = below;
  }

  /** Everybody whose chain has the delta, with the deltas above it. */
  reaching(delta: DeltaId): { readonly label: Label; readonly above: readonly DeltaId[] }[] {
    return this.#labels.flatMap((label) => {
      const above: DeltaId[] = [];
      for (let id: DeltaId | undefined = label.top; id !== undefined; id = this.#below.get(id)) {
        if (id === delta) return [{ label, above }];
        above.push(id);
      }
      return [];
    });
  }

  /** Those among them who see one of these blocks of it: nothing above answers for it. */
  async seeing(health: StoreHealth, delta: DeltaId, range: BlockRange): Promise<Label[]> {
    const reaching = this.reaching(delta);
    const deltas = [...new Set(reaching.flatMap(({ above }) => above))];
    const answers = await health.answered(deltas, [range]);
    const bits = new Map(deltas.map((id, index) => [id, answers[index]![0]!]));
    return reaching
      .filter(({ above }) => {
        const hidden = new Uint8Array(Math.ceil(range.blocks / 8));
        for (const id of above) {
          for (const [index, byte] of bits.get(id)!.entries()) hidden[index]! |= byte;
        }
        for (let at = 0; at < range.blocks; at += 1) {
          if ((hidden[at >>> 3]! & (1 << (at & 7))) === 0) return true;
        }
        return false;
      })
      .map(({ label }) => label);
  }
}
