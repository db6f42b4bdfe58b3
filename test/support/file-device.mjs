/** A `BlockDevice` on one sparse host file, for tests of the transports: as plain as it can be. */
import { closeSync, fdatasyncSync, fstatSync, openSync, readSync, writeSync } from 'node:fs';
import { DiskError } from '../../dist/modules/common/errors.js';
import { fallocate, lseek } from '../../dist/modules/storage/libc.js';

/** What a device does, counted in memory that all threads share: indexes into the array. */
export const COUNTERS = [
  'reads',
  'writes',
  'flushes',
  'discards',
  'largestRead',
  'largestWrite',
  'crashes',
];

/**
 * @typedef {object} DiskSpec
 * @property {string} path backing file
 * @property {boolean} [readOnly]
 * @property {string} [writeErrno] every write fails with it
 * @property {string} [readErrno]
 * @property {string} [flushErrno]
 * @property {boolean} [bug] every read throws what is no operating error
 * @property {number} [crashes] so many reads end the thread that serves them
 */

export class FileDevice {
  /** @param {DiskSpec} spec @param {Int32Array} counters */
  constructor(spec, counters) {
    this.spec = spec;
    this.counters = counters;
    this.readOnly = spec.readOnly === true;
    this.fd = openSync(spec.path, this.readOnly ? 'r' : 'r+');
    this.size = fstatSync(this.fd).size;
  }

  get allocatedSize() {
    return fstatSync(this.fd).blocks * 512;
  }

  #count(name, length = 0, largest = '') {
    Atomics.add(this.counters, COUNTERS.indexOf(name), 1);
    if (largest === '') return;
    const index = COUNTERS.indexOf(largest);
    if (length > Atomics.load(this.counters, index)) Atomics.store(this.counters, index, length);
  }

  #fail(errno) {
    if (errno !== undefined)
      throw new DiskError('failed', `${this.spec.path}: ${errno}`, { errno });
  }

  read(target, targetOffset, offset, length) {
    this.#count('reads', length, 'largestRead');
    if (this.spec.crashes > Atomics.load(this.counters, COUNTERS.indexOf('crashes'))) {
      this.#count('crashes');
      process.exit(1);
    }
    if (this.spec.bug) throw new TypeError('a bug in the device');
    this.#fail(this.spec.readErrno);
    let done = 0;
    while (done < length) {
      const count = readSync(this.fd, target, targetOffset + done, length - done, offset + done);
      if (count === 0) throw new Error('the backing file is too short');
      done += count;
    }
  }

  write(source, sourceOffset, offset, length) {
    this.#count('writes', length, 'largestWrite');
    this.#fail(this.spec.writeErrno);
    let done = 0;
    while (done < length) {
      done += writeSync(this.fd, source, sourceOffset + done, length - done, offset + done);
    }
  }

  discard(offset, length) {
    this.#count('discards');
    fallocate(this.fd, 0x03, offset, length);
  }

  flush() {
    this.#count('flushes');
    this.#fail(this.spec.flushErrno);
    fdatasyncSync(this.fd);
  }

  #seek(offset, whence) {
    try {
      return lseek(this.fd, offset, whence);
    } catch (error) {
      if (error.code === 'ENXIO') return -1;
      throw error;
    }
  }

  nextData(offset) {
    return this.#seek(offset, 3);
  }

  nextHole(offset) {
    const found = this.#seek(offset, 4);
    return found < 0 ? this.size : found;
  }

  close() {
    closeSync(this.fd);
  }
}
