/**
 * A daemon's handlers that do nothing but remember what they were asked, for tests of both ends.
 */
import type {
  CallContext,
  DaemonStatus,
  Handlers,
  MethodName,
  Params,
  SnapshotView,
  SpaceView,
  VmSummary,
  VmView,
} from '../../src/control/protocol.js';

export interface RecordedCall {
  readonly method: MethodName;
  readonly params: unknown;
}

type Overrides = {
  readonly [M in MethodName]?: (params: Params<M>, context: CallContext) => Promise<unknown>;
};

export const SPACE: SpaceView = {
  state: 'plenty',
  totalBytes: 2 ** 34 + 2 ** 30,
  freeBytes: 2 ** 34,
  reserveBytes: 2 ** 26,
  warnBelowBytes: 2 ** 31,
  refusedWrites: 0,
  onFull: 'report',
  waitingWrites: 0,
  waitingBytes: 0,
};

export const STATUS: DaemonStatus = {
  version: '0.1.0',
  pid: 4_000_000,
  store: '/store',
  mountpoint: '/mnt/disks',
  transport: 'kernel',
  threads: 2,
  startedAt: '2026-01-02T03:04:05.000Z',
  vms: 1,
  openDisks: 0,
  allowOther: false,
  space: SPACE,
};

export const SUMMARY: VmSummary = {
  name: 'web',
  vcpus: 2,
  memory: 2 ** 31,
  nics: 1,
  disks: 1,
  size: 10 * 2 ** 30,
  snapshots: 2,
  created: '2026-01-02T03:04:05.678Z',
};

function snapshotView(name: string, extra: Partial<SnapshotView> = {}): SnapshotView {
  return {
    name,
    created: '2026-01-02T03:04:05.678Z',
    current: false,
    vcpus: 2,
    memory: 2 ** 31,
    consistency: 'consistent',
    disks: [
      { name: 'disk0', size: 10 * 2 ** 30, path: `/mnt/disks/web/snapshots/${name}/disk0.raw` },
    ],
    ...extra,
  };
}

function vmView(name: string): VmView {
  return {
    name,
    id: '00000000-0000-4000-8000-000000000000',
    created: '2026-01-02T03:04:05.678Z',
    vcpus: 2,
    memory: 2 ** 31,
    nics: [{ mode: 'nat', mac: '52:54:00:00:00:01' }],
    disks: [
      {
        name: 'disk0',
        size: 10 * 2 ** 30,
        allocation: 'dynamic',
        kind: 'normal',
        headBytes: 4096,
        chainBytes: 8192,
        depth: 3,
        base: { path: '/images/base.qcow2', format: 'qcow2', virtualSize: 10 * 2 ** 30 },
        serial: '00000000000-10',
        path: `/mnt/disks/${name}/disk0.raw`,
        open: false,
      },
    ],
    snapshots: [
      snapshotView('clean', { message: 'first \u001b[31mred' }),
      snapshotView('later', { parent: 'clean', current: true }),
    ],
    origin: 'golden@v1',
  };
}

/** What `map` answers, a block a page: they go on in each other. */
const MAPPED = {
  length: 4096,
  ...{ depth: 1, present: true, zero: false, data: true },
  layer: '0123',
  file: '/store/deltas/0123.data',
};

/** What `snapshot.diff` answers in two parts, which go on in each other. */
const DIFFERENT = { disk: 'disk0', fromSize: 2 ** 20, toSize: 2 ** 21 };
const DIFFERENCE_BEGINS = {
  disks: [
    { ...DIFFERENT, changedBytes: 4096, extents: [{ start: 4096, length: 4096, zero: false }] },
  ],
  next: { disk: 'disk0', start: 8192 },
};
const DIFFERENCE_ENDS = {
  disks: [
    {
      ...DIFFERENT,
      changedBytes: 4096 + 2 ** 20,
      extents: [
        { start: 8192, length: 4096, zero: false },
        { start: 2 ** 20, length: 2 ** 20, zero: true },
      ],
    },
    { disk: 'same', fromSize: 4096, toSize: 4096, changedBytes: 0, extents: [] },
    { disk: 'gone', fromSize: 4096, changedBytes: 4096, extents: [] },
    { disk: 'scratch', toSize: 8192, changedBytes: 8192, extents: [] },
  ],
};

const IO = { reads: 1, readBytes: 4096, writes: 2, writtenBytes: 8192, flushes: 3, discards: 4 };

