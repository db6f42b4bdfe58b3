/**
 * read(2), write(2), pread(2) and pwrite(2) for the calls that are made for every request: a
 * foreign call costs about two thirds of what `readSync` and `writeSync` add to the system call
 * (see native-notes/kernel-channel.md).
 */
import { addressOf, systemIo } from './libc.js';

/** Buffers used last; requests come with the same few again and again. */
const REMEMBERED = 4;

/**
 * Addresses of buffers. They are held here, so none is collected, and memory of V8 whose address
 * was asked for never moves. A buffer that was given to another thread has length 0 afterwards: the
 * bounds are checked in each call.
 */
class RecentAddresses {
  readonly #buffers: (Buffer | undefined)[] = new Array(REMEMBERED).fill(undefined);
  readonly #addresses = new Float64Array(REMEMBERED);
  #next = 0;

  /** @throws RangeError when the bytes do not lie in the buffer. */
  of(buffer: Buffer, offset: number, length: number): number {
    if (offset < 0 || length < 0 || offset + length > buffer.length) {
      throw new RangeError(`bytes ${offset} + ${length} of a buffer of ${buffer.length}`);
    }
    for (let i = 0; i < REMEMBERED; i += 1) {
      if (this.#buffers[i] === buffer) return this.#addresses[i]! + offset;
    }
    const start = Number(addressOf(buffer));
    this.#buffers[this.#next] = buffer;
    this.#addresses[this.#next] = start;
    this.#next = (this.#next + 1) % REMEMBERED;
    return start + offset;
  }
}

const recent = new RecentAddresses();

/** pread(2). @returns bytes read. @throws SystemCallError */
export function readAt(
  fd: number,
  target: Buffer,
  targetOffset: number,
  length: number,
  offset: number,
): number {
  return systemIo.pread(fd, recent.of(target, targetOffset, length), length, offset);
}

/** pwrite(2). @returns bytes written. @throws SystemCallError */
export function writeAt(
  fd: number,
  source: Buffer,
  sourceOffset: number,
  length: number,
  offset: number,
): number {
  return systemIo.pwrite(fd, recent.of(source, sourceOffset, length), length, offset);
}

/** read(2) into the first `length` bytes. @returns bytes read. @throws SystemCallError */
export function readNext(fd: number, target: Buffer, length: number): number {
  return systemIo.read(fd, recent.of(target, 0, length), length);
}

/** write(2) of the first `length` bytes. @returns bytes written. @throws SystemCallError */
export function writeNext(fd: number, source: Buffer, length: number): number {
  return systemIo.write(fd, recent.of(source, 0, length), length);
}
