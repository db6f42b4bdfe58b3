/**
 * What the parameters of every method must look like. Only the daemon's end loads this (and zod
 * with it).
 */
import * as z from 'zod';
import { DiskError } from '../common/errors.js';
import { oneLine } from './messages.js';
import {
  type DiskKind,
  MAX_DIFF_EXTENTS,
  MAX_MAP_EXTENTS,
  type MethodName,
  NAME_PATTERN,
  NAME_RULE,
  type Params,
} from './protocol.js';

/** Longest path Linux takes, bytes (PATH_MAX with its NUL). */
const MAX_PATH_BYTES = 4095;
const MAX_TEXT_CHARACTERS = 4096;
const MAX_LIST = 256;
const MAX_STOP_SECONDS = 86_400;

const SHAREABLE = 'shareable is not supported: a disk belongs to one VM; clone it for others';

const name = z.string().regex(NAME_PATTERN, `must be ${NAME_RULE}`);
const path = z
  .string()
  .startsWith('/', 'must be an absolute path')
  .refine((text) => !text.includes('\0'), 'must not contain a NUL')
  .refine((text) => Buffer.byteLength(text) <= MAX_PATH_BYTES, 'is longer than a path may be');
const text = z
  .string()
  .max(MAX_TEXT_CHARACTERS, `is longer than ${MAX_TEXT_CHARACTERS} characters`);
const flag = z.boolean().exactOptional();
const size = z.int().min(0);

const nic = z.strictObject({
  mode: z.enum(['nat', 'bridged', 'host-only', 'internal', 'none']),
  mac: z.string().max(64).exactOptional(),
  network: z.string().max(256).exactOptional(),
});
const diskKind = z
  .enum(['normal', 'write-through', 'immutable', 'read-only', 'shareable'])
  .refine((kind) => kind !== 'shareable', SHAREABLE)
  .transform((kind) => kind as DiskKind);
const disk = z.strictObject({
  name: name.exactOptional(),
  size,
  kind: diskKind.exactOptional(),
  allocation: z.enum(['dynamic', 'static']).exactOptional(),
});
const hardware = {
  vcpus: z.int().min(1).exactOptional(),
  memory: z.int().min(1).exactOptional(),
  nics: z.array(nic).max(MAX_LIST).exactOptional(),
};
const target = {
  vm: name,
  snapshot: name.exactOptional(),
  disk: name.exactOptional(),
};
const none = z.strictObject({});
const onlyVm = z.strictObject({ vm: name });
const onlySnapshot = z.strictObject({ vm: name, snapshot: name });

const restore = z
  .strictObject({
    vm: name,
    snapshot: name,
    saveCurrent: z.union([z.boolean(), name]).exactOptional(),
    discard: flag,
  })
  .refine(
    (params) =>
      (params.saveCurrent !== undefined && params.saveCurrent !== false) !==
      (params.discard === true),
    { message: 'give exactly one of "saveCurrent" and "discard"' },
  );

const detach = z
  .strictObject({ target: z.strictObject(target).exactOptional(), device: path.exactOptional() })
  .refine((params) => (params.target === undefined) !== (params.device === undefined), {
    message: 'give exactly one of "target" and "device"',
  });

