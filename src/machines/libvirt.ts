/** libvirt's domain XML, as `virsh dumpxml` prints it. */
import { GiB, KiB, MiB, TiB } from '../common/units.js';
import { unsupported } from '../formats/image-error.js';
import { quoteName } from '../formats/sibling-path.js';
import {
  type DiskDraft,
  EFI_OMITTED,
  type FileDraft,
  type Machine,
  type MachineDiskKind,
  type MachineNic,
  type NicMode,
} from './machine.js';
import { byteCount, entryOf, macAddress, wholeNumber } from './values.js';
import type { XmlElement } from './xml.js';

/** libvirt's units, from its documentation: `k` and `KiB` are 1024 bytes, `KB` is 1000. */
const UNITS: Readonly<Record<string, number>> = {
  b: 1,
  bytes: 1,
  kb: 1000,
  k: KiB,
  kib: KiB,
  mb: 1000 ** 2,
  m: MiB,
  mib: MiB,
  gb: 1000 ** 3,
  g: GiB,
  gib: GiB,
  tb: 1000 ** 4,
  t: TiB,
  tib: TiB,
};

/** The driver's type is what QEMU is told; libvirt takes a disk without one for raw. */
const FORMATS = ['raw', 'qcow2', 'vdi', 'vmdk', 'vhdx'];

/** In place of an attribute: the address and the port by which guests find each other. */
const ADDRESS = 'address:port';

/** Mode, and which attribute of `source` names the network. */
const INTERFACES: Readonly<Record<string, readonly [mode: NicMode, source: string]>> = {
  user: ['nat', ''],
  network: ['nat', 'network'],
  bridge: ['bridged', 'bridge'],
  direct: ['bridged', 'dev'],
  internal: ['internal', 'name'],
  mcast: ['internal', ADDRESS],
  server: ['internal', ADDRESS],
  client: ['internal', ADDRESS],
};

/** @throws DiskError `damaged`, `not-supported`, naming `path`. */
export function readLibvirt(path: string, root: XmlElement): Machine<DiskDraft> {
  const warnings: string[] = [];
  const devices = root.child('devices');
  const vcpu = root.child('vcpu')?.text;
  const memory = root.child('memory');
  const unit = memory?.attribute('unit') ?? 'KiB';
  const unitBytes = entryOf(UNITS, unit.toLowerCase());
  if (unitBytes === undefined) throw unsupported(path, `the unit ${quoteName(unit)} of its memory`);
  const disks = (devices?.all('disk') ?? [])
    .map((disk) => readDisk(path, disk, warnings))
    .filter((disk) => disk !== undefined);
  noteOmissions(devices, warnings);
  if (startsByEfi(root)) warnings.push(EFI_OMITTED);
  return {
    name: root.child('name')?.text ?? '',
    hardware: {
      vcpus: wholeNumber(path, 'its number of CPUs', vcpu ?? '1'),
      ...(memory === undefined
        ? {}
        : { memory: byteCount(path, 'its memory', memory.text, unitBytes) }),
      nics: (devices?.all('interface') ?? []).map((nic) => readNic(nic, warnings)),
    },
    disks,
    snapshots: [],
    current: null,
    warnings,
  };
}

function readDisk(path: string, disk: XmlElement, warnings: string[]): DiskDraft | undefined {
  const slot = disk.child('target')?.attribute('dev') ?? 'disk';
  const device = disk.attribute('device') ?? 'disk';
  if (device === 'cdrom' || device === 'floppy') {
    warnings.push(`${device} drive ${quoteName(slot)} is not taken over`);
    return undefined;
  }
  const type = disk.attribute('type') ?? 'file';
  const source = disk.child('source');
  const file = source?.attribute('file');
  const what = `disk ${quoteName(slot)}`;
  if (device !== 'disk' || type !== 'file' || file === undefined) {
    throw unsupported(
      path,
      `${what} is of type ${quoteName(type)} and device ${quoteName(device)}, not a file`,
      'copy its data into an image file first: qemu-img convert -O qcow2 SOURCE NEW.qcow2',
    );
  }
  if ((disk.child('encryption') ?? source?.child('encryption')) !== undefined) {
    throw unsupported(path, `${what} is encrypted`);
  }
  if (source?.child('slices') !== undefined) {
    throw unsupported(
      path,
      `${what} is a part of its file (slices)`,
      'copy that part into a file of its own first: dd',
    );
  }
  const format = formatOf(path, what, disk.child('driver')?.attribute('type'));
  if (disk.child('shareable') !== undefined) {
    warnings.push(`${what}: shareable is not supported: this VM has the disk alone`);
  }
  const kind = kindOf(disk);
  // Paths of libvirt are absolute ones of this host: no other file is meant.
  const files = [{ names: [file], format }, ...backingFiles(path, what, disk)];
  return { slot, files, ...(kind === undefined ? {} : { kind }) };
}

