/**
 * The files that are open through a channel, written down where the next daemon on the same mount
 * finds them: in a nameless file that a supervisor holds, too.
 *
 * Records of 32 bytes; the first says what it is. A record is written before its OPEN is answered
 * and cleared before its RELEASE is: a request that is sent again finds what the first try left.
 * A process can die between two writes, but not within one: a record never crosses a page.
 */
import { fstatSync, readSync, writeSync } from 'node:fs';
import { DiskError } from '../../common/errors.js';
import type { NodeId } from '../namespace.js';
import type { Word64 } from './messages.js';

export interface OpenRecord {
  /** Grows with every open; 32 bits. */
  readonly serial: number;
  /** Of the namespace. */
  readonly handle: number;
  readonly node: NodeId;
  /** Number of the OPEN, without the mark of being sent again. */
  readonly unique: Word64;
  /** The thread that opened. */
  readonly pid: number;
  readonly write: boolean;
  /** See `passthrough.ts`; at most 24 bits. */
  readonly backing: number;
}

const RECORD_WORDS = 8;
const RECORD_BYTES = RECORD_WORDS * 4;
/** Words of a record. */
const WORD = { serial: 0, handle: 1, nodeLo: 2, nodeHi: 3, uniqueLo: 4, uniqueHi: 5, pid: 6 };
const FLAGS = 7;
const USED = 1;
const WRITE = 2;
const BACKING_SHIFT = 8;
/** The first record. */
const MAGIC = 0x6f70656e;
/** Since 2 records say which file the kernel reads by itself. */
const VERSION = 2;

export class HandleLog {
  readonly #fd: number;
  /** Serial -> place, for those in use. */
  readonly #places = new Map<number, number>();
  readonly #free: number[] = [];
  #end = 1;

  constructor(fd: number) {
    this.#fd = fd;
  }

  /**
   * What the daemon before this one had open, and the highest serial it gave; an empty file is
   * begun.
   * @throws DiskError `not-supported` when a daemon of another kind wrote it.
   */
  load(): { readonly open: readonly OpenRecord[]; readonly lastSerial: number } {
    const bytes = Buffer.alloc(Math.floor(fstatSync(this.#fd).size / RECORD_BYTES) * RECORD_BYTES);
    readSync(this.#fd, bytes, 0, bytes.length, 0);
    const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
    if (words.length === 0) {
      this.#write(0, [MAGIC, VERSION]);
      return { open: [], lastSerial: 0 };
    }
    const version = requireKnown(words);
    if (version < VERSION) this.#write(0, [MAGIC, VERSION]);
    const open: OpenRecord[] = [];
    let lastSerial = 0;
    this.#end = words.length / RECORD_WORDS;
    for (let place = 1; place < this.#end; place += 1) {
      const record = decode(words.subarray(place * RECORD_WORDS, (place + 1) * RECORD_WORDS));
      lastSerial = Math.max(lastSerial, record.serial);
      if (record.used) {
        this.#places.set(record.serial, place);
        open.push(record);
      } else {
        this.#free.push(place);
      }
    }
    return { open, lastSerial };
  }

  add(record: OpenRecord): void {
    const place = this.#free.pop() ?? this.#end;
    const { serial, handle, node, unique, pid, write, backing } = record;
    const flags = (USED | (write ? WRITE : 0) | (backing << BACKING_SHIFT)) >>> 0;
    try {
      this.#write(place, [serial, handle, node.lo, node.hi, unique.lo, unique.hi, pid, flags]);
    } catch (error) {
      if (place !== this.#end) this.#free.push(place);
      throw new DiskError('failed', 'no memory to note an open file', {
        errno: 'ENOMEM',
        cause: error,
      });
    }
    this.#end = Math.max(this.#end, place + 1);
    this.#places.set(serial, place);
  }

  /** The serial stays in the place: the highest one must be known to the next daemon. */
  remove(serial: number): void {
    const place = this.#places.get(serial);
    if (place === undefined) return;
    this.#write(place, [serial]);
    this.#places.delete(serial);
    this.#free.push(place);
  }

  #write(place: number, values: readonly number[]): void {
    const words = new Uint32Array(RECORD_WORDS);
    words.set(values);
    writeSync(this.#fd, words, 0, RECORD_BYTES, place * RECORD_BYTES);
  }
}

/**
 * Whether this program can go on with the files that are noted there, if any are.
 * @throws DiskError `not-supported` when it cannot.
 */
export function requireReadableLog(fd: number): void {
  const words = new Uint32Array(2);
  if (readSync(fd, words, 0, words.byteLength, 0) === words.byteLength) requireKnown(words);
}

/** @returns the version. */
function requireKnown(words: Uint32Array): number {
  const version = words[1] ?? 0;
  if (words[0] === MAGIC && version >= 1 && version <= VERSION) return version;
  throw new DiskError('not-supported', 'the running mount belongs to another version', {
    hint: 'layerdisk daemon stop, then layerdisk daemon start',
  });
}

function decode(words: Uint32Array): OpenRecord & { readonly used: boolean } {
  const at = (index: number): number => words[index] ?? 0;
  return {
    serial: at(WORD.serial),
    handle: at(WORD.handle),
    node: { lo: at(WORD.nodeLo), hi: at(WORD.nodeHi) },
    unique: { lo: at(WORD.uniqueLo), hi: at(WORD.uniqueHi) },
    pid: at(WORD.pid),
    write: (at(FLAGS) & WRITE) !== 0,
    used: (at(FLAGS) & USED) !== 0,
    backing: at(FLAGS) >>> BACKING_SHIFT,
  };
}
