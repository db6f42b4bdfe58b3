/** The base images that a store refers to: what each is, and whether it still is what it was. */
import { randomBytes } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { z } from 'zod';
import { DiskError, errnoName } from '../common/errors.js';
import type { BaseSpec } from '../engine/base.js';
import { replaceFile } from '../storage/atomic-write.js';
import type { VmStore } from './vm-store.js';

/** How an image is found: as the user said it, its format settled at import for ever. */
export interface BaseRequest {
  /** Absolute. */
  readonly path: string;
  /** A format, or `auto`. */
  readonly format: string;
  /** Folders besides the image's own in which its parents may lie. */
  readonly allowFolders?: readonly string[];
  /** Taken as the parent that the image names. */
  readonly parent?: string;
}

/** A file of a base and how it looked when it was accepted; the fingerprint is opaque JSON here. */
export interface FingerprintedFile {
  readonly path: string;
  readonly fingerprint: unknown;
}

export interface DescribedBase {
  readonly images: BaseSpec['images'];
  readonly virtualSize: number;
  readonly allocatedSize: number;
  readonly files: readonly FingerprintedFile[];
}

/** What the format side does for bases. */
export interface BaseSources {
  /** Opens the image with all its parents, read-only. @throws DiskError as the formats do. */
  describeBase(request: BaseRequest): Promise<DescribedBase>;
  /** What is different now, in words; undefined when nothing is. @throws DiskError `not-found` when it is gone. */
  verifyBase(file: FingerprintedFile): Promise<string | undefined>;
}

const file = z.strictObject({ path: z.string(), fingerprint: z.unknown() });
const recordSchema = z.strictObject({
  version: z.literal(1),
  id: z.string().regex(/^[0-9a-f]{32}$/),
  created: z.iso.datetime(),
  /** The VM it was imported for; its clones may stand on it, too. */
  vmId: z.uuid(),
  request: z.strictObject({
    path: z.string(),
    format: z.string(),
    allowFolders: z.array(z.string()).readonly().exactOptional(),
    parent: z.string().exactOptional(),
  }),
  images: z.array(z.strictObject({ path: z.string(), format: z.string() })).readonly(),
  virtualSize: z.int().min(0),
  allocatedSize: z.int().min(0),
  files: z.array(file).readonly(),
});

export type BaseRecord = Readonly<z.infer<typeof recordSchema>>;

export class BaseRecords {
  readonly #store: VmStore;
  readonly #sources: BaseSources;

  constructor(store: VmStore, sources: BaseSources) {
    this.#store = store;
    this.#sources = sources;
  }

  /** Looks at an image without recording anything. */
  describe(request: BaseRequest): Promise<DescribedBase> {
    return this.#sources.describeBase(request);
  }

  /** Records a base; durable when it resolves. Garbage until a delta of a VM stands on it. */
  async create(vmId: string, request: BaseRequest, described: DescribedBase): Promise<BaseRecord> {
    const format = described.images[0]?.format ?? request.format;
    const record = recordSchema.parse({
      version: 1,
      id: randomBytes(16).toString('hex'),
      created: new Date().toISOString(),
      vmId,
      request: { ...request, format },
      ...pick(described),
    });
    await this.#write(record);
    return record;
  }

  /** @throws DiskError `damaged`, naming the record. */
  read(id: string): BaseRecord {
    const path = this.#path(id);
    try {
      return recordSchema.parse(JSON.parse(readFileSync(path, 'utf8')));
    } catch (error) {
      throw new DiskError('damaged', `the base record bases/${id}.json can't be read`, {
        hint: 'restore that file from a backup',
        errno: 'EIO',
        cause: error,
      });
    }
  }

  list(): string[] {
    return readdirSync(this.#store.layout.bases)
      .filter((name) => /^[0-9a-f]{32}\.json$/.test(name))
      .map((name) => basename(name, '.json'));
  }

  /**
   * How to open a base, for the engine, after checking that no file of it has changed.
   * @throws DiskError `damaged` when one has, `not-found` when one is gone.
   */
  async resolve(id: string): Promise<BaseSpec> {
    const record = this.read(id);
    for (const each of record.files) {
      const change = await this.#sources.verifyBase(each);
      if (change !== undefined) throw this.#changed(record, each.path, change);
    }
    const { images, virtualSize, allocatedSize } = record;
    const { allowFolders } = record.request;
    const folders = allowFolders === undefined ? {} : { allowFolders };
    return { id, images, virtualSize, allocatedSize, ...folders };
  }

  /**
   * Takes a base as it is now for the right one.
   * @returns paths of the files that had changed.
   */
  async accept(id: string): Promise<string[]> {
    const record = this.read(id);
    const changed: string[] = [];
    for (const each of record.files) {
      if ((await this.#sources.verifyBase(each)) !== undefined) changed.push(each.path);
    }
    if (changed.length === 0) return [];
    const described = await this.#sources.describeBase(record.request);
    await this.#write({ ...record, ...pick(described) });
    return changed;
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
    const text = `${JSON.stringify(record, null, 2)}\n`;
    return replaceFile(this.#store.files, this.#path(record.id), text, 'base');
  }

  #path(id: string): string {
    return join(this.#store.layout.bases, `${id}.json`);
  }

  #changed(record: BaseRecord, path: string, change: string): DiskError {
    const vm = this.#store.catalog.findById(record.vmId)?.name ?? 'VM';
    return new DiskError('damaged', `the base image ${path} has changed: ${change}`, {
      hint: `bring the old file back, or take it as it is now: layerdisk base accept ${vm}`,
      errno: 'EIO',
    });
  }
}

function pick({ images, virtualSize, allocatedSize, files }: DescribedBase) {
  return { images, virtualSize, allocatedSize, files };
}
