/** What the methods of the control protocol change, as events: one function a method. */
import { formatSize } from '../../common/units.js';
import type { MethodName, NewEvent, Params, Result, Target } from '../../control/protocol.js';

/** A disk, or all of a VM. */
export type Place = Target;

/** What is known besides the request and its answer. */
export interface Known {
  /** The disk that the request is about. */
  readonly place?: Place;
}

type Describe<M extends MethodName> = (
  params: Params<M>,
  result: Result<M>,
  known: Known,
) => readonly NewEvent[];

/** Exports are told of elsewhere: they end in other ways, too. */
export const TOLD_CHANGES: { readonly [M in MethodName]?: Describe<M> } = {
  create: ({ vm }) => [{ event: 'vm.created', text: `created ${vm}`, vm }],
  import: (_, { name: vm }) => [{ event: 'vm.imported', text: `imported ${vm}`, vm }],
  clone: ({ vm: source, snapshot, mode }, { vm: { name: vm }, tookSnapshot }) => {
    const from = nameOf({ vm: source, ...optional({ snapshot: snapshot ?? tookSnapshot }) });
    const made = { vm, source: from, mode } as const;
    return [
      ...(tookSnapshot === undefined ? [] : [taken(source, { name: tookSnapshot })]),
      { event: 'vm.cloned', text: `cloned ${from} as ${vm} (${mode})`, ...made },
    ];
  },
  rename: ({ vm, name }) => [{ event: 'vm.renamed', text: `renamed ${vm} to ${name}`, vm, name }],
  delete: ({ vm }) => [{ event: 'vm.deleted', text: `deleted ${vm}`, vm }],
  set: ({ vm, ...change }) => {
    const changed = Object.keys(change);
    if (changed.length === 0) return [];
    return [{ event: 'vm.changed', text: `set ${changed.join(', ')} of ${vm}`, vm, changed }];
  },
  compact: ({ vm }, { storedBefore, storedSize: bytes }) => {
    const text = `compacted ${vm} from ${formatSize(storedBefore)} to ${formatSize(bytes)}`;
    return [{ event: 'vm.compacted', text, vm, bytes }];
  },
  'disk.add': ({ vm }, { disks }) => {
    const disk = disks.at(-1)?.name ?? '';
    return [{ event: 'disk.added', text: `added ${nameOf({ vm, disk })}`, vm, disk }];
  },
  'disk.remove': ({ vm, disk }) => [
    { event: 'disk.removed', text: `removed ${nameOf({ vm, disk })}`, vm, disk },
  ],
  'disk.resize': ({ vm, disk, size: bytes }) => {
    const text = `resized ${nameOf({ vm, disk })} to ${formatSize(bytes)}`;
    return [{ event: 'disk.resized', text, vm, disk, bytes }];
  },
  'base.accept': ({ vm }, { accepted: files }) =>
    files.length === 0
      ? []
      : [{ event: 'base.accepted', text: `accepted ${files.join(', ')} of ${vm}`, vm, files }],
  'snapshot.take': ({ vm }, snapshot) => [taken(vm, snapshot)],
  'snapshot.delete': ({ vm, snapshot }) => [
    { event: 'snapshot.deleted', text: `deleted ${vm}@${snapshot}`, vm, snapshot },
  ],
  'snapshot.rename': ({ vm, snapshot, name }) => {
    const text = `renamed ${vm}@${snapshot} to ${vm}@${name}`;
    return [{ event: 'snapshot.renamed', text, vm, snapshot, name }];
  },
  'snapshot.restore': ({ vm, snapshot }, { saved }) => [
    ...(saved === undefined ? [] : [taken(vm, saved)]),
    { event: 'snapshot.restored', text: `restored ${vm} to ${snapshot}`, vm, snapshot },
  ],
  attach: (params, { device, readOnly, already }, { place = params }) => {
    const text = `attached ${nameOf(place)} as ${device}${readOnly ? ', read-only' : ''}`;
    const event = { event: 'disk.attached', text, ...partsOf(place), device, readOnly } as const;
    return already ? [] : [event];
  },
  detach: (_, { devices }, { place }) =>
    devices.map((device) => ({
      event: 'disk.detached',
      text: `detached ${place === undefined ? device : `${nameOf(place)} from ${device}`}`,
      ...(place === undefined ? {} : partsOf(place)),
      device,
    })),
  mount: (params, { directory, device }, { place = params }) => [
    {
      event: 'disk.mounted',
      text: `mounted ${nameOf(place)} at ${directory}`,
      ...{ ...partsOf(place), directory, device },
    },
  ],
  unmount: ({ directory }, _, { place }) => [
    {
      event: 'disk.unmounted',
      text: `unmounted ${place === undefined ? '' : `${nameOf(place)} from `}${directory}`,
      ...(place === undefined ? {} : partsOf(place)),
      directory,
    },
  ],
  // Guests are looked for after each request that is told of.
  'run.resumed': () => [],
  stop: () => [],
  gc: (_, { dryRun, files: { length: removed }, bytes }) => {
    const text = `gc removed ${removed} ${removed === 1 ? 'file' : 'files'}, ${formatSize(bytes)}`;
    if (dryRun || (removed === 0 && bytes === 0)) return [];
    return [{ event: 'garbage.removed', text, removed, bytes }];
  },
  check: ({ vm }, { damaged }) => {
    const text = `a check of ${vm ?? 'the store'} found damage (${damaged})`;
    return damaged === 0 ? [] : [{ event: 'damage.found', text, ...optional({ vm }), damaged }];
  },
};

interface Taken {
  readonly name: string;
  readonly consistency?: string;
  readonly memoryState?: number;
}

function taken(vm: string, { name, consistency, memoryState }: Taken): NewEvent {
  const memory = memoryState === undefined ? '' : `, ${formatSize(memoryState)} of memory`;
  const how = consistency === undefined ? '' : ` (${consistency}${memory})`;
  return {
    event: 'snapshot.taken',
    text: `took ${vm}@${name}${how}`,
    ...{ vm, snapshot: name, ...optional({ consistency, memoryState }) },
  };
}

/** `web`, `web@clean`, `web@clean/disk0`. */
export function nameOf({ vm, snapshot, disk }: Place): string {
  const at = snapshot === undefined ? '' : `@${snapshot}`;
  return `${vm}${at}${disk === undefined ? '' : `/${disk}`}`;
}

/** `snapshot` may be there without a value, as where a target was resolved. */
type LoosePlace = { readonly [K in keyof Place]: Place[K] | undefined } & { readonly vm: string };

export function partsOf({ vm, snapshot, disk }: LoosePlace): Place {
  return { vm, ...optional({ snapshot, disk }) };
}

/** Without the keys that have no value. */
export function optional<T extends object>(keys: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  const there = Object.entries(keys).filter(([, value]) => value !== undefined);
  return Object.fromEntries(there) as { [K in keyof T]?: Exclude<T[K], undefined> };
}
