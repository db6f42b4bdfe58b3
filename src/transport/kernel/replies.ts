/**
 * Replies that the main thread writes: encoders of the protocol's structures, each into a
 * message of its own.
 */
import { writeSync } from 'node:fs';
import { errnoName } from '../../common/errors.js';
import type { DirectoryEntry, FileSystemSizes, NodeAttr, NodeId } from '../namespace.js';
import type { Word64 } from './messages.js';
import {
  ATTR_BYTES,
  ATTR_OUT_BYTES,
  DIRENT_HEADER_BYTES,
  DT_DIR,
  DT_REG,
  ENTRY_OUT_BYTES,
  HIGH_HALF,
  OPEN_OUT_BYTES,
  OUT_HEADER_BYTES,
  STATFS_OUT_BYTES,
} from './protocol.js';

/**
 * Seconds for which the kernel may believe a name or attributes without asking. Changes are
 * announced as they happen; this bounds the harm of an announcement that got lost.
 */
const CACHE_SECONDS = 1;

const S_IFDIR = 0o040000;
const S_IFREG = 0o100000;
/** Unit of `st_blocks`, whatever the file system. */
const STAT_BLOCK = 512;
const IO_BLOCK = 4096;
const NAME_MAX = 255;

/**
 * Writes the reply to `unique`: `body`, or an error (`errno` is positive).
 * @returns false when nobody wants it any more: the request was sent again and that copy will
 * be answered, its caller was killed before we took it, or the mount is gone.
 */
export function writeReply(fd: number, unique: Word64, errno: number, body?: Buffer): boolean {
  const length = OUT_HEADER_BYTES + (body?.length ?? 0);
  const message = Buffer.alloc(length);
  message.writeUInt32LE(length, 0);
  message.writeInt32LE(-errno, 4);
  message.writeUInt32LE(unique.lo, 8);
  message.writeUInt32LE(unique.hi, 12);
  body?.copy(message, OUT_HEADER_BYTES);
  try {
    writeSync(fd, message, 0, length, null);
    return true;
  } catch (error) {
    const name = errnoName(error);
    if (name === 'ENOENT' || name === 'ENODEV') return false;
    throw error;
  }
}

function writeNumber64(target: Buffer, value: number, offset: number): void {
  target.writeUInt32LE(value % HIGH_HALF, offset);
  target.writeUInt32LE(Math.floor(value / HIGH_HALF), offset + 4);
}

function writeNode(target: Buffer, node: NodeId, offset: number): void {
  target.writeUInt32LE(node.lo, offset);
  target.writeUInt32LE(node.hi, offset + 4);
}

/** struct fuse_attr. */
function writeAttr(target: Buffer, attr: NodeAttr, start: number): void {
  const seconds = Math.floor(attr.mtime / 1000);
  const nanoseconds = Math.floor((attr.mtime - seconds * 1000) * 1e6);
  writeNode(target, attr.node, start);
  writeNumber64(target, attr.size, start + 8);
  writeNumber64(target, Math.ceil(attr.allocatedSize / STAT_BLOCK), start + 16);
  for (const [index, field] of [24, 32, 40].entries()) {
    writeNumber64(target, seconds, start + field);
    target.writeUInt32LE(nanoseconds, start + 48 + 4 * index);
  }
  const type = attr.kind === 'directory' ? S_IFDIR : S_IFREG;
  target.writeUInt32LE(type | attr.mode, start + 60);
  target.writeUInt32LE(attr.nlink, start + 64);
  target.writeUInt32LE(attr.uid, start + 68);
  target.writeUInt32LE(attr.gid, start + 72);
  target.writeUInt32LE(IO_BLOCK, start + 80);
}

/** struct fuse_entry_out. */
function writeEntry(target: Buffer, attr: NodeAttr, start: number): void {
  writeNode(target, attr.node, start);
  writeNumber64(target, CACHE_SECONDS, start + 16);
  writeNumber64(target, CACHE_SECONDS, start + 24);
  writeAttr(target, attr, start + 40);
}

export function entryReply(attr: NodeAttr): Buffer {
  const body = Buffer.alloc(ENTRY_OUT_BYTES);
  writeEntry(body, attr, 0);
  return body;
}

/** struct fuse_attr_out. */
export function attrReply(attr: NodeAttr): Buffer {
  const body = Buffer.alloc(ATTR_OUT_BYTES);
  writeNumber64(body, CACHE_SECONDS, 0);
  writeAttr(body, attr, ATTR_OUT_BYTES - ATTR_BYTES);
  return body;
}

/** struct fuse_open_out; `flags` is a sum of FOPEN_*, `backing` a file that the kernel reads. */
export function openReply(handle: Word64, flags: number, backing = 0): Buffer {
  const body = Buffer.alloc(OPEN_OUT_BYTES);
  body.writeUInt32LE(handle.lo, 0);
  body.writeUInt32LE(handle.hi, 4);
  body.writeUInt32LE(flags, 8);
  body.writeInt32LE(backing, 12);
  return body;
}

/** The handle in a reply that `openReply` made. */
export function openedHandle(reply: Buffer): Word64 {
  return { lo: reply.readUInt32LE(0), hi: reply.readUInt32LE(4) };
}

/** struct fuse_statfs_out. */
export function statfsReply(sizes: FileSystemSizes): Buffer {
  const body = Buffer.alloc(STATFS_OUT_BYTES);
  const free = Math.floor(sizes.free / IO_BLOCK);
  writeNumber64(body, Math.ceil(sizes.total / IO_BLOCK), 0);
  writeNumber64(body, free, 8);
  writeNumber64(body, free, 16);
  body.writeUInt32LE(IO_BLOCK, 40);
  body.writeUInt32LE(NAME_MAX, 44);
  body.writeUInt32LE(IO_BLOCK, 48);
  return body;
}

/** One line of a listing; `attr` only where the kernel asked for attributes and may keep them. */
export interface ListedEntry extends DirectoryEntry {
  readonly attr?: NodeAttr;
}

/** Bytes that a listed entry takes: names are padded to 8 bytes. */
function listedSize(name: string, plus: boolean): number {
  const length = DIRENT_HEADER_BYTES + Buffer.byteLength(name);
  return Math.ceil(length / 8) * 8 + (plus ? ENTRY_OUT_BYTES : 0);
}

/**
 * Fills a READDIR (or READDIRPLUS, `plus`) reply of at most `size` bytes with `entries`; the
 * n-th carries position `first + n + 1`, at which the kernel goes on.
 */
export function listingReply(
  entries: readonly ListedEntry[],
  first: number,
  size: number,
  plus: boolean,
): Buffer {
  const body = Buffer.alloc(size);
  let used = 0;
  for (const [index, entry] of entries.entries()) {
    const length = listedSize(entry.name, plus);
    if (used + length > size) break;
    if (plus && entry.attr !== undefined) writeEntry(body, entry.attr, used);
    const start = used + (plus ? ENTRY_OUT_BYTES : 0);
    writeNode(body, entry.node, start);
    writeNumber64(body, first + index + 1, start + 8);
    body.writeUInt32LE(Buffer.byteLength(entry.name), start + 16);
    body.writeUInt32LE(entry.kind === 'directory' ? DT_DIR : DT_REG, start + 20);
    body.write(entry.name, start + DIRENT_HEADER_BYTES);
    used += length;
  }
  return body.subarray(0, used);
}
