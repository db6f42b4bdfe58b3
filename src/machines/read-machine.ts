/** The way in: reads a machine file of any kind, with what lies beside or inside it. */
import { basename, extname, posix } from 'node:path';
import { DiskError } from '../common/errors.js';
import { formatSize, MiB } from '../common/units.js';
import { damaged, unsupported } from '../formats/image-error.js';
import { quoteName, resolveSibling } from '../formats/sibling-path.js';
import { type FileWindow, HostFile } from '../storage/host-file.js';
import { realFolder } from '../storage/host-path.js';
import { readLibvirt } from './libvirt.js';
import type { DiskDraft, Machine, MachineDescription, StatedDigest } from './machine.js';
import { type FindFile, filesBeside, locateDisks } from './machine-files.js';
import { type OvfMachine, readOvf } from './ovf.js';
import { readManifest } from './ovf-manifest.js';
import { tarMembers } from './tar-members.js';
import { entryOf } from './values.js';
import { readVbox } from './vbox.js';
import { readDictionary, readVmware } from './vmware.js';
import { parseXml } from './xml.js';

/**
 * A machine file is told by its name, and what is in it must agree. Content alone never makes one:
 * the first bytes of a raw disk are the guest's to choose, and so would be the files that it names.
 */
const EXTENSIONS = ['.vbox', '.vmx', '.ovf', '.ova', '.xml'];

/** Of a text; a machine with hundreds of snapshots has some 4 MiB. */
const MAX_TEXT_SIZE = 8 * MiB;

export interface ReadOptions {
  /** Absolute folders besides the machine file's own in which its disks may lie. */
  readonly allowFolders?: readonly string[];
}

/** Whether a file of this name is a machine and not an image. */
export function isMachineFile(path: string): boolean {
  return EXTENSIONS.includes(extname(path).toLowerCase());
}

/**
 * @param path absolute; `isMachineFile`.
 * @throws DiskError naming the file: `not-found`, `not-permitted` (it or a disk of it),
 * `not-supported`, `damaged`.
 */
export function readMachine(path: string, options: ReadOptions = {}): MachineDescription {
  const folder = realFolder(path);
  const beside = filesBeside(path, options.allowFolders ?? []);
  switch (extname(path).toLowerCase()) {
    case '.ova':
      return { path, folder, ...readArchive(path) };
    case '.vmx': {
      const vmx = readDictionary(path, readText(path));
      const snapshots = readBeside(path, '.vmsd');
      const vmsd =
        snapshots === undefined || snapshots.bytes.length === 0
          ? undefined
          : readDictionary(snapshots.path, snapshots.bytes);
      return { path, folder, digests: [], ...locateDisks(readVmware(path, vmx, vmsd), beside) };
    }
    default:
      return { path, folder, ...readXml(path, beside) };
  }
}

type Found = Omit<MachineDescription, 'path' | 'folder'>;

/** What the root element says; `.xml` was VirtualBox's extension once, and is libvirt's. */
function readXml(path: string, beside: FindFile): Found {
  const root = parseXml(path, readText(path));
  const readers: Readonly<Record<string, () => Machine<DiskDraft>>> = {
    VirtualBox: () => readVbox(path, root),
    domain: () => readLibvirt(path, root),
  };
  if (root.name === 'Envelope') {
    const manifest = readBeside(path, '.mf');
    return readDescriptor(path, readOvf(path, root), beside, manifest);
  }
  const read = entryOf(readers, root.name);
  if (read !== undefined) return { digests: [], ...locateDisks(read(), beside) };
  throw unsupported(
    path,
    `is no machine, but ${quoteName(root.name)}`,
    'give a .vbox, .vmx, .ovf or .ova file, or the domain XML of libvirt',
  );
}