const schemas: { readonly [M in MethodName]: z.ZodType<Params<M>> } = {
  'daemon.status': none,
  'daemon.stop': none,
  'daemon.restart': none,
  create: z.strictObject({ vm: name, disks: z.array(disk).max(MAX_LIST), ...hardware }),
  import: z.strictObject({
    files: z.array(path).min(1).max(MAX_LIST),
    vm: name.exactOptional(),
    format: z.enum(['auto', 'raw', 'vdi', 'vmdk', 'vhd', 'vhdx', 'qcow2']).exactOptional(),
    copy: flag,
    allowFolders: z.array(path).max(MAX_LIST).exactOptional(),
    parent: path.exactOptional(),
    imageSnapshot: z.string().min(1).max(MAX_TEXT_CHARACTERS).exactOptional(),
    ...hardware,
  }),
  list: none,
  info: onlyVm,
  tree: z.strictObject({ vm: name.exactOptional() }),
  rename: z.strictObject({ vm: name, name }),
  delete: onlyVm,
  set: z.strictObject({
    vm: name,
    diskKinds: z
      .array(z.strictObject({ disk: name.exactOptional(), kind: diskKind }))
      .max(MAX_LIST)
      .exactOptional(),
    ...hardware,
  }),
  'disk.add': z.strictObject({ vm: name, disk }),
  'disk.remove': z.strictObject({ vm: name, disk: name }),
  'disk.resize': z.strictObject({ vm: name, disk: name, size, shrink: flag }),
  path: z.strictObject(target),
  map: z.strictObject({
    ...target,
    start: size.exactOptional(),
    limit: z.int().min(1).max(MAX_MAP_EXTENTS).exactOptional(),
  }),
  run: z.strictObject({ vm: name, discardMemory: flag, start: flag }),
  'run.resumed': onlyVm,
  stop: z.strictObject({
    vm: name,
    force: flag,
    timeoutSeconds: z.int().min(0).max(MAX_STOP_SECONDS).exactOptional(),
  }),
  'base.accept': onlyVm,
  attach: z.strictObject({ ...target, readOnly: flag, directIo: flag }),
  detach,
  mount: z.strictObject({
    ...target,
    directory: path,
    partition: z.int().min(1).exactOptional(),
    readOnly: flag,
  }),
  unmount: z.strictObject({ directory: path }),
  'snapshot.take': z.strictObject({
    vm: name,
    snapshot: name,
    message: text.exactOptional(),
    memory: flag,
  }),
  'snapshot.list': onlyVm,
  'snapshot.delete': onlySnapshot,
  'snapshot.rename': z.strictObject({ vm: name, snapshot: name, name }),
  'snapshot.restore': restore,
  'snapshot.diff': z.strictObject({
    vm: name,
    from: name,
    to: name.exactOptional(),
    disk: name.exactOptional(),
    next: z.strictObject({ disk: name, start: size }).exactOptional(),
    limit: z.int().min(1).max(MAX_DIFF_EXTENTS).exactOptional(),
  }),
  clone: z.strictObject({
    ...target,
    name,
    mode: z.enum(['linked', 'full']),
    mac: z.enum(['new', 'keep', 'keep-nat']).exactOptional(),
    serials: z.enum(['new', 'keep']).exactOptional(),
    ...hardware,
  }),
  export: z.strictObject({
    ...target,
    path,
    format: z.enum(['raw', 'vdi', 'vmdk', 'vhd', 'vhdx', 'qcow2']),
    subformat: z.string().min(1).max(64).exactOptional(),
    allocation: z.enum(['dynamic', 'static']).exactOptional(),
    differencing: flag,
    force: flag,
  }),
  'export.ova': z.strictObject({ vm: name, snapshot: name.exactOptional(), path, force: flag }),
  'export.machine': z.strictObject({
    vm: name,
    kind: z.enum(['libvirt-xml', 'vbox', 'vmx', 'vmdk']),
    disk: name.exactOptional(),
    path: path.exactOptional(),
    force: flag,
  }),
  compact: z.strictObject({ vm: name }),
  gc: z.strictObject({ dryRun: flag }),
  stats: z.strictObject({ vm: name.exactOptional() }),
  events: none,
  check: z.strictObject({ vm: name.exactOptional(), deep: flag, repair: flag }),
};

export function isMethodName(method: string): method is MethodName {
  return Object.hasOwn(schemas, method);
}

/**
 * Checks what a client sent as the parameters of a method.
 * @throws DiskError `usage` naming the method and the parameter: unknown, missing, or of the wrong
 * kind.
 */
export function checkParams<M extends MethodName>(method: M, params: unknown): Params<M> {
  const result = schemas[method].safeParse(params);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  const where = issue === undefined || issue.path.length === 0 ? '' : ` "${issue.path.join('.')}":`;
  throw new DiskError('usage', oneLine(`${method}:${where} ${issue?.message ?? 'bad parameters'}`));
}
