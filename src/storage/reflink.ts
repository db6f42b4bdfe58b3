/**
 * Sharing ranges between files of one file system without copying (FICLONERANGE: btrfs, xfs, ...).
 */
import { hostCalls } from './host-calls.js';

const ARGUMENT_SIZE = 32;

export interface ReflinkRange {
  readonly sourceFd: number;
  readonly sourceOffset: number;
  readonly targetFd: number;
  readonly targetOffset: number;
  readonly length: number;
}

/**
 * Makes a range of the target share the source's blocks.
 * @returns false where the host cannot (other file system, no support, unaligned): the caller
 * copies.
 */
export function reflink(range: ReflinkRange, label: string): boolean {
  const argument = Buffer.alloc(ARGUMENT_SIZE);
  argument.writeBigInt64LE(BigInt(range.sourceFd), 0);
  argument.writeBigUInt64LE(BigInt(range.sourceOffset), 8);
  argument.writeBigUInt64LE(BigInt(range.length), 16);
  argument.writeBigUInt64LE(BigInt(range.targetOffset), 24);
  try {
    hostCalls.share(range.targetFd, argument, label);
    return true;
  } catch {
    // Whatever the reason, a copy either works or says why not.
    return false;
  }
}