/** An OVF inside a tar file: its members are read where they lie. */
function readArchive(path: string): Found {
  const file = HostFile.open(path);
  try {
    const members = tarMembers(file);
    const [name, ...more] = [...members.keys()].filter(isDescriptor);
    if (name === undefined || more.length > 0) {
      throw damaged(path, `has ${more.length === 0 ? 'no' : 'more than one'} OVF descriptor`);
    }
    const text = (member: string) => readWindow(file, members.get(member), member);
    // As beside a file: what the OVF names is where the OVF is.
    const folder = posix.dirname(name);
    const inside: FindFile = (names) => {
      const found = names
        .flatMap((each) => [posix.join(folder, each), each])
        .find((each) => members.has(each));
      const window = found === undefined ? undefined : members.get(found);
      if (window !== undefined) return { path, window };
      throw damaged(path, `has no member ${quoteName(names[0] ?? '')}, which its OVF names`);
    };
    const where = `${path}: ${name}`;
    const ovf = readOvf(where, parseXml(where, text(name)));
    const manifest = name.replace(/\.ovf$/i, '.mf');
    const digests = members.has(manifest)
      ? { path: `${path}: ${manifest}`, bytes: text(manifest) }
      : undefined;
    return readDescriptor(name, ovf, inside, digests);
  } finally {
    file.close();
  }
}

/**
 * Beside each file the tar of macOS puts what it knows of it: a second one, `._` before its name.
 */
function isDescriptor(member: string): boolean {
  return /\.ovf$/i.test(member) && !basename(member).startsWith('._');
}

interface TextFile {
  readonly path: string;
  readonly bytes: Buffer;
}

/**
 * Finds the disks of an OVF, compares their sizes, and notes which digests they must have.
 * @param descriptor the OVF's own path or name.
 */
function readDescriptor(
  descriptor: string,
  { files, ...ovf }: OvfMachine,
  findFile: FindFile,
  manifest: TextFile | undefined,
): Found {
  const digests: StatedDigest[] = [];
  const warnings = [...ovf.warnings];
  const stated = manifest && readManifest(manifest.path, manifest.bytes.toString('utf8'));
  const own = basename(descriptor);
  const note = (names: readonly string[], shown: string): void => {
    const name = names.find((each) => stated?.has(each));
    const entry = name === undefined ? undefined : stated?.get(name);
    if (entry !== undefined) digests.push({ ...entry, name: shown, ...findFile(names) });
    else if (stated !== undefined) warnings.push(`${quoteName(shown)} is not in the manifest`);
  };
  if (stated !== undefined) note([descriptor, own], own);
  for (const [name, { names, size }] of files) {
    const place = findFile(names);
    const found = place.window?.length ?? sizeOf(place.path);
    if (size !== undefined && size !== found) {
      const what = `${quoteName(name)} has ${found} bytes, and ${size} by its OVF`;
      throw damaged(place.path, what);
    }
    note(names, name);
  }
  return { ...locateDisks({ ...ovf, warnings }, findFile), digests };
}

function sizeOf(path: string): number {
  const file = HostFile.open(path);
  try {
    return file.size;
  } finally {
    file.close();
  }
}

function readText(path: string): Buffer {
  const file = HostFile.open(path);
  try {
    return readWindow(file, { offset: 0, length: file.size }, path);
  } finally {
    file.close();
  }
}

function readWindow(file: HostFile, window: FileWindow | undefined, name: string): Buffer {
  const { offset, length } = window ?? { offset: 0, length: 0 };
  if (length > MAX_TEXT_SIZE) {
    throw unsupported(
      file.path,
      `${quoteName(basename(name))} has ${formatSize(length)}, too much for a description`,
    );
  }
  const bytes = Buffer.alloc(length);
  file.readExact(bytes, 0, length, offset);
  return bytes;
}

/** The file of the same name with another extension, if there is one; a link may not lead away. */
function readBeside(path: string, extension: string): TextFile | undefined {
  const other = basename(path, extname(path)) + extension;
  try {
    const found = resolveSibling(path, other);
    return { path: found, bytes: readText(found) };
  } catch (error) {
    if (error instanceof DiskError && error.code === 'not-found') return undefined;
    throw error;
  }
}
