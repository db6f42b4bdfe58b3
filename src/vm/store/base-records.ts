/** The base images that a store refers to: what each is, and whether it still is what it was. */
import { randomBytes } from 'node:crypto';
import { basename, join } from 'node:path';
import * as z from 'zod';
import { DiskError, errnoName } from '../../common/errors.js';
import { formatSealed, parseSealed } from '../../common/sealed-json.js';
import type { BaseSpec } from '../../engine/base.js';
import { replaceFile } from '../../storage/atomic-write.js';
import { findFileId } from '../../storage/file-id.js';
import { listFolder, readText } from '../../storage/small-files.js';
import type { VmStore } from './vm-store.js';

/** How a user names an image; its format is settled at import for ever. */
export interface BaseRequest {
  /** Absolute. */
  readonly path: string;
  readonly options: BaseOptions;
}

export interface BaseOptions {
  /** A format, or `auto`. */
  readonly format: string;
  /** Folders besides the image's own in which its parents may lie. */
  readonly allowFolders?: readonly string[];
  /** Taken as the parent that the image names. */
  readonly parent?: string;
  /** What lies below the image, nearest first, as a machine's own registry says. */
  readonly parents?: readonly string[];
  /** The format of each of these. */
  readonly parentFormats?: readonly string[];
  /** The part of the file that the image is. */
  readonly window?: { readonly offset: number; readonly length: number };
  /** The internal snapshot to show instead of the image's present state. */
  readonly snapshot?: string;
}

export interface DescribedBase {
  /** Its id does not count. */
  readonly spec: BaseSpec;
  /** Plain data, opaque here. */
  readonly fingerprint: unknown;
  /** Findings that are no errors, one line each; default none. */
  readonly warnings?: readonly string[];
}

/** What the format side does for bases; injected where rooms are wired together. */
export interface BaseSources {
  /** Opens the image with all its parents, read-only. @throws DiskError as the formats do. */
  describeBase(path: string, options: BaseOptions): DescribedBase | Promise<DescribedBase>;
  /**
   * The line that says which file changed and how; undefined when none did.
   * @throws DiskError when one is gone or can't be read.
   */
  findChange(fingerprint: unknown): string | undefined | Promise<string | undefined>;
  /** Absolute paths of all files of the base. */
  filesOf(fingerprint: unknown): readonly string[];
  /** The exposed disk that the file system of a file is mounted from, if it is one of ours. */
  diskUnder?(path: string): string | undefined;
}

const strings = z.array(z.string()).readonly();
const window = z.strictObject({ offset: z.int().min(0), length: z.int().min(0) });
const recordSchema = z.strictObject({
  version: z.literal(1),
  id: z.string().regex(/^[0-9a-f]{32}$/),
  created: z.iso.datetime(),
  /** The VM it was imported for; its clones may stand on it, too. */
  vmId: z.uuid(),
  path: z.string(),
  options: z.strictObject({
    format: z.string(),
    allowFolders: strings.exactOptional(),
    parent: z.string().exactOptional(),
    parents: strings.exactOptional(),
    parentFormats: strings.exactOptional(),
    window: window.exactOptional(),
    snapshot: z.string().exactOptional(),
  }),
  spec: z.strictObject({
    images: z
      .array(
        z.strictObject({
          path: z.string(),
          format: z.string(),
          window: window.exactOptional(),
          snapshot: z.string().exactOptional(),
        }),
      )
      .readonly(),
    virtualSize: z.int().min(0),
    allocatedSize: z.int().min(0),
    allowFolders: strings.exactOptional(),
  }),
  fingerprint: z.unknown(),
});

export type BaseRecord = Readonly<z.infer<typeof recordSchema>>;

export class BaseRecords {
  readonly #store: VmStore;
  readonly #sources: BaseSources;

  constructor(store: VmStore, sources: BaseSources) {
    this.#store = store;
    this.#sources = sources;
  }

  /**
   * Looks at an image without recording anything.
   * @param stays whether it is to be read where it lies as long as there is the VM.
   * @throws DiskError `not-supported` for one that stays inside a disk of ours: whoever serves the
   * VM would wait for itself.
   */
  async describe({ path, options }: BaseRequest, stays: boolean): Promise<DescribedBase> {
    const described = await this.#sources.describeBase(path, options);
    if (!stays) return described;
    for (const file of this.#sources.filesOf(described.fingerprint)) {
      const disk = this.#sources.diskUnder?.(file);
      if (disk === undefined) continue;
      const what = `${file} lies in a file system of ${disk}, a disk of layerdisk`;
      throw new DiskError('not-supported', what, {
        hint: 'copy what it holds: layerdisk import --copy; or move it elsewhere first',
      });
    }
    return described;
  }

