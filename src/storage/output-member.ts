/**
 * One file inside another that is under construction: a member of an archive, written where it is
 * to lie. Who makes the archive syncs it, gives it its name, or removes it.
 */
import { createHash } from 'node:crypto';
import { closeSync, fstatSync, openSync } from 'node:fs';
import { basename } from 'node:path';
import { invariant } from '../common/assert.js';
import type { DiskError } from '../common/errors.js';
import { MiB } from '../common/units.js';
import { readPadded } from './exact-io.js';
import { failure, OutputFile, OutputFiles } from './output-files.js';

/** Where a member begins. */
export interface MemberPlace {
  /** The name that the archive will have. */
  readonly archive: string;
  /** Its temporary one; nothing is behind `start` in it yet. */
  readonly temporaryPath: string;
  readonly start: number;
}

export interface WrittenMember {
  /** Bytes. */
  readonly size: number;
  /** In hexadecimal. */
  readonly sha256: string;
}

const CHUNK = MiB;

export class OutputMember extends OutputFiles {
  /** What errors call it: there is no file of its own name. */
  readonly #name: string;
  readonly #place: MemberPlace;
  readonly #fd: number;
  #begun = false;

  /** @param path the member's own name, beside the archive. */
  constructor(path: string, place: MemberPlace) {
    // No file of that name is made, so none can be in the way.
    super(path, { overwrite: true });
    this.#name = `${place.archive}: ${basename(path)}`;
    this.#place = place;
    try {
      this.#fd = openSync(place.temporaryPath, 'r+');
    } catch (error) {
      throw failure(this.#name, 'the archive cannot be opened', error);
    }
  }

  override create(path: string): OutputFile {
    invariant(!this.#begun && path === this.path, 'a member of an archive is one file');
    this.#begun = true;
    return new OutputFile(this.#name, { fd: this.#fd, ...this.#place });
  }

  override commit(): void {
    // Neither durable nor named before all of the archive is.
  }

  override discard(): void {
    // It goes with the archive.
  }

  /**
   * Reads back what was written, for an image's header is known only after what follows it.
   * @param rest called between pieces. @throws DiskError from the host, or from `rest`.
   */
  async measure(rest: () => Promise<void>): Promise<WrittenMember> {
    const size = fstatSync(this.#fd).size - this.#place.start;
    const hash = createHash('sha256');
    const buffer = Buffer.alloc(CHUNK);
    for (let at = 0; at < size; at += CHUNK) {
      const length = Math.min(CHUNK, size - at);
      this.#read(buffer, length, at);
      hash.update(buffer.subarray(0, length));
      await rest();
    }
    return { size, sha256: hash.digest('hex') };
  }

  #read(buffer: Buffer, length: number, at: number): void {
    try {
      readPadded(this.#fd, buffer, 0, length, this.#place.start + at, 'image.measure');
    } catch (error) {
      const { cause } = error as DiskError;
      throw failure(this.#name, `cannot read back ${length} bytes at ${at}`, cause ?? error);
    }
  }

  close(): void {
    closeSync(this.#fd);
  }
}
