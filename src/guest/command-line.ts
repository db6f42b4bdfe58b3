/** From a VM's configuration to QEMU's command line: a pure function. */
import type { Accelerator } from './accelerator.js';
import { bridgeArguments, busOf } from './pci-bridges.js';
import { type RunFolder, runFiles } from './run-folder.js';

/** The program. */
export const QEMU = 'qemu-system-x86_64';

export interface GuestDisk {
  readonly name: string;
  readonly allocation: 'dynamic' | 'static';
  readonly kind: 'normal' | 'write-through' | 'immutable' | 'read-only';
  /** The exposed raw file. */
  readonly path: string;
  readonly serial: string;
}

export interface GuestNic {
  readonly mode: 'nat' | 'bridged' | 'host-only' | 'internal' | 'none';
  readonly mac: string;
  readonly network?: string;
}

/** What of a VM matters to QEMU. */
export interface GuestHardware {
  readonly name: string;
  readonly id: string;
  readonly vcpus: number;
  /** Bytes. */
  readonly memory: number;
  readonly disks: readonly GuestDisk[];
  readonly nics: readonly GuestNic[];
}

/** Where a NIC's cable goes: QEMU's `-netdev` without its id; undefined for no cable. */
export type NicBackend = string | undefined;

/**
 * `terminal`: standard input and output, with QEMU's ctrl-A keys; `stream`: the same without those;
 * `socket`: a unix socket in the run folder.
 */
export type ConsoleKind = 'terminal' | 'stream' | 'socket';

export interface CommandLineRequest {
  readonly hardware: GuestHardware;
  readonly accelerator: Accelerator;
  readonly folder: RunFolder;
  readonly console: ConsoleKind;
  /** One for each NIC, in order. */
  readonly backends: readonly NicBackend[];
  /** Arguments of the user's own: they come last, so that they win. */
  readonly extra: readonly string[];
  /** The versioned machine type of memory that it waits for. */
  readonly machine?: string;
}

/** Everything after the program's name. The guest stands still (`-S`) until it is told to go. */
export function buildCommandLine(request: CommandLineRequest): string[] {
  const { hardware, accelerator, folder, extra, machine } = request;
  const files = runFiles(folder);
  const { disks, nics } = hardware;
  const devices = disks.length + nics.length;
  return [
    '-S',
    '-nodefaults',
    '-no-user-config',
    // Not the name alone: one of the words that QEMU knows (`id`) would be an option without a
    // value.
    ...['-name', `guest=${escapeCommas(hardware.name)}`],
    ...['-uuid', hardware.id],
    ...['-machine', `${machine ?? 'q35'},accel=${accelerator}`],
    ...(machine === undefined ? [] : ['-incoming', 'defer']),
    ...['-cpu', accelerator === 'kvm' ? 'host' : 'max'],
    ...['-smp', String(hardware.vcpus)],
    ...['-m', `size=${hardware.memory}b`],
    ...['-vga', 'std'],
    ...['-display', 'none'],
    ...['-rtc', 'base=utc,driftfix=slew'],
    ...['-object', 'rng-random,id=rng0,filename=/dev/urandom'],
    ...['-device', 'virtio-rng-pci,rng=rng0'],
    ...['-qmp', `unix:${escapeCommas(files.qmp)},server=on,wait=off`],
    ...consoleArguments(request.console, files.console),
    ...agentArguments(files.agent),
    ...bridgeArguments(devices),
    ...disks.flatMap((disk, index) => diskArguments(disk, index, busOf(index, devices))),
    ...nics.flatMap((nic, index) =>
      nicArguments(nic, index, request.backends[index], busOf(disks.length + index, devices)),
    ),
    ...extra,
  ];
}

function consoleArguments(kind: ConsoleKind, socket: string): string[] {
  const serial = ['-serial', 'chardev:console'];
  switch (kind) {
    case 'terminal':
      return [
        ...['-chardev', 'stdio,id=console,mux=on,signal=off', ...serial],
        ...['-mon', 'chardev=console,mode=readline'],
      ];
    case 'stream':
      return ['-chardev', 'stdio,id=console,signal=off', ...serial];
    case 'socket': {
      const path = escapeCommas(socket);
      return ['-chardev', `socket,id=console,path=${path},server=on,wait=off`, ...serial];
    }
  }
}

/** The channel that the QEMU guest agent looks for. */
function agentArguments(socket: string): string[] {
  return [
    ...['-device', 'virtio-serial-pci'],
    ...['-chardev', `socket,id=agent,path=${escapeCommas(socket)},server=on,wait=off`],
    ...['-device', 'virtserialport,chardev=agent,name=org.qemu.guest_agent.0'],
  ];
}

/**
 * `cache.direct` with Linux AIO is what measured best on the exposed files (native-notes/qemu.md).
 * What the guest discards is given back to the host; of a disk that is allocated statically only
 * what it discards itself, not every block of zeroes that it writes.
 */
function diskArguments(disk: GuestDisk, index: number, place: object): string[] {
  const node = `disk${index}`;
  const readOnly = disk.kind === 'read-only' ? { 'read-only': true } : {};
  const blockdev = {
    driver: 'raw',
    'node-name': node,
    ...readOnly,
    discard: 'unmap',
    'detect-zeroes': disk.allocation === 'dynamic' ? 'unmap' : 'off',
    cache: { direct: true },
    file: {
      driver: 'file',
      filename: disk.path,
      ...readOnly,
      aio: 'native',
      locking: 'on',
      discard: 'unmap',
      cache: { direct: true },
    },
  };
  const device = {
    driver: 'virtio-blk-pci',
    id: `${node}-device`,
    ...place,
    drive: node,
    serial: disk.serial,
    bootindex: index + 1,
  };
  return ['-blockdev', JSON.stringify(blockdev), '-device', JSON.stringify(device)];
}

function nicArguments(nic: GuestNic, index: number, backend: NicBackend, place: object): string[] {
  const id = `nic${index}`;
  const device = { driver: 'virtio-net-pci', id: `${id}-device`, ...place, mac: nic.mac };
  // A card whose cable hangs loose: a hub with nobody else on it.
  const netdev = backend ?? `hubport,hubid=${index}`;
  return [
    ...['-netdev', `${netdev},id=${id}`],
    ...['-device', JSON.stringify({ ...device, netdev: id })],
  ];
}

/** In QEMU's options a comma ends a value, two of them are one in it. */
function escapeCommas(value: string): string {
  return value.replaceAll(',', ',,');
}
