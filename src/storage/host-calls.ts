/**
 * Every call that changes the host's files, and what it is for: a label `<file>.<step>` such as
 * `head.append` or `manifest.rename`. No other file of this program changes a file of the store or
 * of an image by itself.
 *
 * A test puts its own functions in the place of these (`Object.assign(hostCalls, ...)`), to write
 * down what is done, or to make the call with a given label or number fail. Nothing is asked on the
 * way of a request: the members are the system calls themselves.
 */
import {
  fdatasync,
  fdatasyncSync,
  fsync,
  fsyncSync,
  ftruncateSync,
  linkSync,
  openSync,
  renameSync,
  unlinkSync,
} from 'node:fs';
import { mkdir, rm } from 'node:fs/promises';
import { promisify } from 'node:util';
import { fallocate, ioctlBuffer } from './libc.js';
import { nameDescriptor, openNameless } from './nameless-file.js';
import { readAt, writeAt } from './positioned-io.js';

/** Whoever owns the store or the image reads and writes it: nobody else. */
const PRIVATE_FILE = 0o600;
const PRIVATE_FOLDER = 0o700;

const FICLONERANGE = 0x4020940d;

const fsyncLater = promisify(fsync);
const fdatasyncLater = promisify(fdatasync);

/** Offsets and lengths are bytes. Errors are those of `node:fs`: `errnoName` tells their names. */
export interface HostCalls {
  /** open(2) of a file that is made by it, mode 0600. `w`: one that is there is emptied. */
  create(path: string, flags: 'w' | 'wx' | 'wx+', label: string): number;
  /** A file without a name, mode 0600. @returns undefined where the folder can have none. */
  createNameless(folder: string, label: string): number | undefined;
  /** pread(2): @returns how many bytes, 0 at the end of the file. */
  read: Transfer;
  /** pwrite(2): @returns how many bytes, which may be fewer than asked for. */
  write: Transfer;
  /** ftruncate(2). */
  truncate(fd: number, size: number, label: string): void;
  /** fallocate(2); `mode` is a sum of FALLOC_FL_*. */
  allocate(fd: number, mode: number, offset: number, length: number, label: string): void;
  /** ioctl(FICLONERANGE) with a struct file_clone_range. */
  share(fd: number, range: Buffer, label: string): void;
  /** fsync(2), of files and of folders. */
  sync(fd: number, label: string): void;
  /** The same on a pool thread. */
  syncLater(fd: number, label: string): Promise<void>;
  /** fdatasync(2). */
  syncData(fd: number, label: string): void;
  /** The same on a pool thread. */
  syncDataLater(fd: number, label: string): Promise<void>;
  rename(from: string, to: string, label: string): void;
  link(from: string, to: string, label: string): void;
  /** Gives an open file a name. */
  nameOpen(fd: number, path: string, label: string): void;
  unlink(path: string, label: string): void;
  /** A file, or a folder with all that is in it; nothing there is no error. */
  removeTree(path: string, label: string): Promise<void>;
  /** Folders of mode 0700. @returns the first one that was made, if any. */
  makeFolders(path: string, label: string): Promise<string | undefined>;
}

type Transfer = (
  fd: number,
  buffer: Buffer,
  bufferOffset: number,
  length: number,
  offset: number,
  label: string,
) => number;

export const hostCalls: HostCalls = {
  create: (path, flags) => openSync(path, flags, PRIVATE_FILE),
  createNameless: (folder) => openNameless(folder, PRIVATE_FILE),
  read: (fd, target, at, length, offset) => readAt(fd, target, at, length, offset),
  write: (fd, source, at, length, offset) => writeAt(fd, source, at, length, offset),
  truncate: (fd, size) => ftruncateSync(fd, size),
  allocate: (fd, mode, offset, length) => fallocate(fd, mode, offset, length),
  share: (fd, range) => void ioctlBuffer(fd, FICLONERANGE, range),
  sync: (fd) => fsyncSync(fd),
  syncLater: (fd) => fsyncLater(fd),
  syncData: (fd) => fdatasyncSync(fd),
  syncDataLater: (fd) => fdatasyncLater(fd),
  rename: (from, to) => renameSync(from, to),
  link: (from, to) => linkSync(from, to),
  nameOpen: (fd, path) => nameDescriptor(fd, path),
  unlink: (path) => unlinkSync(path),
  removeTree: (path) => rm(path, { recursive: true, force: true }),
  makeFolders: (path) => mkdir(path, { recursive: true, mode: PRIVATE_FOLDER }),
};
