/** The one place that follows parent references: opens an image and everything below it. */
import { basename, dirname, isAbsolute, join } from 'node:path';
import { DiskError, type ErrorCode } from '../common/errors.js';
import { KiB } from '../common/units.js';
import type { DiskImage, ParentReference } from '../engine/disk-image.js';
import { type FileWindow, HostFile } from '../storage/host-file.js';
import { fileState, pathsIn, realFolder, realPath } from '../storage/host-path.js';
import { notAlone } from './image-error.js';
import { inOneBudget } from './memory-budget.js';
import { openStated, probeImage } from './registry.js';
import { hasProtocol, quoteName, resolveSibling } from './sibling-path.js';

/** Most images in a chain. */
const MAX_CHAIN_DEPTH = 1000;
/** Most files of a folder that are looked at in search of a parent known by its id alone. */
const MAX_SEARCHED_FILES = 10_000;
/** Reaches to the end of the descriptor that is embedded in a VMDK. */
const SEARCH_HEADER_SIZE = 16 * KiB;

/** What to do where the parent is not the one. */
const OTHER_PARENT = 'pass --parent FILE with the path of the parent that it was made from';

/** Why a name was not followed, where it was not for want of a file. */
const REASONS: Readonly<Partial<Record<ErrorCode, string>>> = {
  'not-permitted': ' (not a file in the folder of the image or an allowed one)',
  damaged: ' (no possible name)',
  failed: ' (not a regular file)',
};

export interface ChainOptions {
  /** Format of the top image: a name of `FORMAT_NAMES` or `auto` (the default). */
  readonly format?: string;
  /** Absolute folders besides the top image's own in which parents and extents may lie. */
  readonly allowFolders?: readonly string[];
  /**
   * What lies below the image, nearest first, where something else than the images says so (a
   * machine's registry of disks). Their identities are checked all the same.
   */
  readonly parents?: readonly string[];
  /** The format of each of these; one that an image states itself counts more. */
  readonly parentFormats?: readonly string[];
  /** The image is this part of the file; it can't have a parent then. */
  readonly window?: FileWindow;
  /** The internal snapshot of the top image to show instead of its present state. */
  readonly snapshot?: string;
  /**
   * Stands in for the first parent that cannot be found, or not accepted, by what the images say.
   */
  readonly parent?: string;
  /**
   * Called with one line for each finding that is no error (a parent's time stamp that differs).
   */
  readonly onWarning?: (text: string) => void;
}

/**
 * Opens the image at `path` and its parents, top first. Names inside images are untrusted: a parent
 * must be a regular file in (or below) the folder of the top image or of its child, or in an
 * allowed folder, all links resolved. Whatever identity the format records is checked. On any error
 * everything opened so far is closed.
 *
 * @throws DiskError `not-found` (with every name that was tried), `not-permitted`, `damaged` (not
 * the parent that
 *   the child was made from, a cycle), `not-supported` (depth, raw parent of unstated format),
 *   `usage` (also: the top image is of another format than `format`).
 */
export function openChain(path: string, options: ChainOptions = {}): DiskImage[] {
  const walk = new ChainWalk(path, options);
  try {
    return inOneBudget(() => walk.run());
  } catch (error) {
    for (const image of walk.images) image.close();
    throw error;
  }
}

class ChainWalk {
  readonly images: DiskImage[] = [];
  readonly #path: string;
  readonly #options: ChainOptions;
  /** Where parents may lie besides their child's own folder. */
  readonly #folders: string[];
  readonly #seen = new Set<string>();
  #substitute: string | undefined;

  constructor(path: string, options: ChainOptions) {
    this.#path = path;
    this.#options = options;
    this.#folders = [...(options.allowFolders ?? [])];
    this.#substitute = options.parent;
  }

