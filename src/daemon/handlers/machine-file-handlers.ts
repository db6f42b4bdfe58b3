/** `export.machine`: files by which other hypervisors run on the exposed disks of a VM. */
import { existsSync } from 'node:fs';
import { basename, dirname, extname, join } from 'node:path';
import { DiskError } from '../../common/errors.js';
import { uuidOf } from '../../common/uuid.js';
import type { Handlers, MachineFilesView, Nic, Params } from '../../control/protocol.js';
import { rawDescriptor } from '../../formats/raw-descriptor.js';
import { bridgeOf } from '../../guest/networks.js';
import type { OutputDisk, OutputMachine, OutputNic } from '../../machines/machine-output.js';
import { libvirtDomain } from '../../machines/write-libvirt.js';
import { vboxSettings } from '../../machines/write-vbox.js';
import { vmxConfiguration } from '../../machines/write-vmx.js';
import type { MachineFile } from '../../vm/exchange/machine-files.js';
import { type GuestHandlerSources, refuseWhileUsed } from './guest-handlers.js';
import { requireAbsolute } from './requests.js';
import { resolveTarget } from './targets.js';
import { viewVm } from './vm-views.js';

/** What a hypervisor knows its file by. */
const EXTENSIONS = { 'libvirt-xml': undefined, vbox: '.vbox', vmx: '.vmx', vmdk: '.vmdk' } as const;

export function machineFileHandlers(
  sources: GuestHandlerSources,
): Pick<Handlers, 'export.machine'> {
  return {
    'export.machine': (params) =>
      sources.service.exclusively(params.vm, () => exportMachine(sources, params)),
  };
}

async function exportMachine(
  sources: GuestHandlerSources,
  params: Params<'export.machine'>,
): Promise<MachineFilesView> {
  const { vm, kind, path, force: overwrite = false } = params;
  await refuseWhileUsed(sources, vm, `hand the disks of "${vm}" to another hypervisor`);
  const notes: string[] = [];
  if (path === undefined) {
    if (kind !== 'libvirt-xml') {
      throw new DiskError('usage', `a ${kind} file needs a place: others are named after it`);
    }
    const domain = libvirtDomain(describe(sources, vm), hostFacts());
    return { files: [], text: domain.text, notes: domain.notes };
  }
  requireAbsolute(path);
  requireExtension(path, EXTENSIONS[kind]);
  const files = await sources.service.writeMachineFiles({
    path,
    overwrite,
    build: (place) => build(sources, params, place, notes),
    isOurs: (text) => text.startsWith('# Disk DescriptorFile') && text.includes(mountOf(sources)),
  });
  return { files, notes };
}

/** How the name of an exposed file begins in a VMDK descriptor. */
function mountOf({ mountpoint }: GuestHandlerSources): string {
  return ` FLAT "${mountpoint}/`;
}

function requireExtension(path: string, extension: string | undefined): void {
  if (extension === undefined || extname(path).toLowerCase() === extension) return;
  throw new DiskError('usage', `${path}: its name must end in ${extension}`, {
    hint: `name it ${basename(path, extname(path))}${extension}`,
  });
}

/** The main file first; adds to `notes`. */
function build(
  sources: GuestHandlerSources,
  params: Params<'export.machine'>,
  path: string,
  notes: string[],
): MachineFile[] {
  const { vm, kind, disk } = params;
  const machine = describe(sources, vm);
  if (kind === 'vmdk') {
    const wanted = resolveTarget(sources, { vm, ...(disk === undefined ? {} : { disk }) }).disk;
    const chosen = machine.disks.filter(({ name }) => name === wanted);
    return chosen.map((each) => ({ path, bytes: describeDisk(path, each) }));
  }
  const stem = basename(path, extname(path));
  const nameOf = (index: number) => `${stem}-${machine.disks[index]?.name}.vmdk`;
  const written =
    kind === 'libvirt-xml'
      ? libvirtDomain(machine, hostFacts())
      : kind === 'vbox'
        ? vboxSettings(machine, nameOf, new Date())
        : vmxConfiguration(machine, nameOf);
  notes.push(...written.notes);
  const main = { path, bytes: Buffer.from(written.text) };
  if (kind === 'libvirt-xml') return [main];
  const disks = machine.disks.map((each, index) => {
    const place = join(dirname(path), nameOf(index));
    return { path: place, bytes: describeDisk(place, each) };
  });
  return [main, ...disks];
}

function describeDisk(path: string, { path: file, size, uuid }: OutputDisk): Buffer {
  return rawDescriptor(path, { file, size, uuid });
}

function describe(sources: GuestHandlerSources, vm: string): OutputMachine {
  const { id, name, vcpus, memory, nics, disks } = viewVm(sources, vm);
  const nodes = new Map(sources.service.read(vm).disks.map((disk) => [disk.name, disk.node]));
  return {
    name,
    id,
    vcpus,
    memory,
    nics: nics.map((nic) => describeNic(sources.storeId, nic)),
    disks: disks.map((disk) => ({ ...disk, uuid: uuidOf(`${id}/${nodes.get(disk.name)}`) })),
  };
}

function describeNic(storeId: string, nic: Nic): OutputNic {
  const bridge = bridgeOf(storeId, nic);
  return bridge === undefined ? nic : { ...nic, bridge };
}

/** What a domain needs to know of this host, and of who serves its disks. */
function hostFacts() {
  const uid = process.geteuid?.();
  const gid = process.getegid?.();
  const hasKvm = existsSync('/dev/kvm');
  // Other users' QEMU runs as themselves; root's libvirt runs it as a user of its own.
  return uid === 0 && gid !== undefined ? { hasKvm, owner: { uid, gid } } : { hasKvm };
}
