/**
 * Tells whether the files of a base are still the ones that were imported, without reading all of
 * them.
 */
import { createHash } from 'node:crypto';
import { KiB } from '../common/units.js';
import type { DiskImage } from '../engine/disk-image.js';
import { HostFile, type ReadableFile } from '../storage/host-file.js';
import { type FileState, fileState } from '../storage/host-path.js';

export interface FileFingerprint {
  /** Absolute. */
  readonly path: string;
  /** Bytes. */
  readonly size: number;
  /** Nanoseconds since 1970, as decimal digits: past 2^53. */
  readonly mtimeNs: string;
  readonly ctimeNs: string;
  readonly device: string;
  readonly inode: string;
  /** SHA-256 over the head, the tail and samples in between, hexadecimal. */
  readonly content: string;
}

export interface ImageFingerprint {
  readonly path: string;
  readonly format: string;
  /** `ImageInfo.identity`: UUIDs, CIDs. */
  readonly identity: Readonly<Record<string, string>>;
  /** Main file first. */
  readonly files: readonly FileFingerprint[];
}

/** Plain data: goes into the store as JSON. */
export interface BaseFingerprint {
  readonly version: 1;
  /** Wall clock when it was taken, nanoseconds since 1970 as decimal digits. */
  readonly takenNs: string;
  /** Top first. */
  readonly images: readonly ImageFingerprint[];
}

/**
 * What is read of a file at most: 832 KiB. Every format keeps its header and the start of its
 * tables in the head or the tail.
 */
const HEAD_SIZE = 512 * KiB;
const TAIL_SIZE = 64 * KiB;
const SAMPLE_SIZE = 4 * KiB;
const SAMPLE_COUNT = 64;
/**
 * A file whose status changed less than this before the fingerprint was taken may have changed
 * again within the clock's tick without its ctime showing it: its content is compared anew each
 * time. (As git does with its index.)
 */
const RACY_NS = 2_000_000_000n;

/**
 * Takes the fingerprint of opened images, top first. @throws DiskError when a file cannot be read.
 */
export function takeFingerprint(images: readonly DiskImage[]): BaseFingerprint {
  return {
    version: 1,
    takenNs: String(BigInt(Date.now()) * 1_000_000n),
    images: images.map((image) => ({
      path: image.path,
      format: image.format,
      identity: image.info().identity,
      files: image.files.map(fingerprintFile),
    })),
  };
}

/**
 * The line that says which file changed since, and how; undefined when none did. Only stats, unless
 * a file's status changed: then what was sampled is read again, and a change of mode, owner, links,
 * inode or access time alone is none.
 * @throws DiskError `not-found` and the like.
 */
export function findChange(stored: BaseFingerprint): string | undefined {
  const takenNs = BigInt(stored.takenNs);
  for (const image of stored.images) {
    for (const file of image.files) {
      const change = changeOf(file, takenNs);
      if (change !== undefined) return `${file.path} changed since it was imported: ${change}`;
    }
  }
  return undefined;
}

/** Every file of the images. */
export function filesOf({ images }: BaseFingerprint): string[] {
  return images.flatMap(({ files }) => files.map(({ path }) => path));
}

function changeOf(stored: FileFingerprint, takenNs: bigint): string | undefined {
  const state = fileState(stored.path);
  if (state.size !== stored.size) {
    return `it had ${stored.size} bytes, now it has ${state.size}`;
  }
  const now = describeState(state);
  if (now.mtimeNs !== stored.mtimeNs) {
    return `it was last modified ${timeText(stored.mtimeNs)}, now ${timeText(now.mtimeNs)}`;
  }
  const untouched =
    now.ctimeNs === stored.ctimeNs &&
    now.inode === stored.inode &&
    now.device === stored.device &&
    state.ctimeNs + RACY_NS < takenNs;
  if (untouched) return undefined;
  const content = withFile(stored.path, hashContent);
  return content === stored.content
    ? undefined
    : 'its content is another, at the same size and time';
}

function fingerprintFile(path: string): FileFingerprint {
  const state = describeState(fileState(path));
  return { path, ...state, content: withFile(path, hashContent) };
}

/** As it goes into JSON. */
function describeState(state: FileState): Omit<FileFingerprint, 'path' | 'content'> {
  return {
    size: state.size,
    mtimeNs: String(state.mtimeNs),
    ctimeNs: String(state.ctimeNs),
    device: String(state.device),
    inode: String(state.inode),
  };
}

/** Offsets depend on the size alone, so that two calls on one content agree. */
function hashContent(file: ReadableFile): string {
  const hash = createHash('sha256');
  const buffer = Buffer.alloc(HEAD_SIZE);
  function add(offset: number, length: number): void {
    const count = Math.max(0, Math.min(length, file.size - offset));
    file.readExact(buffer, 0, count, offset);
    hash.update(buffer.subarray(0, count));
  }
  add(0, HEAD_SIZE);
  const tail = Math.max(HEAD_SIZE, file.size - TAIL_SIZE);
  const step = Math.floor((tail - HEAD_SIZE) / SAMPLE_COUNT);
  if (step <= SAMPLE_SIZE) {
    for (let at = HEAD_SIZE; at < tail; at += HEAD_SIZE) add(at, Math.min(HEAD_SIZE, tail - at));
  } else {
    for (let index = 0; index < SAMPLE_COUNT; index += 1)
      add(HEAD_SIZE + index * step, SAMPLE_SIZE);
  }
  add(tail, TAIL_SIZE);
  return hash.digest('hex');
}

function withFile<T>(path: string, work: (file: ReadableFile) => T): T {
  const file = HostFile.open(path);
  try {
    return work(file);
  } finally {
    file.close();
  }
}

function timeText(ns: string): string {
  return new Date(Number(BigInt(ns) / 1_000_000n)).toISOString();
}
