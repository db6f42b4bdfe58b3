/**
 * What I/O threads tell the main thread: requests that only the namespace can answer, and news
 * of the channel. All are plain data that `postMessage` can copy.
 */
import type { NodeId } from '../namespace.js';
import {
  FATTR_FH,
  FATTR_GID,
  FATTR_MODE,
  FATTR_SIZE,
  FATTR_UID,
  HIGH_HALF,
  IN_HANDLE,
  IN_HEADER_BYTES,
  IN_LENGTH,
  IN_NODE,
  IN_OFFSET,
  IN_OPCODE,
  IN_PID,
  IN_UNIQUE,
  OPCODE,
  OPEN_FLAGS,
  READ_SIZE,
  SETATTR_GID,
  SETATTR_MODE,
  SETATTR_SIZE,
  SETATTR_UID,
  SETATTR_VALID,
} from './protocol.js';

/** A 64-bit number of the kernel's that is only ever handed back. */
export interface Word64 {
  readonly lo: number;
  readonly hi: number;
}

export type ForwardedOperation =
  | { readonly op: 'lookup'; readonly name: string }
  | { readonly op: 'getattr' }
  | {
      readonly op: 'setattr';
      readonly byHandle: boolean;
      readonly size?: number;
      readonly mode?: number;
      readonly uid?: number;
      readonly gid?: number;
    }
  | { readonly op: 'open'; readonly flags: number }
  | { readonly op: 'opendir' }
  | { readonly op: 'release'; readonly handle: Word64 }
  | { readonly op: 'releasedir'; readonly handle: Word64 }
  | {
      readonly op: 'readdir' | 'readdirplus' | 'read';
      readonly handle: Word64;
      /** Bytes for `read`, else the position that the last entry carried. */
      readonly offset: number;
      /** Bytes that the reply may have. */
      readonly size: number;
    }
  | { readonly op: 'statfs' };

export type ForwardedRequest = ForwardedOperation & {
  readonly type: 'request';
  readonly unique: Word64;
  readonly node: NodeId;
  /** Of the calling thread, as the mount's pid namespace knows it. */
  readonly pid: number;
};

/** The kernel and we have agreed: requests are being answered. */
export interface ReadyMessage {
  readonly type: 'ready';
  /** Of the kernel. */
  readonly minor: number;
  readonly maxWrite: number;
  readonly flags: number;
  readonly flags2: number;
}

/** A request that was answered with an error worth knowing about. */
export interface TroubleMessage {
  readonly type: 'trouble';
  readonly threadIndex: number;
  readonly opcode: number;
  /** Positive. */
  readonly errno: number;
  readonly message: string;
  /** Whether it is a bug of ours, and then where. */
  readonly bug: boolean;
  readonly stack?: string;
  /** Errors of this thread that went unreported since the last report. */
  readonly suppressed: number;
}

/** A write that there is no room for now, with a copy of its data. */
export interface HeldWrite {
  readonly type: 'held';
  readonly unique: Word64;
  readonly handle: number;
  readonly offset: number;
  /** Fills its buffer. */
  readonly data: Uint8Array;
  /** Whether it must be durable before it is answered. */
  readonly flush: boolean;
  /** Of the calling thread. */
  readonly pid: number;
}

export type ChannelMessage = ForwardedRequest | ReadyMessage | TroubleMessage | HeldWrite;

/**
 * Turns the request in `words`/`bytes` into one for the main thread; undefined: not one that is
 * forwarded.
 */
export function forwardedRequest(words: Uint32Array, bytes: Buffer): ForwardedRequest | undefined {
  const operation = forwardedOperation(words, bytes);
  if (operation === undefined) return undefined;
  return {
    ...operation,
    type: 'request',
    unique: word64(words, IN_UNIQUE),
    node: word64(words, IN_NODE),
    pid: words[IN_PID] ?? 0,
  };
}

function forwardedOperation(words: Uint32Array, bytes: Buffer): ForwardedOperation | undefined {
  switch (words[IN_OPCODE]) {
    case OPCODE.LOOKUP:
      return { op: 'lookup', name: nameAt(bytes, IN_HEADER_BYTES, words[IN_LENGTH] ?? 0) };
    case OPCODE.GETATTR:
      return { op: 'getattr' };
    case OPCODE.SETATTR:
      return setattr(words);
    case OPCODE.OPEN:
      return { op: 'open', flags: words[OPEN_FLAGS] ?? 0 };
    case OPCODE.OPENDIR:
      return { op: 'opendir' };
    case OPCODE.RELEASE:
      return { op: 'release', handle: word64(words, IN_HANDLE) };
    case OPCODE.RELEASEDIR:
      return { op: 'releasedir', handle: word64(words, IN_HANDLE) };
    case OPCODE.READ:
      return { op: 'read', ...ranged(words) };
    case OPCODE.READDIR:
      return { op: 'readdir', ...ranged(words) };
    case OPCODE.READDIRPLUS:
      return { op: 'readdirplus', ...ranged(words) };
    case OPCODE.STATFS:
      return { op: 'statfs' };
    default:
      return undefined;
  }
}

export function word64(words: Uint32Array, index: number): Word64 {
  return { lo: words[index] ?? 0, hi: words[index + 1] ?? 0 };
}

/** A 64-bit count or offset as a number: exact up to 2^53, and beyond that larger than any disk. */
export function number64(words: Uint32Array, index: number): number {
  return (words[index] ?? 0) + (words[index + 1] ?? 0) * HIGH_HALF;
}

function ranged(words: Uint32Array): { handle: Word64; offset: number; size: number } {
  return {
    handle: word64(words, IN_HANDLE),
    offset: number64(words, IN_OFFSET),
    size: words[READ_SIZE] ?? 0,
  };
}

/** A name ends with a NUL byte. */
function nameAt(bytes: Buffer, start: number, end: number): string {
  const terminator = bytes.indexOf(0, start);
  const stop = terminator >= start && terminator < end ? terminator : end;
  return bytes.toString('utf8', start, stop);
}

function setattr(words: Uint32Array): ForwardedOperation {
  const valid = words[SETATTR_VALID] ?? 0;
  return {
    op: 'setattr',
    byHandle: (valid & FATTR_FH) !== 0,
    ...((valid & FATTR_SIZE) === 0 ? {} : { size: number64(words, SETATTR_SIZE) }),
    ...((valid & FATTR_MODE) === 0 ? {} : { mode: words[SETATTR_MODE] ?? 0 }),
    ...((valid & FATTR_UID) === 0 ? {} : { uid: words[SETATTR_UID] ?? 0 }),
    ...((valid & FATTR_GID) === 0 ? {} : { gid: words[SETATTR_GID] ?? 0 }),
  };
}
