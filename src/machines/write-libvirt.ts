/**
 * A domain of libvirt on the exposed raw files, for `virsh define` and virt-manager: the hardware
 * that `layerdisk run` gives to QEMU, in libvirt's words (libvirt, "Domain XML format").
 */
import { unsupported } from '../formats/image-error.js';
import {
  DEFAULT_NETWORK,
  type OutputDisk,
  type OutputMachine,
  type OutputNic,
  type WrittenMachine,
} from './machine-output.js';
import { element, textElement } from './xml-text.js';

export interface LibvirtHost {
  readonly hasKvm: boolean;
  /**
   * Whose the raw files are when only he may open them and libvirt runs QEMU as somebody else:
   * root. Absent for other users, whose libvirt (`qemu:///session`) runs QEMU as themselves.
   */
  readonly owner?: { readonly uid: number; readonly gid: number };
}

/** `vda` to `vdz`. */
const MAX_DISKS = 26;

/** @throws DiskError `not-supported` for what libvirt cannot say. */
export function libvirtDomain(machine: OutputMachine, host: LibvirtHost): WrittenMachine {
  const { name, id, vcpus, memory, disks, nics } = machine;
  if (disks.length > MAX_DISKS) throw unsupported(name, `more than ${MAX_DISKS} disks in libvirt`);
  const root = element('domain', { type: host.hasKvm ? 'kvm' : 'qemu' }, [
    textElement('name', name),
    textElement('uuid', id),
    textElement('memory', memory, { unit: 'bytes' }),
    textElement('vcpu', vcpus),
    element('os', {}, [textElement('type', 'hvm', { arch: 'x86_64', machine: 'q35' })]),
    element('features', {}, [element('acpi'), element('apic')]),
    element('cpu', { mode: host.hasKvm ? 'host-passthrough' : 'maximum' }),
    element('clock', { offset: 'utc' }),
    element('devices', {}, [...disks.map(diskElement), ...nics.map(nicElement), ...consoles()]),
    ...(host.owner === undefined ? [] : [ownerElement(host.owner)]),
  ]);
  return { text: `${root}\n`, notes: [...ownerNotes(host), ...networkNotes(nics)] };
}

/**
 * `snapshot="no"` keeps libvirt's own snapshots off the disk; `cache="none"` with `io="native"` is
 * what measured best on the exposed files.
 */
function diskElement(disk: OutputDisk, index: number): string {
  return element('disk', { type: 'file', device: 'disk', snapshot: 'no' }, [
    element('driver', {
      name: 'qemu',
      type: 'raw',
      cache: 'none',
      io: 'native',
      discard: 'unmap',
      detect_zeroes: disk.allocation === 'dynamic' ? 'unmap' : 'off',
    }),
    element('source', { file: disk.path }),
    element('target', { dev: `vd${String.fromCharCode(97 + index)}`, bus: 'virtio' }),
    textElement('serial', disk.serial),
    element('boot', { order: index + 1 }),
  ]);
}

function nicElement(nic: OutputNic): string {
  const rest = [
    element('mac', { address: nic.mac }),
    element('model', { type: 'virtio' }),
    ...(nic.mode === 'none' ? [element('link', { state: 'down' })] : []),
  ];
  switch (nic.mode) {
    case 'nat':
    case 'none':
      return element('interface', { type: 'user' }, rest);
    case 'internal': {
      const source = element('source', { network: nic.network ?? DEFAULT_NETWORK });
      return element('interface', { type: 'network' }, [source, ...rest]);
    }
    case 'host-only':
    case 'bridged': {
      const source = element('source', { bridge: nic.bridge ?? nic.network ?? '' });
      return element('interface', { type: 'bridge' }, [source, ...rest]);
    }
  }
}

/** The serial console that guests of `layerdisk run` have, a screen, and the agent's channel. */
function consoles(): string[] {
  return [
    element('serial', { type: 'pty' }),
    element('console', { type: 'pty' }),
    element('channel', { type: 'unix' }, [
      element('target', { type: 'virtio', name: 'org.qemu.guest_agent.0' }),
    ]),
    element('graphics', { type: 'vnc', autoport: 'yes', listen: '127.0.0.1' }),
    element('video', {}, [element('model', { type: 'vga' })]),
    element('rng', { model: 'virtio' }, [
      textElement('backend', '/dev/urandom', { model: 'random' }),
    ]),
  ];
}

/**
 * libvirt would give the files to the user that it runs QEMU as, which the mount does not allow:
 * this has it run this one QEMU as their owner and leave the files alone.
 */
function ownerElement({ uid, gid }: { readonly uid: number; readonly gid: number }): string {
  return element('seclabel', { type: 'static', model: 'dac', relabel: 'no' }, [
    textElement('label', `+${uid}:+${gid}`),
  ]);
}

function ownerNotes({ owner }: LibvirtHost): string[] {
  return owner === undefined
    ? ['define it in your own libvirt: virsh --connect qemu:///session define FILE']
    : ['define it in the libvirt of the system: virsh --connect qemu:///system define FILE'];
}

function networkNotes(nics: readonly OutputNic[]): string[] {
  const notes = nics.flatMap((nic, index) => {
    const what = `NIC ${index} (${nic.mode})`;
    const network = nic.network ?? DEFAULT_NETWORK;
    if (nic.mode === 'internal') {
      return [
        `${what}: libvirt must have an isolated network "${network}" ` +
          `(<network><name>${network}</name></network>); guests of layerdisk run are not on it`,
      ];
    }
    if (nic.mode === 'host-only') {
      return [`${what}: the host must have the bridge ${nic.bridge}, which layerdisk run makes`];
    }
    return [];
  });
  return [...new Set(notes)];
}