  run(): DiskImage[] {
    const { format = 'auto', allowFolders = [], window, snapshot } = this.#options;
    const options = {
      allowFolders,
      ...(window === undefined ? {} : { window }),
      ...(snapshot === undefined ? {} : { snapshot }),
    };
    this.#push(openStated(this.#path, format, options));
    this.#folders.push(realFolder(this.#path));
    for (let child = this.images[0]!; child.parent !== undefined; child = this.images.at(-1)!) {
      if (this.images.length === MAX_CHAIN_DEPTH) {
        throw new DiskError(
          'not-supported',
          `${this.#path}: more than ${MAX_CHAIN_DEPTH} images stand on each other`,
        );
      }
      if (window !== undefined) throw notAlone(this.#path, 'its parent');
      this.#openParent(child, child.parent);
    }
    if (this.#substitute !== undefined) {
      throw new DiskError(
        'usage',
        `no image of ${this.#path} needs ${this.#substitute} as parent`,
        {
          hint: 'leave --parent out: the parents that the images name were found',
        },
      );
    }
    return this.images;
  }

  /** Counts the image in, unless it is already there. */
  #push(image: DiskImage): void {
    // Counted in first: it is closed with the others if this throws.
    this.images.push(image);
    const { device, inode } = fileState(image.path);
    const key = `${device}:${inode}`;
    if (this.#seen.has(key)) {
      throw new DiskError('damaged', `${this.#path}: ${image.path} is its own ancestor`, {
        hint: 'the images name each other as parents; no data can be read from such a ring',
      });
    }
    this.#seen.add(key);
  }

  /** Tries what the child says, then the user's `--parent`. */
  #openParent(child: DiskImage, reference: ParentReference): void {
    let failure: DiskError;
    try {
      this.#push(this.#openNamed(child, reference));
      return;
    } catch (error) {
      if (this.#substitute === undefined || !(error instanceof DiskError)) throw error;
      if (this.images.at(-1) !== child) throw error;
      failure = error;
    }
    const path = this.#substitute;
    this.#substitute = undefined;
    this.#options.onWarning?.(`${failure.message}: ${path} is taken as the parent`);
    const image = this.#openAs(child, path, reference.format ?? 'auto');
    this.#push(this.#identified(child, reference, image));
    this.#folders.push(realFolder(path));
  }

