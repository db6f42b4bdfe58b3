/**
 * Which files lie where in a tar archive (an OVA), from its headers alone: nothing is extracted.
 * The only file that imports the tar library.
 */
import { Header } from 'tar/header';
import { Pax } from 'tar/pax';
import { foreignKind } from '../formats/foreign-magic.js';
import { damaged, unsupported } from '../formats/image-error.js';
import { quoteName } from '../formats/sibling-path.js';
import type { FileWindow, HostFile } from '../storage/host-file.js';

const BLOCK = 512;
/** An OVA holds a descriptor, a manifest, a certificate and its disks. */
const MAX_MEMBERS = 1000;
/** Of a header that extends the next one: names and a few numbers. */
const MAX_EXTENSION = 64 * 1024;
const MAX_NAME_LENGTH = 4096;
/** Where a tar archive says that it is one; other kinds say it at their start. */
const TAR_MAGIC_OFFSET = 257;

/** What goes before a member and changes it. */
interface Extension {
  pax?: Pax;
  longName?: string;
}

/**
 * @returns where each regular file lies, in the order of the archive.
 * @throws DiskError `damaged` (not an archive, cut short, a name twice), `not-supported` (links,
 * names that lead out of the archive's folder, sparse members).
 */
export function tarMembers(file: HostFile): Map<string, FileWindow> {
  const members = new Map<string, FileWindow>();
  const block = Buffer.alloc(BLOCK);
  let extension: Extension = {};
  let headers = 0;
  for (let at = 0; at + BLOCK <= file.size; ) {
    file.readExact(block, 0, BLOCK, at);
    const header = decodeHeader(file, block, at, extension.pax);
    if (header.nullBlock) return members;
    headers += 1;
    if (headers > 2 * MAX_MEMBERS) throw unsupported(file.path, `more than ${MAX_MEMBERS} members`);
    const size = header.size ?? 0;
    const start = at + BLOCK;
    if (!Number.isSafeInteger(size) || start + size > file.size) {
      const what = `its member ${quoteName(header.path ?? '')} of ${size} bytes at ${start}`;
      throw damaged(file.path, `${what} goes on past its end at ${file.size}`);
    }
    const next = readExtension(file, header, extension, { offset: start, length: size });
    if (next === undefined) {
      addMember(file.path, members, header, extension, { offset: start, length: size });
      extension = {};
    } else {
      extension = next;
    }
    at = start + Math.ceil(size / BLOCK) * BLOCK;
  }
  return members;
}

function decodeHeader(file: HostFile, block: Buffer, at: number, pax: Pax | undefined): Header {
  let header: Header;
  try {
    header = new Header(block, 0, pax);
  } catch (error) {
    if (at === 0) refuseOther(file.path, block);
    // Numbers beyond 2^53; the library's errors have no codes.
    throw damaged(file.path, `its tar header at ${at} can't be read`, error);
  }
  if (!header.nullBlock && !header.cksumValid) {
    if (at === 0) refuseOther(file.path, block);
    throw damaged(file.path, `there is no tar header at ${at}, or its checksum is wrong`);
  }
  return header;
}

/** An archive that was compressed, or another kind of one. @throws DiskError `not-supported`. */
function refuseOther(path: string, block: Buffer): void {
  const kind = foreignKind(path, block.subarray(0, TAR_MAGIC_OFFSET));
  if (kind !== undefined)
    throw unsupported(path, `is ${kind.what}, not a tar archive`, kind.remedy);
}

/** @returns what this header says of the next one; undefined for a header of its own. */
function readExtension(
  file: HostFile,
  header: Header,
  before: Extension,
  { offset, length }: FileWindow,
): Extension | undefined {
  const { type } = header;
  if (!['ExtendedHeader', 'GlobalExtendedHeader', 'NextFileHasLongPath'].includes(type)) {
    return undefined;
  }
  if (length > MAX_EXTENSION) {
    throw unsupported(file.path, `its tar header at ${offset} is extended by ${length} bytes`);
  }
  const bytes = Buffer.alloc(length);
  file.readExact(bytes, 0, length, offset);
  const text = bytes.toString('utf8');
  if (type === 'NextFileHasLongPath') return { ...before, longName: text.replace(/\0.*$/s, '') };
  if (/GNU\.sparse/.test(text)) throw unsupported(file.path, 'it has sparse members');
  // What is said of all members is times and owners; a name or a size can't be said of all.
  if (type === 'GlobalExtendedHeader') return before;
  return { ...before, pax: Pax.parse(text) };
}

function addMember(
  archive: string,
  members: Map<string, FileWindow>,
  header: Header,
  extension: Extension,
  window: FileWindow,
): void {
  // The library puts the prefix of the header before the path of an extension, which is whole.
  const path = extension.longName ?? extension.pax?.path ?? header.path ?? '';
  const name = path.replace(/^(\.\/)+/, '');
  const { type } = header;
  // `./` is how some archivers begin.
  if (type === 'Directory' && (name === '' || isPlain(name))) return;
  if (!['File', 'OldFile', 'ContiguousFile'].includes(type)) {
    throw unsupported(archive, `its member ${quoteName(name)} is no plain file (${type})`);
  }
  if (!isPlain(name)) {
    throw unsupported(archive, `its member ${quoteName(name)} has a name that leads elsewhere`);
  }
  if (members.has(name)) throw damaged(archive, `has two members of the name ${quoteName(name)}`);
  members.set(name, window);
}

function isPlain(name: string): boolean {
  const isShort = name.length > 0 && name.length <= MAX_NAME_LENGTH;
  return (
    isShort && !name.startsWith('/') && !/[\0\\]/.test(name) && !name.split('/').includes('..')
  );
}
