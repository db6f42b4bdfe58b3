/** A set of slots of one delta: a bit each. */

export interface SlotRun {
  readonly slot: number;
  readonly count: number;
}

export class SlotSet {
  /** One past the highest slot that fits. */
  readonly slots: number;
  readonly #bits: Uint8Array;

  constructor(slots: number) {
    this.slots = slots;
    this.#bits = new Uint8Array(Math.ceil(slots / 8));
  }

  has(slot: number): boolean {
    return slot < this.slots && (this.#bits[slot >>> 3]! & (1 << (slot & 7))) !== 0;
  }

  add(slot: number, count = 1): void {
    const end = slot + count;
    let at = slot;
    for (; at < end && (at & 7) !== 0; at += 1) this.#bits[at >>> 3]! |= 1 << (at & 7);
    const whole = Math.floor((end - at) / 8);
    this.#bits.fill(0xff, at >>> 3, (at >>> 3) + whole);
    for (at += whole * 8; at < end; at += 1) this.#bits[at >>> 3]! |= 1 << (at & 7);
  }

  /** The first slot in [slot, end) that is in the set (or, `!inside`, is not); `end` if none. */
  seek(slot: number, end: number, inside: boolean): number {
    const skip = inside ? 0 : 0xff;
    let at = slot;
    while (at < end) {
      if ((at & 7) === 0 && this.#bits[at >>> 3] === skip) {
        at += 8;
        continue;
      }
      if (this.has(at) === inside) return at;
      at += 1;
    }
    return end;
  }

  /** Runs of neighbours, in order, none longer than `most`. */
  *runs(most: number): Generator<SlotRun> {
    let slot = this.seek(0, this.slots, true);
    while (slot < this.slots) {
      const end = this.seek(slot, Math.min(this.slots, slot + most), false);
      yield { slot, count: end - slot };
      slot = this.seek(end, this.slots, true);
    }
  }
}
