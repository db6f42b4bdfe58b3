/**
 * Writes an OVA: an OVF 1 descriptor, a manifest with SHA-256, and disks, each where it is to lie.
 */
import { createHash } from 'node:crypto';
import type { OutputFile } from '../storage/output-files.js';
import type { WrittenMember } from '../storage/output-member.js';
import { type OvfContent, type OvfDisk, ovfDescriptor } from './ovf-descriptor.js';
import { LONGEST_NAME, paddedSize, TAR_BLOCK, TAR_END, tarHeader } from './tar-header.js';

/** A disk of it, as a streamOptimized VMDK. */
export interface OvaDisk {
  /** The member's name: see `diskMemberNames`. */
  readonly name: string;
  /** Bytes of the virtual disk. */
  readonly capacity: number;
  /** Writes the VMDK into the archive from byte `start` on, where nothing is yet. */
  write(start: number): Promise<WrittenMember>;
}

export interface OvaContent extends Omit<OvfContent, 'disks'> {
  readonly disks: readonly OvaDisk[];
}

const HEX_LENGTH = 64;

/**
 * Disks of one VM have names of their own: the VM's is left out of all of them where it is too long
 * for one, else two could come to the same.
 */
export function diskMemberNames(vm: string, disks: readonly string[]): string[] {
  const names = disks.map((disk) => `${vm}-${disk}.vmdk`);
  const fit = names.every((name) => name.length <= LONGEST_NAME);
  return fit ? names : disks.map((disk) => `${disk}.vmdk`);
}

/**
 * The descriptor comes first, as OVF wants it, then the manifest. What both and the headers of the
 * disks say of sizes and digests is known only afterwards: room is left for it, and filled in last.
 * @param output empty.
 * @throws DiskError ENOSPC and others from the host; what writing a disk throws.
 */
export async function writeOva(output: OutputFile, content: OvaContent): Promise<void> {
  const { name, disks } = content;
  const room = descriptor(content, disks.map(widest), 0).length;
  const names = [`${name}.ovf`, ...disks.map((disk) => disk.name)];
  const manifestAt = TAR_BLOCK + paddedSize(room);
  const empty = manifest(
    names,
    names.map(() => '0'.repeat(HEX_LENGTH)),
  );
  let at = manifestAt + TAR_BLOCK + paddedSize(empty.length);
  const written: OvfDisk[] = [];
  const digests: string[] = [];
  for (const disk of disks) {
    const { size, sha256 } = await disk.write(at + TAR_BLOCK);
    output.write(tarHeader(disk.name, size), 0, TAR_BLOCK, at);
    at += TAR_BLOCK + paddedSize(size);
    // What is not written reads as zeroes: padding, and in the end that of the archive.
    output.truncate(at);
    written.push({ ...disk, size });
    digests.push(sha256);
  }
  const text = descriptor(content, written, room);
  digests.unshift(createHash('sha256').update(text).digest('hex'));
  writeMember(output, 0, `${name}.ovf`, text);
  writeMember(output, manifestAt, `${name}.mf`, manifest(names, digests));
  output.truncate(at + TAR_END);
}

/** As many digits as a size can have. */
function widest(disk: OvaDisk): OvfDisk {
  return { ...disk, size: Number.MAX_SAFE_INTEGER };
}

/** Blanks behind an XML document mean nothing. */
function descriptor(content: OvaContent, disks: readonly OvfDisk[], length: number): Buffer {
  const text = Buffer.from(ovfDescriptor({ ...content, disks }));
  return Buffer.concat([text, Buffer.alloc(Math.max(0, length - text.length), '\n')]);
}

function manifest(names: readonly string[], digests: readonly string[]): Buffer {
  return Buffer.from(names.map((name, index) => `SHA256(${name})= ${digests[index]}\n`).join(''));
}

function writeMember(output: OutputFile, at: number, name: string, bytes: Buffer): void {
  output.write(tarHeader(name, bytes.length), 0, TAR_BLOCK, at);
  output.write(bytes, 0, bytes.length, at + TAR_BLOCK);
}