  #openNamed(child: DiskImage, reference: ParentReference): DiskImage {
    const { parents, parentFormats } = this.#options;
    const index = this.images.length - 1;
    const path = parents?.[index] ?? this.#locate(child, reference);
    const stated = reference.format ?? parentFormats?.[index];
    const format = stated ?? probeImage(path);
    if (format === 'raw' && stated === undefined) {
      throw new DiskError(
        'not-supported',
        `${child.path}: its parent ${path} is of no known format, ` +
          'and the image does not say that it is raw',
        { hint: `if it is a raw disk, say so: --parent ${path}` },
      );
    }
    const image = this.#openAs(child, path, format);
    if (format === 'raw' && reference.isInRegistry === true) return image;
    return this.#identified(child, reference, image);
  }

  /** A parent of the format that its child needs it to have. */
  #openAs(child: DiskImage, path: string, format: string): DiskImage {
    try {
      return openStated(path, format, { allowFolders: this.#folders });
    } catch (error) {
      if (!(error instanceof DiskError) || error.code !== 'usage') throw error;
      const what = `its parent must be ${format}: ${error.message}`;
      throw new DiskError('damaged', `${child.path}: ${what}`, {
        hint: OTHER_PARENT,
        cause: error,
      });
    }
  }

  /** Passes the image on if it is the parent that the child was made from. */
  #identified(child: DiskImage, reference: ParentReference, image: DiskImage): DiskImage {
    try {
      const mismatch = reference.mismatch(image);
      if (mismatch !== undefined) {
        throw new DiskError('damaged', `${child.path}: ${mismatch}`, { hint: OTHER_PARENT });
      }
      const warning = reference.warning?.(image);
      if (warning !== undefined) this.#options.onWarning?.(`${child.path}: ${warning}`);
      return image;
    } catch (error) {
      image.close();
      throw error;
    }
  }

  /** The parent's real path, by its names or by searching for its id. */
  #locate(child: DiskImage, reference: ParentReference): string {
    const tried: string[] = [];
    let code: ErrorCode = 'not-found';
    for (const name of reference.names) {
      const path = isAbsolute(name) || hasProtocol(name) ? name : join(dirname(child.path), name);
      if (isWindowsPath(name)) {
        tried.push(`${quoteName(path)} (a Windows path)`);
        continue;
      }
      try {
        return resolveSibling(child.path, name, this.#folders);
      } catch (error) {
        if (!(error instanceof DiskError)) throw error;
        if (error.code !== 'not-found') code = error.code;
        tried.push(`${quoteName(path)}${REASONS[error.code] ?? ''}`);
      }
    }
    const found = this.#findMoved(child, reference, tried) ?? this.#search(child, reference, tried);
    if (found !== undefined) return found;
    if (tried.length === 0) {
      throw new DiskError('not-found', `${child.path}: it does not say which file its parent is`, {
        hint: OTHER_PARENT,
        errno: 'ENOENT',
      });
    }
    const what = code === 'not-found' ? 'is missing' : 'may not be opened';
    const names = [...new Set(tried)].join(', ');
    throw new DiskError(code, `${child.path}: its parent ${what}; tried ${names}`, {
      hint: 'pass --parent FILE with the path of the parent, or --allow-folder DIR with its folder',
      ...(code === 'not-found' ? { errno: 'ENOENT' } : {}),
    });
  }

  /** A parent that was written down with the path of another host, by its name alone. */
  #findMoved(child: DiskImage, reference: ParentReference, tried: string[]): string | undefined {
    if (reference.isIdentified !== true) return undefined;
    const folders = new Set(this.#folders);
    folders.delete(realFolder(child.path));
    for (const name of reference.names.filter((one) => !one.includes('/'))) {
      for (const folder of folders) {
        const path = join(folder, name);
        try {
          return resolveSibling(child.path, path, this.#folders);
        } catch (error) {
          if (!(error instanceof DiskError)) throw error;
          tried.push(`${quoteName(path)}${REASONS[error.code] ?? ''}`);
        }
      }
    }
    return this.#findInOtherCase(child, reference.names);
  }

  /** Most such images are made on Windows, where upper and lower case name the same file. */
  #findInOtherCase(child: DiskImage, names: readonly string[]): string | undefined {
    const found = new Set<string>();
    for (const name of names.filter((one) => !one.includes('/'))) {
      for (const folder of new Set([realFolder(child.path), ...this.#folders])) {
        for (const path of filesNamed(folder, name)) found.add(path);
      }
    }
    found.delete(realPath(child.path));
    const [path] = found;
    return found.size === 1 ? resolveSibling(child.path, path!, this.#folders) : undefined;
  }

  #search(child: DiskImage, reference: ParentReference, tried: string[]): string | undefined {
    const search = reference.search;
    if (search === undefined) return undefined;
    const folders = new Set([realFolder(child.path), ...this.#folders]);
    const found = new Set<string>();
    for (const folder of folders) {
      tried.push(`every *${search.extension} in ${folder}`);
      for (const path of pathsIn(folder, search.extension, MAX_SEARCHED_FILES)) {
        const header = readHeader(path);
        if (header !== undefined && search.matches(header)) found.add(realPath(path));
      }
    }
    if (found.size > 1) {
      throw new DiskError(
        'exists',
        `${child.path}: several files claim to be its parent: ${[...found].join(', ')}`,
        { hint: 'pass --parent FILE with the path of the right one' },
      );
    }
    const [path] = found;
    return path === undefined ? undefined : resolveSibling(child.path, path, this.#folders);
  }
}

/**
 * Real paths of the files of that name in a folder, whatever the case of its letters; none where it
 * can't be read.
 */
function filesNamed(folder: string, name: string): string[] {
  const wanted = name.toLowerCase();
  try {
    return pathsIn(folder, wanted, MAX_SEARCHED_FILES)
      .filter((path) => basename(path).toLowerCase() === wanted)
      .map(realPath);
  } catch (error) {
    if (error instanceof DiskError) return [];
    throw error;
  }
}

/** `C:/x` or `//server/share/x` (separators already turned). */
function isWindowsPath(name: string): boolean {
  return /^[A-Za-z]:(\/|$)/.test(name) || name.startsWith('//');
}

/** The first bytes of a file; undefined for what cannot be read, which then is not the parent. */
function readHeader(path: string): Buffer | undefined {
  let file: HostFile;
  try {
    file = HostFile.open(path);
  } catch (error) {
    if (error instanceof DiskError) return undefined;
    throw error;
  }
  try {
    const bytes = Buffer.alloc(Math.min(SEARCH_HEADER_SIZE, file.size));
    file.readExact(bytes, 0, bytes.length, 0);
    return bytes;
  } finally {
    file.close();
  }
}