function formatOf(path: string, what: string, driver = 'raw'): string {
  const format = driver === 'vpc' ? 'vhd' : driver;
  if (format === 'vhd' || FORMATS.includes(format)) return format;
  throw unsupported(path, `${what} has the unknown format ${quoteName(driver)}`);
}

/**
 * What libvirt tells QEMU that lies below the image, nearest first, each inside the one above it,
 * as far as these are files. Where it does not say so, the images themselves do.
 */
function backingFiles(path: string, what: string, disk: XmlElement): FileDraft[] {
  const files: FileDraft[] = [];
  for (let next = disk.child('backingStore'); next !== undefined; ) {
    const file = next.child('source')?.attribute('file');
    if ((next.attribute('type') ?? 'file') !== 'file' || file === undefined) break;
    const format = formatOf(path, what, next.child('format')?.attribute('type'));
    files.push({ names: [file], format });
    next = next.child('backingStore');
  }
  return files;
}

/** What is written to a transient disk is thrown away when the guest is off. */
function kindOf(disk: XmlElement): MachineDiskKind | undefined {
  if (disk.child('transient') !== undefined) return 'immutable';
  return disk.child('readonly') === undefined ? undefined : 'read-only';
}

function readNic(nic: XmlElement, warnings: string[]): MachineNic {
  const type = nic.attribute('type') ?? '';
  const found = entryOf(INTERFACES, type);
  const mac = macAddress(nic.child('mac')?.attribute('address'));
  if (found === undefined) {
    const address = addressOf(nic.child('source'));
    const where = address === undefined ? '' : ` (${quoteName(address)})`;
    warnings.push(
      `interface of type ${quoteName(type)}${where} is not taken over; it has mode none`,
    );
  }
  const [connected, attribute] = found ?? ['none', ''];
  const mode = nic.child('link')?.attribute('state') === 'down' ? 'none' : connected;
  const source = nic.child('source');
  const network = attribute === ADDRESS ? addressOf(source) : source?.attribute(attribute);
  if (attribute === ADDRESS && network !== undefined) {
    warnings.push(
      `interface of type ${quoteName(type)}: ${quoteName(network)} is taken for an internal ` +
        'network of that name, which nobody outside of layerdisk is on',
    );
  }
  return {
    mode,
    ...(network === undefined || network === '' ? {} : { network }),
    ...(mac === undefined ? {} : { mac }),
  };
}

/** A server that listens everywhere states its port alone. */
function addressOf(source: XmlElement | undefined): string | undefined {
  const parts = [source?.attribute('address') ?? '', source?.attribute('port') ?? ''];
  return parts.filter((part) => part !== '').join(':') || undefined;
}

/** Stated, or by a firmware in flash memory, which is how QEMU has EFI. */
function startsByEfi(root: XmlElement): boolean {
  const os = root.child('os');
  const loader = os?.child('loader');
  return os?.attribute('firmware') === 'efi' || loader?.attribute('type') === 'pflash';
}

function noteOmissions(devices: XmlElement | undefined, warnings: string[]): void {
  const isThere = (name: string) => devices?.child(name) !== undefined;
  if (isThere('filesystem')) warnings.push('shared folders (filesystem) are not taken over');
  if (isThere('hostdev')) warnings.push('devices of the host (hostdev) are not taken over');
  if (isThere('tpm')) warnings.push('the TPM and what it holds are not taken over');
  const controllers = devices?.all('controller') ?? [];
  if (controllers.some((each) => each.attribute('type') === 'usb') || isThere('redirdev')) {
    warnings.push('USB controllers are not taken over');
  }
}
