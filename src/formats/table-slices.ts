/** A bounded cache of equal pieces of an image's tables, read when first asked for. */
import { invariant } from '../common/assert.js';
import { divCeil } from '../common/units.js';
import { currentBudget, type MemoryBudget, OBJECT_BYTES } from './memory-budget.js';

/** One piece: the same memory as bytes and as 32-bit words in the machine's byte order. */
export interface TableSlice {
  readonly bytes: Buffer;
  readonly words: Uint32Array;
}

/** Places in which a slice may be kept. */
const WAYS = 4;
/** What is kept of a place besides its slice, bytes. */
const PLACE_BYTES = 16;

/**
 * Slices are numbered by their user. Neighbouring numbers never displace each other, so that a
 * table that fits is kept whole; memory is taken as slices are first loaded. `get` allocates
 * nothing for a slice that is there.
 */
export class TableSlices {
  readonly #sliceSize: number;
  readonly #setCount: number;
  readonly #load: (slice: TableSlice, index: number) => void;
  /** Number of the slice in each place; -1 = none. */
  readonly #indexes: Float64Array;
  readonly #slices: (TableSlice | undefined)[];
  #lastIndex = -1;
  #last: TableSlice | undefined;
  #nextWay = 0;
  readonly #budget: MemoryBudget;
  /** Places that have a slice, in the order in which they give it up when memory is short. */
  readonly #filled: number[] = [];
  #nextFilled = 0;

  /**
   * @param options.path the image, for messages.
   * @param options.sliceSize bytes, a multiple of 4.
   * @param options.sliceCount slices that there are.
   * @param options.maxBytes most memory for slices.
   * @param options.load fills a slice; when it throws, the slice counts as not loaded.
   */
  constructor(options: {
    readonly path: string;
    readonly sliceSize: number;
    readonly sliceCount: number;
    readonly maxBytes: number;
    readonly load: (slice: TableSlice, index: number) => void;
  }) {
    const { sliceSize, sliceCount, maxBytes, load } = options;
    invariant(sliceSize >= 4 && sliceSize % 4 === 0, `slices of ${sliceSize} bytes`);
    this.#sliceSize = sliceSize;
    this.#budget = currentBudget();
    // One slice it needs.
    this.#budget.take(sliceSize + OBJECT_BYTES, options.path);
    const places = Math.min(divCeil(sliceCount, WAYS) * WAYS, Math.floor(maxBytes / sliceSize));
    const isAffordable = this.#budget.grow(places * PLACE_BYTES);
    this.#setCount = isAffordable ? Math.max(1, Math.floor(places / WAYS)) : 1;
    this.#load = load;
    this.#indexes = new Float64Array(this.#setCount * WAYS).fill(-1);
    this.#slices = new Array<TableSlice | undefined>(this.#setCount * WAYS).fill(undefined);
  }

  /** The slice with this number, loaded if need be; valid until the next call. */
  get(index: number): TableSlice {
    if (index === this.#lastIndex) return this.#last!;
    const first = (index % this.#setCount) * WAYS;
    for (let place = first; place < first + WAYS; place += 1) {
      if (this.#indexes[place] === index) return this.#remember(index, this.#slices[place]!);
    }
    return this.#fill(index, first);
  }

  #remember(index: number, slice: TableSlice): TableSlice {
    this.#lastIndex = index;
    this.#last = slice;
    return slice;
  }

  #fill(index: number, first: number): TableSlice {
    let place = first;
    while (place < first + WAYS && this.#slices[place] !== undefined) place += 1;
    if (place === first + WAYS) {
      place = first + this.#nextWay;
      this.#nextWay = (this.#nextWay + 1) % WAYS;
    }
    const slice = this.#slices[place] ?? this.#newSlice(place);
    this.#slices[place] = slice;
    this.#indexes[place] = -1;
    this.#lastIndex = -1;
    this.#load(slice, index);
    this.#indexes[place] = index;
    return this.#remember(index, slice);
  }

  /** A slice for this place: another place's where there is no memory for one more. */
  #newSlice(place: number): TableSlice {
    if (this.#filled.length > 0 && !this.#budget.grow(this.#sliceSize + OBJECT_BYTES)) {
      const turn = this.#nextFilled % this.#filled.length;
      const from = this.#filled[turn]!;
      const slice = this.#slices[from]!;
      this.#slices[from] = undefined;
      this.#indexes[from] = -1;
      this.#filled[turn] = place;
      this.#nextFilled = turn + 1;
      return slice;
    }
    this.#filled.push(place);
    // A buffer of its own: a piece of Node's pool need not be aligned for words.
    const words = new Uint32Array(this.#sliceSize / 4);
    return { words, bytes: Buffer.from(words.buffer) };
  }
}
