/**
 * Files that are no disk image of ours but must not pass as raw disks either: told by their magic,
 * refused by name.
 */
import { DiskError } from '../common/errors.js';

interface ForeignMagic {
  /** How the message names it. */
  readonly what: string;
  /** Bytes from the start of the file; negative: from its end. */
  readonly at: number;
  readonly magic: Buffer;
  /** The command that makes an image of it which can be read; `FILE` stands for its path. */
  readonly remedy: string;
}

function text(what: string, at: number, magic: string, remedy: string): ForeignMagic {
  return { what, at, magic: Buffer.from(magic, 'latin1'), remedy };
}

function hex(what: string, at: number, magic: string, remedy: string): ForeignMagic {
  return { what, at, magic: Buffer.from(magic, 'hex'), remedy };
}

const CONVERT = 'convert it first: qemu-img convert -O qcow2 FILE NEW.qcow2';

const HDIUTIL = 'convert it on a Mac first: hdiutil convert FILE -format UDTO -o NEW';

const SIMG2IMG = 'expand it first: simg2img FILE NEW.img';

const BZIP2: ForeignKind = {
  what: 'compressed with bzip2',
  remedy: 'decompress it first: bunzip2 -c FILE > NEW',
};

/** Sources: file(1)'s magic, the compressors' format documents, the formats' own headers. */
const FOREIGN: readonly ForeignMagic[] = [
  hex('compressed with gzip', 0, '1f8b08', 'decompress it first: gunzip -c FILE > NEW'),
  hex('compressed with xz', 0, 'fd377a585a00', 'decompress it first: unxz -c FILE > NEW'),
  hex('compressed with zstd', 0, '28b52ffd', 'decompress it first: unzstd -c FILE > NEW'),
  hex('compressed with lz4', 0, '04224d18', 'decompress it first: unlz4 -c FILE > NEW'),
  text('a ZIP archive', 0, 'PK\x03\x04', 'unpack it first: unzip FILE'),
  hex('a 7z archive', 0, '377abcaf271c', 'unpack it first: 7z x FILE'),
  text('a RAR archive', 0, 'Rar!\x1a\x07', 'unpack it first: unrar x FILE'),
  text(
    'a tar archive (as OVA files are)',
    257,
    'ustar',
    'name it .ova to import the machine in it, or unpack it: tar -xf FILE',
  ),
  text('a Parallels image', 0, 'WithoutFreeSpace', CONVERT),
  text('a Parallels image', 0, 'WithouFreSpacExt', CONVERT),
  text('a Bochs image', 0, 'Bochs Virtual HD Image', CONVERT),
  text('a QED image', 0, 'QED\0', CONVERT),
  hex('an image of qcow version 1', 0, '514649fb00000001', CONVERT),
  // The trailer says its version, 4, and its length, 512 bytes.
  hex('an Apple disk image (UDIF)', -512, '6b6f6c790000000400000200', CONVERT),
  text('an Apple sparse image', 0, 'sprs\0\0\0', HDIUTIL),
  text('an encrypted Apple disk image', 0, 'encrcdsa\0\0\0', HDIUTIL),
  // Of User Mode Linux, and of QEMU before version 2.1.
  text('a COW image', 0, 'OOOM\0\0\0', 'expand it first: uml_moo FILE NEW'),
  text('a cloop image', 0, '#!/bin/sh\n#V2.0 Format\n', CONVERT),
  hex('an Android sparse image', 0, '3aff26ed0100', SIMG2IMG),
  hex('a Proxmox backup (VMA)', 0, '564d410000000001', 'unpack it first: vma extract FILE FOLDER'),
  text('a partclone image', 0, 'partclone-image', 'restore it first: partclone.restore -s FILE'),
  text('an EWF (EnCase) image', 0, 'EVF\x09\x0d\x0a\xff\0', 'export it first: ewfexport FILE'),
  text('an EWF (EnCase) image', 0, 'EVF2\x0d\x0a\x81\0', 'export it first: ewfexport FILE'),
  text('an AFF image', 0, 'AFF10\x0d\x0a\0', 'expand it first: affconvert -r FILE'),
  text('a WIM archive', 0, 'MSWIM\0\0\0', 'unpack it first: wimapply FILE'),
  text('an XML text', 0, '<?xml', 'name a machine .vbox, .ovf or .xml to import it'),
];

/** What a file is that is no disk, and what makes something of it that can be read. */
export interface ForeignKind {
  readonly what: string;
  readonly remedy: string;
}

/** What the first or last bytes of a file say that it is; undefined when they say nothing. */
export function foreignKind(
  path: string,
  header: Buffer,
  footer: Buffer = Buffer.alloc(0),
): ForeignKind | undefined {
  const found = FOREIGN.find(({ at, magic }) =>
    at < 0 ? hasBytes(footer, footer.length + at, magic) : hasBytes(header, at, magic),
  );
  const { what, remedy } = found ?? (isBzip2(header) ? BZIP2 : {});
  if (what === undefined || remedy === undefined) return undefined;
  return { what, remedy: remedy.replace('FILE', path) };
}

/**
 * Refuses a file whose first or last bytes say that it is something else than a disk.
 * @throws DiskError `not-supported`.
 */
export function refuseForeign(path: string, header: Buffer, footer: Buffer): void {
  const kind = foreignKind(path, header, footer);
  if (kind === undefined) return;
  throw new DiskError('not-supported', `${path} is ${kind.what}, not a disk image`, {
    hint: `${kind.remedy}, or say --format raw if these bytes are the disk`,
  });
}

function hasBytes(bytes: Buffer, at: number, magic: Buffer): boolean {
  return at >= 0 && magic.equals(bytes.subarray(at, at + magic.length));
}

/** `BZh`, a level, and the magic of the first block. */
function isBzip2(header: Buffer): boolean {
  return /^BZh[1-9]1AY&SY/.test(header.toString('latin1', 0, 10));
}
