/**
 * The deltas that stand for the images of a machine: on base records, or as copies that share what
 * the images share.
 */
import type { DeltaId } from '../../engine/delta-id.js';
import { checkNotCancelled, copyDisks } from '../clones.js';
import type { VmContext, Work } from '../context.js';
import type { Preparation } from '../preparation.js';
import type { BaseRequest, DescribedBase } from '../store/base-records.js';
import { imageKey } from './machine-plan.js';

/** The top image of a chain, and what is known of all of it. */
export interface DescribedImage {
  readonly key: string;
  readonly request: BaseRequest;
  readonly described: DescribedBase;
}

export interface ImagesToMake {
  readonly vmId: string;
  readonly images: ReadonlyMap<string, DescribedImage>;
  /** Keys of the images that snapshots show. */
  readonly sealed: ReadonlySet<string | undefined>;
  readonly work: Work;
}

/** One base record for each image; snapshots of it share one empty delta, which stays sealed. */
export class ReferencedImages {
  readonly #preparation: Preparation;
  readonly #sizes = new Map<string, number>();
  readonly #bases = new Map<string, string>();
  readonly #sealed = new Map<string, DeltaId>();

  private constructor(preparation: Preparation) {
    this.#preparation = preparation;
  }

  static async make(
    _context: VmContext,
    preparation: Preparation,
    { vmId, images, sealed }: ImagesToMake,
  ): Promise<ReferencedImages> {
    const made = new ReferencedImages(preparation);
    for (const { key, request, described } of images.values()) {
      made.#sizes.set(key, described.spec.virtualSize);
      made.#bases.set(key, (await preparation.createBase(vmId, request, described)).id);
      if (sealed.has(key)) made.#sealed.set(key, await made.#onBase(key));
    }
    return made;
  }

  sealed(key: string): DeltaId {
    return this.#sealed.get(key) ?? '';
  }

  head(key: string): Promise<DeltaId> {
    return this.#onBase(key);
  }

  #onBase(key: string): Promise<DeltaId> {
    return this.#preparation.createDelta({
      below: { kind: 'base', id: this.#bases.get(key) ?? '' },
      virtualSize: this.#sizes.get(key) ?? 0,
      allocation: 'dynamic',
    });
  }
}

/** A copy in the making: what of an image's chain goes into a delta, and on what. */
interface CopyPlan {
  readonly image: DescribedImage;
  /** The copied image that it stands on. */
  readonly below: string | undefined;
  /** Images of its chain, from the top, that are not in that copy already. */
  readonly own: number;
}

/**
 * One delta for each image, which holds what the image's own files hold, and stands on the delta of
 * the next image below it that was copied, too. So data that snapshots share is copied once.
 */
export class CopiedImages {
  readonly #preparation: Preparation;
  readonly #images: ReadonlyMap<string, DescribedImage>;
  readonly #copies = new Map<string, DeltaId>();
  /** Copies that nothing stands on and no snapshot shows: they can be written to. */
  readonly #free = new Set<string>();

  private constructor(preparation: Preparation, images: ReadonlyMap<string, DescribedImage>) {
    this.#preparation = preparation;
    this.#images = images;
  }

  static async make(
    context: VmContext,
    preparation: Preparation,
    { vmId, images, sealed, work }: ImagesToMake,
  ): Promise<CopiedImages> {
    const made = new CopiedImages(preparation, images);
    const sources: { base: string; delta: DeltaId; target: DeltaId }[] = [];
    for (const { image, below, own } of planCopies(images)) {
      const { key, request, described } = image;
      const { spec } = described;
      const virtualSize = spec.virtualSize;
      const part = { ...described, spec: { ...spec, images: spec.images.slice(0, own) } };
      const base = (await preparation.createBase(vmId, request, part)).id;
      const delta = await preparation.createDelta({
        below: { kind: 'base', id: base },
        virtualSize,
        allocation: 'dynamic',
      });
      const target = await preparation.createDelta({
        below: below === undefined ? { kind: 'none' } : made.#below(below),
        virtualSize,
        allocation: 'dynamic',
      });
      sources.push({ base, delta, target });
      made.#copies.set(key, target);
      if (!sealed.has(key)) made.#free.add(key);
    }
    checkNotCancelled(work);
    // Parents first: a part of a block that a child holds is completed from what is below it.
    await copyDisks(
      context,
      sources.map(({ delta, target }) => ({ source: delta, target })),
      work,
    );
    await preparation.discard(
      sources.map(({ delta }) => delta),
      sources.map(({ base }) => base),
    );
    return made;
  }

  sealed(key: string): DeltaId {
    return this.#copies.get(key) ?? '';
  }

  async head(key: string): Promise<DeltaId> {
    // The first disk on it may write into the copy itself.
    if (this.#free.delete(key)) return this.#copies.get(key) ?? '';
    return this.#preparation.createDelta({
      below: { kind: 'delta', id: this.#copies.get(key) ?? '' },
      virtualSize: this.#images.get(key)?.described.spec.virtualSize ?? 0,
      allocation: 'dynamic',
    });
  }

  #below(key: string): { readonly kind: 'delta'; readonly id: DeltaId } {
    this.#free.delete(key);
    return { kind: 'delta', id: this.#copies.get(key) ?? '' };
  }
}

/** Short chains first, so that what an image stands on is copied before it. */
function planCopies(images: ReadonlyMap<string, DescribedImage>): CopyPlan[] {
  const sorted = [...images.values()].sort(
    (a, b) => a.described.spec.images.length - b.described.spec.images.length,
  );
  return sorted.map((image) => {
    const { spec } = image.described;
    const keys = spec.images.map(({ path, window }) => imageKey(path, window));
    const at = keys.findIndex((key, index) => {
      const below = index === 0 ? undefined : images.get(key);
      // A disk that was resized shows zeroes where the smaller one ends: it is copied whole.
      return below?.described.spec.virtualSize === spec.virtualSize;
    });
    return at < 0
      ? { image, below: undefined, own: keys.length }
      : { image, below: keys[at], own: at };
  });
}
