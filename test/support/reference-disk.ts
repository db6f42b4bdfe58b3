/** The plainest possible disk, to compare with: all bytes in memory, every write a copy. */
import { createHash } from 'node:crypto';

export class ReferenceDisk {
  readonly bytes: Buffer;

  constructor(size: number) {
    this.bytes = Buffer.alloc(size);
  }

  get size(): number {
    return this.bytes.length;
  }

  write(offset: number, data: Buffer): void {
    if (offset < 0 || offset + data.length > this.size) throw new RangeError('past the end');
    data.copy(this.bytes, offset);
  }

  discard(offset: number, length: number): void {
    this.bytes.fill(0, offset, offset + length);
  }

  read(offset: number, length: number): Buffer {
    return this.bytes.subarray(offset, offset + length);
  }

  /** A disk of its own with the same bytes: a snapshot. */
  copy(): ReferenceDisk {
    const other = new ReferenceDisk(this.size);
    this.bytes.copy(other.bytes);
    return other;
  }

  sha256(): string {
    return createHash('sha256').update(this.bytes).digest('hex');
  }

  /** Where the other bytes differ first, in words; undefined when they are the same. */
  difference(other: Buffer): string | undefined {
    if (other.length !== this.size) return `${other.length} bytes instead of ${this.size}`;
    if (this.bytes.equals(other)) return undefined;
    let at = 0;
    while (this.bytes[at] === other[at]) at += 1;
    const expected = this.bytes.subarray(at, at + 16).toString('hex');
    return `byte ${at}: ${other.subarray(at, at + 16).toString('hex')} instead of ${expected}`;
  }
}
