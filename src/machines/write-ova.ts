/**
 * Writes an OVA: an OVF 1 descriptor, a manifest with SHA-256, and disks that are files already.
 */
import { createHash } from 'node:crypto';
import { DiskError } from '../common/errors.js';
import { MiB } from '../common/units.js';
import { HostFile } from '../storage/host-file.js';
import type { OutputFile } from '../storage/output-files.js';
import type { DigestWork } from './digests.js';
import { type OvfContent, ovfDescriptor } from './ovf-descriptor.js';
import { paddedSize, TAR_END, tarHeader } from './tar-header.js';

/** A disk of it, as a streamOptimized VMDK. */
export interface OvaDisk {
  /** The member's name. */
  readonly name: string;
  /** Where its bytes are now. */
  readonly path: string;
  /** Bytes of the virtual disk. */
  readonly capacity: number;
}

export interface OvaContent extends Omit<OvfContent, 'disks'> {
  readonly disks: readonly OvaDisk[];
}

const CHUNK = MiB;
const HEX_LENGTH = 64;

/**
 * The descriptor comes first, as OVF wants it, then the manifest, whose digests are filled in last.
 * @throws DiskError ENOSPC and others from the host; `interrupted`.
 */
export async function writeOva(
  output: OutputFile,
  content: OvaContent,
  work: DigestWork = {},
): Promise<void> {
  const opened = content.disks.map((disk) => ({ disk, file: HostFile.open(disk.path) }));
  try {
    const disks = opened.map(({ disk, file }) => ({ ...disk, size: file.size }));
    const descriptor = Buffer.from(ovfDescriptor({ ...content, disks }));
    const names = [`${content.name}.ovf`, ...disks.map(({ name }) => name)];
    const digests = [createHash('sha256').update(descriptor).digest('hex')];
    let at = writeMember(output, 0, names[0]!, descriptor);
    const manifestAt = at;
    const empty = names.map(() => '0'.repeat(HEX_LENGTH));
    at = writeMember(output, at, `${content.name}.mf`, manifest(names, empty));
    const total = disks.reduce((sum, { size }) => sum + size, 0);
    let done = 0;
    for (const { disk, file } of opened) {
      const header = tarHeader(disk.name, file.size);
      output.write(header, 0, header.length, at);
      const start = at + header.length;
      digests.push(
        await copyFile(file, output, start, {
          ...work,
          onProgress: (bytes) => work.onProgress?.(done + bytes, total),
        }),
      );
      done += file.size;
      at = start + paddedSize(file.size);
    }
    writeMember(output, manifestAt, `${content.name}.mf`, manifest(names, digests));
    // What is not written reads as zeroes: padding, and the end of the archive.
    output.truncate(at + TAR_END);
  } finally {
    for (const { file } of opened) file.close();
  }
}

function manifest(names: readonly string[], digests: readonly string[]): Buffer {
  return Buffer.from(names.map((name, index) => `SHA256(${name})= ${digests[index]}\n`).join(''));
}

/** @returns where the next member begins. */
function writeMember(output: OutputFile, at: number, name: string, bytes: Buffer): number {
  const header = tarHeader(name, bytes.length);
  output.write(header, 0, header.length, at);
  output.write(bytes, 0, bytes.length, at + header.length);
  return at + header.length + paddedSize(bytes.length);
}

/** @returns its SHA-256. */
async function copyFile(
  file: HostFile,
  output: OutputFile,
  start: number,
  { signal, onProgress }: DigestWork,
): Promise<string> {
  const hash = createHash('sha256');
  const buffer = Buffer.alloc(CHUNK);
  for (let at = 0; at < file.size; at += CHUNK) {
    if (signal?.aborted) throw new DiskError('interrupted', 'cancelled; nothing was left behind');
    const length = Math.min(CHUNK, file.size - at);
    file.readExact(buffer, 0, length, at);
    hash.update(buffer.subarray(0, length));
    output.write(buffer, 0, length, start + at);
    onProgress?.(at + length, file.size);
    // Others on this thread go on in between.
    await new Promise((resolve) => setImmediate(resolve));
  }
  return hash.digest('hex');
}