  /** Records a base; durable when it resolves. Garbage until a delta of a VM stands on it. */
  async create(vmId: string, request: BaseRequest, described: DescribedBase): Promise<BaseRecord> {
    const { path, options } = request;
    const format = described.spec.images[0]?.format ?? options.format;
    const record: BaseRecord = {
      version: 1,
      id: randomBytes(16).toString('hex'),
      created: new Date().toISOString(),
      vmId,
      path,
      options: { ...options, format },
      ...observed(described),
    };
    await this.#write(record);
    return record;
  }

  /** @throws DiskError `damaged`, naming the record. */
  read(id: string): BaseRecord {
    const path = this.#path(id);
    try {
      const { json, intact } = parseSealed(readText(path) ?? '');
      if (!intact) throw new Error('it does not match its checksum');
      return recordSchema.parse(json);
    } catch (error) {
      throw new DiskError('damaged', `the base record bases/${id}.json can't be read`, {
        hint: 'restore that file from a backup',
        errno: 'EIO',
        cause: error,
      });
    }
  }

  /**
   * `fileId`s of all files of all bases, as far as they are there.
   * @throws DiskError `damaged` when a record can't be read: its files are unknown then.
   */
  async fileIds(): Promise<Set<string>> {
    const ids = new Set<string>();
    for (const id of this.list()) {
      for (const path of this.#sources.filesOf(this.read(id).fingerprint)) {
        const file = await findFileId(path);
        if (file !== undefined) ids.add(file);
      }
    }
    return ids;
  }

  list(): string[] {
    return (listFolder(this.#store.layout.bases) ?? [])
      .filter((name) => /^[0-9a-f]{32}\.json$/.test(name))
      .map((name) => basename(name, '.json'));
  }

  /**
   * How to open a base, for the engine, after checking that no file of it has changed.
   * @throws DiskError `damaged` when one has, `not-found` when one is gone.
   */
  async resolve(id: string): Promise<BaseSpec> {
    const record = this.read(id);
    const change = await this.#sources.findChange(record.fingerprint);
    if (change === undefined) return { id, ...record.spec };
    const vm = this.#store.catalog.findById(record.vmId)?.name ?? 'VM';
    const unusable = await this.#whyUnusable(record);
    const ways = `, or take it as it is now: layerdisk base accept ${vm}`;
    throw new DiskError('damaged', `the base image ${record.path} is not what it was: ${change}`, {
      hint: `bring the old file back${unusable === undefined ? ways : `: now ${unusable}`}`,
      errno: 'EIO',
    });
  }

  /** What `accept` would say of it as it is now; undefined where it would take it. */
  async #whyUnusable({ path, options }: BaseRecord): Promise<string | undefined> {
    try {
      await this.#sources.describeBase(path, options);
      return undefined;
    } catch (error) {
      if (error instanceof DiskError) return error.message;
      throw error;
    }
  }

  /** @throws DiskError when a file of it is gone or can't be read. */
  async hasChanged(id: string): Promise<boolean> {
    return (await this.#sources.findChange(this.read(id).fingerprint)) !== undefined;
  }

  /**
   * Takes a base as it is now for the right one.
   * @returns its path when it had changed, else undefined.
   */
  async accept(id: string): Promise<string | undefined> {
    const record = this.read(id);
    if ((await this.#sources.findChange(record.fingerprint)) === undefined) return undefined;
    const described = await this.#sources.describeBase(record.path, record.options);
    await this.#write({ ...record, ...observed(described) });
    return record.path;
  }

  /** Moves a record that nothing refers to into the trash. */
  remove(id: string): void {
    try {
      this.#store.trash.put(this.#path(id), 'base.trash');
    } catch (error) {
      if (errnoName(error) !== 'ENOENT') throw error;
    }
  }

  #write(record: BaseRecord): Promise<void> {
    const text = formatSealed(recordSchema.parse(record));
    return replaceFile(this.#store.files, this.#path(record.id), text, 'base');
  }

  #path(id: string): string {
    return join(this.#store.layout.bases, `${id}.json`);
  }
}

/** The part of a record that says what was seen of the files. */
function observed({ spec, fingerprint }: DescribedBase): Pick<BaseRecord, 'spec' | 'fingerprint'> {
  const { id: _, ...rest } = spec;
  return { spec: rest, fingerprint };
}
