/**
 * What disks may show after a power cut, sector by sector: the value that a flush made durable, or
 * one that was written after it.
 */

export const SECTOR = 512;

interface Written {
  readonly value: number;
  /** Positions on the tape: when the write began, and when it was acknowledged. */
  readonly start: number;
  readonly end: number;
}

/** A time on the tape, from the request to its answer. */
export interface Span {
  readonly start: number;
  readonly end: number;
}

/** One disk, or what a snapshot shows of it. A sector holds one number, over and over. */
export class SectorHistory {
  readonly #sectors: Written[][];
  readonly #flushes: Span[];

  private constructor(sectors: Written[][], flushes: Span[]) {
    this.#sectors = sectors;
    this.#flushes = flushes;
  }

  /** All of it durable from the start. */
  static of(values: readonly number[]): SectorHistory {
    const sectors = values.map((value) => [{ value, start: -1, end: -1 }]);
    return new SectorHistory(sectors, []);
  }

  write(first: number, values: readonly number[], { start, end }: Span): void {
    for (const [index, value] of values.entries()) {
      this.#sectors[first + index]!.push({ value, start, end });
    }
  }

  flushed(span: Span): void {
    this.#flushes.push(span);
  }

  /** The same up to now; later writes go to one of the two only. */
  fork(): SectorHistory {
    const sectors = this.#sectors.map((writes) => [...writes]);
    return new SectorHistory(sectors, [...this.#flushes]);
  }

  /** A disk of another size with the same beginning, all of it durable at the end of `span`. */
  resized(sectors: number, span: Span): SectorHistory {
    const { length } = this.#sectors;
    const added = Array.from({ length: Math.max(0, sectors - length) }, () => [
      { value: 0, start: -1, end: -1 },
    ]);
    const kept = this.#sectors.slice(0, sectors).map((writes) => [...writes]);
    return new SectorHistory([...kept, ...added], [...this.#flushes, span]);
  }

  get sectors(): number {
    return this.#sectors.length;
  }

  /** What it holds now. */
  values(): number[] {
    return this.#sectors.map((writes) => writes.at(-1)!.value);
  }

  /** What is wrong with these bytes after a power cut at `position`; undefined for nothing. */
  judge(bytes: Buffer, position: number): string | undefined {
    let durable = 0;
    for (const { start, end } of this.#flushes) {
      if (end <= position) durable = Math.max(durable, start);
    }
    for (const [sector, writes] of this.#sectors.entries()) {
      if (bytes.length !== this.sectors * SECTOR) return `it has ${bytes.length} bytes`;
      const value = sectorValue(bytes, sector);
      if (value === undefined) return `sector ${sector} is torn`;
      const old = writes.findLastIndex(({ end }) => end <= durable);
      const allowed = writes.filter(
        (each, at) => at === old || (at > old && each.start < position),
      );
      if (allowed.some((each) => each.value === value)) continue;
      return `sector ${sector} holds ${value}, not ${allowed.map((each) => each.value)}`;
    }
    return undefined;
  }
}

/** The number that a sector is full of; undefined when it isn't one. */
function sectorValue(bytes: Buffer, sector: number): number | undefined {
  const [start, end] = [sector * SECTOR, (sector + 1) * SECTOR];
  const value = bytes.readUInt32LE(start);
  // Each word is the one before.
  if (bytes.compare(bytes, start, end - 4, start + 4, end) !== 0) return undefined;
  return value;
}

export function sectorBytes(values: readonly number[]): Buffer {
  const bytes = Buffer.alloc(values.length * SECTOR);
  for (const [index, value] of values.entries()) {
    for (let at = 0; at < SECTOR; at += 4) bytes.writeUInt32LE(value, index * SECTOR + at);
  }
  return bytes;
}
