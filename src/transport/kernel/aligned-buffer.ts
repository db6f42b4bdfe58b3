/**
 * Buffers in which a chosen byte lies at the start of a memory page: copies to and from the
 * kernel are then fastest.
 */
import { addressOf } from '../../storage/libc.js';

const PAGE_BYTES = 4096;

/** The same memory as bytes and as 32-bit words; both begin at the message's first byte. */
export interface MessageBuffer {
  readonly bytes: Buffer;
  readonly words: Uint32Array;
}

/**
 * Memory for one message of up to `length` bytes whose byte `alignedByte` lies at a page start.
 * Requires `alignedByte` to be a multiple of 4.
 */
export function messageBuffer(length: number, alignedByte: number): MessageBuffer {
  const memory = Buffer.allocUnsafeSlow(length + 2 * PAGE_BYTES);
  const misalignment = Number((addressOf(memory) + BigInt(alignedByte)) % BigInt(PAGE_BYTES));
  const start = (PAGE_BYTES - misalignment) % PAGE_BYTES;
  const words = Math.floor((length + PAGE_BYTES) / 4);
  return {
    bytes: memory.subarray(start, start + words * 4),
    words: new Uint32Array(memory.buffer, start, words),
  };
}