/** Plausible answers to everything. */
const ANSWERS: { readonly [M in MethodName]: (params: Params<M>) => unknown } = {
  'daemon.status': () => STATUS,
  'daemon.stop': () => ({}),
  'daemon.restart': () => ({}),
  create: ({ vm }) => vmView(vm),
  import: ({ vm = 'machine' }) => vmView(vm),
  list: () => [SUMMARY, { ...SUMMARY, name: 'db' }],
  info: ({ vm }) => vmView(vm),
  'disk.add': ({ vm }) => vmView(vm),
  'disk.remove': ({ vm }) => vmView(vm),
  'disk.resize': ({ vm }) => vmView(vm),
  tree: () => [
    {
      kind: 'vm',
      name: 'web',
      children: [
        {
          kind: 'snapshot',
          name: 'clean',
          message: 'first',
          clones: ['test'],
          children: [
            { kind: 'snapshot', name: 'later', children: [] },
            { kind: 'current', name: 'current', children: [] },
          ],
        },
      ],
    },
  ],
  rename: ({ name }) => vmView(name),
  delete: () => ({ kept: 1 }),
  set: ({ vm }) => vmView(vm),
  path: ({ vm, disk }) => ({ path: `/mnt/disks/${vm}/${disk ?? 'disk0'}.raw` }),
  run: ({ vm }) => ({ vm: vmView(vm), folder: '/store/vms-run/1', storeId: 'store' }),
  'run.resumed': () => ({}),
  stop: () => ({}),
  'base.accept': () => ({ accepted: ['/images/base.qcow2'] }),
  attach: ({ vm, readOnly }) => ({
    device: '/dev/loop7',
    path: `/mnt/disks/${vm}/disk0.raw`,
    readOnly: readOnly ?? false,
  }),
  detach: () => ({ devices: ['/dev/loop7'] }),
  mount: ({ directory }) => ({
    directory,
    device: '/dev/loop7',
    source: '/dev/loop7p1',
    fileSystem: 'ext4',
  }),
  unmount: () => ({}),
  'snapshot.take': ({ snapshot }) => snapshotView(snapshot, { current: true }),
  'snapshot.list': ({ vm }) => vmView(vm).snapshots,
  'snapshot.delete': () => ({}),
  'snapshot.rename': ({ name }) => snapshotView(name),
  'snapshot.restore': ({ snapshot, saveCurrent }) => ({
    restored: snapshotView(snapshot),
    ...(saveCurrent === undefined ? {} : { saved: snapshotView('saved') }),
  }),
  'snapshot.diff': ({ vm, from, to, next }) => ({
    ...{ vm, from, ...(to === undefined ? {} : { to }) },
    ...(next === undefined ? DIFFERENCE_BEGINS : DIFFERENCE_ENDS),
  }),
  clone: ({ name }) => ({ vm: vmView(name), tookSnapshot: 'for-clone' }),
  export: ({ path, format }) => ({
    path,
    format,
    subformat: 'plain',
    storedSize: 2 ** 20,
    files: [path],
  }),
  check: () => ({
    ...{ vms: 1, deltas: 2, bytesRead: 8192, notSummed: 0, findings: [], more: 0 },
    ...{ damaged: 0, leaks: 0, repaired: 0 },
  }),
  'export.ova': ({ path }) => ({ path, storedSize: 2 ** 20 }),
  'export.machine': ({ path }) =>
    path === undefined
      ? { files: [], text: '<domain/>\n', notes: ['be careful'] }
      : { files: [path], notes: ['be careful'] },
  compact: ({ vm }) => ({ vm, storedBefore: 8192, storedSize: 4096, bytesRead: 8192, left: [] }),
  gc: ({ dryRun }) => ({ dryRun: dryRun ?? false, files: ['deltas/1'], bytes: 4096 }),
  map: ({ start = 0 }) => ({
    extents: [{ ...MAPPED, start, offset: 8192 + start }],
    ...(start < 8192 ? { next: start + 4096 } : {}),
  }),
  events: () => ({ end: 'stopped' }),
  stats: () => ({
    uptimeSeconds: 90,
    rssBytes: 2 ** 26,
    indexBytes: 2 ** 20,
    openDisks: 1,
    storeBytes: 2 ** 30,
    storeFreeBytes: 2 ** 34,
    space: SPACE,
    io: IO,
    vms: [{ name: 'web', disk: 'disk0', io: IO }],
  }),
};

/** Handlers that give these answers, or those of `overrides`; `calls` fills as they come. */
export function recordingHandlers(overrides: Overrides = {}): {
  handlers: Handlers;
  calls: RecordedCall[];
} {
  const calls: RecordedCall[] = [];
  const record = (method: MethodName) => async (params: never, context: CallContext) => {
    calls.push({ method, params });
    const own = overrides[method] as
      | ((params: never, context: CallContext) => Promise<unknown>)
      | undefined;
    if (own !== undefined) return own(params, context);
    return (ANSWERS[method] as (params: never) => unknown)(params);
  };
  const methods = Object.keys(ANSWERS) as MethodName[];
  const handlers = Object.fromEntries(methods.map((method) => [method, record(method)]));
  return { handlers: handlers as unknown as Handlers, calls };
}
