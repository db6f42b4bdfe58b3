/** How VMs, disks and snapshots look to people. */
import { formatSize } from '../common/units.js';
import type {
  DiskView,
  GuestView,
  Nic,
  SnapshotView,
  SpaceView,
  VmSummary,
  VmView,
} from '../control/protocol.js';
import { type Output, plain } from './output.js';
import { type Column, fieldLines, tableLines } from './table.js';

/** `10 GiB (10737418240 bytes)`. */
export function exactSize(bytes: number): string {
  return bytes < 1024 ? `${bytes} bytes` : `${formatSize(bytes)} (${bytes} bytes)`;
}

/** `2026-11-23 15:31:28`, in UTC, from ISO 8601; what is no time is shown as it is. */
export function shortTime(time: string): string {
  const match = /^(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)/.exec(time);
  return match === null ? time : `${match[1]} ${match[2]}`;
}

/** `1 snapshot`, `2 snapshots`. */
export function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`;
}

const VM_COLUMNS: readonly Column<VmSummary>[] = [
  { title: 'NAME', cell: (vm) => vm.name },
  { title: 'DISKS', align: 'right', cell: (vm) => String(vm.disks) },
  { title: 'SIZE', align: 'right', cell: (vm) => formatSize(vm.size) },
  { title: 'SNAPSHOTS', align: 'right', cell: (vm) => String(vm.snapshots) },
  { title: 'VCPUS', align: 'right', cell: (vm) => String(vm.vcpus) },
  { title: 'MEMORY', align: 'right', cell: (vm) => formatSize(vm.memory) },
  { title: 'NICS', align: 'right', cell: (vm) => String(vm.nics) },
  { title: 'GUEST', cell: (vm) => (vm.guest === undefined ? '-' : `pid ${vm.guest.pid}`) },
  { title: 'CREATED (UTC)', cell: (vm) => shortTime(vm.created) },
];

export function vmTable(output: Output, vms: readonly VmSummary[]): string[] {
  const whole = vms.filter((vm) => vm.problem === undefined);
  const damaged = vms.filter((vm) => vm.problem !== undefined);
  return [
    ...(whole.length === 0 ? [] : tableLines(output, VM_COLUMNS, whole)),
    ...damaged.map((vm) => `${vm.name}: cannot be used: ${plain(vm.problem ?? '')}`),
  ];
}

const DISK_COLUMNS: readonly Column<DiskView>[] = [
  { title: 'DISK', cell: (disk) => disk.name },
  { title: 'SIZE', align: 'right', cell: (disk) => formatSize(disk.size) },
  { title: 'BYTES', align: 'right', cell: (disk) => String(disk.size) },
  { title: 'ALLOCATION', cell: (disk) => disk.allocation },
  { title: 'KIND', cell: (disk) => disk.kind },
  { title: 'OWN', align: 'right', cell: (disk) => formatSize(disk.headBytes) },
  { title: 'CHAIN', align: 'right', cell: (disk) => formatSize(disk.chainBytes) },
  { title: 'DEPTH', align: 'right', cell: (disk) => String(disk.depth) },
  { title: 'OPEN', cell: (disk) => (disk.open ? 'yes' : 'no') },
  { title: 'SERIAL', cell: (disk) => disk.serial },
  { title: 'PATH', cell: (disk) => disk.path },
];

const NIC_COLUMNS: readonly Column<Nic>[] = [
  { title: 'NIC', cell: (nic) => nic.mode },
  { title: 'MAC', cell: (nic) => nic.mac },
  { title: 'NETWORK', cell: (nic) => nic.network ?? '-' },
];

/** Columns of snapshots; `*` marks the one that the current state stands on. */
const SNAPSHOT_COLUMNS: readonly Column<SnapshotView>[] = [
  { title: ' ', cell: (snapshot) => (snapshot.current ? '*' : ' ') },
  { title: 'NAME', cell: (snapshot) => snapshot.name },
  { title: 'TAKEN (UTC)', cell: (snapshot) => shortTime(snapshot.created) },
  { title: 'PARENT', cell: (snapshot) => snapshot.parent ?? '-' },
  { title: 'DISKS', align: 'right', cell: (snapshot) => String(snapshot.disks.length) },
  {
    title: 'MEMORY',
    align: 'right',
    cell: ({ memoryState }) => (memoryState === undefined ? '-' : formatSize(memoryState)),
  },
  { title: 'STATE', cell: (snapshot) => snapshot.consistency },
  { title: 'MESSAGE', cell: (snapshot) => snapshot.message ?? '' },
];

export function snapshotTable(output: Output, snapshots: readonly SnapshotView[]): string[] {
  return tableLines(output, SNAPSHOT_COLUMNS, snapshots);
}

/** Everything about one VM. */
export function vmLines(output: Output, vm: VmView): string[] {
  const bases = vm.disks.flatMap((disk) => {
    if (disk.base === undefined) return [];
    const { format, path, snapshot, virtualSize } = disk.base;
    const state = snapshot === undefined ? '' : `, its snapshot ${JSON.stringify(snapshot)}`;
    const what = `${format} ${path}${state}, ${exactSize(virtualSize)}`;
    return [[`base of ${disk.name}`, what] as const];
  });
  const lines = fieldLines(output, [
    ['name', vm.name],
    ['id', vm.id],
    ['created', vm.created],
    ['vCPUs', String(vm.vcpus)],
    ['memory', exactSize(vm.memory)],
    ['cloned from', vm.origin],
    ['guest', describeGuest(vm.guest)],
    ['console', vm.guest?.console],
    ['next run', vm.resume && `goes on with the memory of ${vm.resume.from}`],
    ['memory to read', vm.resume && exactSize(vm.resume.size)],
    ...sharedMacLines(vm),
    ['snapshots', String(vm.snapshots.length)],
    ...bases,
  ]);
  lines.push('', ...tableLines(output, DISK_COLUMNS, vm.disks));
  if (vm.nics.length > 0) lines.push('', ...tableLines(output, NIC_COLUMNS, vm.nics));
  if (vm.snapshots.length > 0) lines.push('', ...snapshotTable(output, vm.snapshots));
  return lines;
}

function describeGuest(guest: GuestView | undefined): string | undefined {
  if (guest === undefined) return undefined;
  const { pid, since, accelerator } = guest;
  return `pid ${pid}, since ${shortTime(since)}, ${accelerator.toUpperCase()}`;
}

function sharedMacLines(vm: VmView): (readonly [string, string])[] {
  return (vm.sharedMacs ?? []).map(
    ({ mac, vms }) => ['shared MAC', `${mac}, with ${vms.join(', ')}`] as const,
  );
}

/** After a command made or changed a VM: one line, then where its disks are. */
export function vmSummaryLines(verb: string, vm: VmView): string[] {
  const hardware = `${counted(vm.vcpus, 'vCPU')}, ${formatSize(vm.memory)} memory`;
  const parts = [counted(vm.disks.length, 'disk'), counted(vm.nics.length, 'NIC'), hardware];
  const disks = vm.disks.map((disk) => `  ${disk.name}: ${formatSize(disk.size)}  ${disk.path}`);
  return [`${verb} ${vm.name}: ${parts.join(', ')}`, ...disks];
}

/** The room in the store's file system, as fields of a list. */
export function spaceFields(space: SpaceView | undefined): [name: string, value: string][] {
  if (space === undefined) return [];
  const { state, totalBytes, freeBytes, reserveBytes, refusedWrites, waitingWrites } = space;
  const fields: [name: string, value: string][] = [];
  const reserve = reserveBytes === 0 ? 'no reserve' : `${formatSize(reserveBytes)} in reserve`;
  const room = `${formatSize(freeBytes)} of ${formatSize(totalBytes)} free, ${reserve}`;
  const marked = state === 'plenty' ? room : `${room}: ${state.toUpperCase()}`;
  fields.push(['space', marked]);
  if (space.onFull === 'pause') fields.push(['when full', 'writes wait for room']);
  if (waitingWrites > 0) {
    const size = formatSize(space.waitingBytes);
    fields.push(['waiting', `${counted(waitingWrites, 'write')}, ${size}: make room`]);
  }
  if (refusedWrites > 0) fields.push(['no room for', counted(refusedWrites, 'write')]);
  return fields;
}

/** What is to be said of a store that runs full; undefined while there is room. */
export function spaceWarning(space: SpaceView | undefined): string | undefined {
  if (space === undefined || space.state === 'plenty') return undefined;
  const left = `${formatSize(space.freeBytes)} of ${formatSize(space.totalBytes)} free`;
  if (space.state === 'low') return `the store's file system runs full: ${left}`;
  const what =
    space.waitingWrites > 0
      ? `${counted(space.waitingWrites, 'write')} wait for room`
      : `writes that need new space ${space.onFull === 'pause' ? 'wait' : 'are refused'}`;
  return `the store's file system is full (${left}): ${what}`;
}
