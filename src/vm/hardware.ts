/** The virtual hardware of a VM: checked, completed with MAC addresses, changed. */
import { randomBytes } from 'node:crypto';
import { DiskError } from '../common/errors.js';
import { formatSize, GiB, MiB, TiB } from '../common/units.js';
import type { Hardware, NicRecord } from './store/manifest.js';
import { checkName } from './store/names.js';
import type { VmCatalog } from './store/vm-catalog.js';

const MAX_VCPUS = 1024;
const MIN_MEMORY = MiB;
const MAX_MEMORY = 64 * TiB;
export const MAX_NICS = 32;
/** What a new VM has when nobody says otherwise. */
export const DEFAULT_HARDWARE: Hardware = { vcpus: 1, memory: GiB, nics: [] };

/** QEMU's and KVM's prefix for addresses that are given out locally. */
const MAC_PREFIX = '52:54:00';
const LEAVE_OUT = 'leave mac out to get a new one';
const MAC = /^([0-9a-f]{2}:){5}[0-9a-f]{2}$/;

export interface NicRequest {
  readonly mode: NicRecord['mode'];
  readonly mac?: string;
  readonly network?: string;
}

/** What is absent stays; `nics` replaces all of them. */
export interface HardwareRequest {
  readonly vcpus?: number;
  readonly memory?: number;
  readonly nics?: readonly NicRequest[];
}

/**
 * What a clone does with MAC addresses: new ones, the same, or the same for NICs behind NAT only.
 */
export type MacPolicy = 'new' | 'keep' | 'keep-nat';

/** The MAC addresses of a store: new ones are unique in it. */
export class MacPool {
  readonly #catalog: VmCatalog;
  /** Claimed by operations that have not ended yet. */
  readonly #claimed = new Set<string>();

  constructor(catalog: VmCatalog) {
    this.#catalog = catalog;
  }

  /**
   * Starts an operation's claims, to be released when it ends: a manifest has the addresses then.
   */
  claims(): MacClaims {
    return new MacClaims(this.#catalog, this.#claimed);
  }
}

/** The MAC addresses that one operation gives out. */
export class MacClaims {
  readonly #catalog: VmCatalog;
  readonly #all: Set<string>;
  readonly #own: string[] = [];

  constructor(catalog: VmCatalog, all: Set<string>) {
    this.#catalog = catalog;
    this.#all = all;
  }

  /** A new address. */
  take(): string {
    for (;;) {
      const tail = [...randomBytes(3)].map((byte) => byte.toString(16).padStart(2, '0'));
      const mac = [MAC_PREFIX, ...tail].join(':');
      if (!this.#all.has(mac) && !this.#catalog.hasMac(mac)) return this.#claim(mac);
    }
  }

  /**
   * An address that a user chose for the VM with id `owner` (undefined: a VM to be made).
   * @returns it in lower case.
   * @throws DiskError `usage` for what is no address of one machine, `exists` when another VM has
   * it.
   */
  choose(text: string, owner: string | undefined): string {
    const mac = text.toLowerCase().replaceAll('-', ':');
    const shown = text.length > 40 ? `${text.slice(0, 40)}...` : text;
    if (!MAC.test(mac)) {
      throw new DiskError('usage', `${JSON.stringify(shown)} is no MAC address`, {
        hint: 'write six pairs of hexadecimal digits, as 52:54:00:12:34:56',
      });
    }
    const isGroup = (Number.parseInt(mac.slice(0, 2), 16) & 1) === 1;
    if (isGroup || mac === '00:00:00:00:00:00') {
      throw new DiskError('usage', `${mac} is no address of a single machine`, { hint: LEAVE_OUT });
    }
    if (this.#own.includes(mac)) {
      throw new DiskError('usage', `two NICs have the MAC address ${mac}`, { hint: LEAVE_OUT });
    }
    const [user] = this.#catalog.macUsers(mac, owner);
    if (user !== undefined || this.#all.has(mac)) {
      const who = user === undefined ? 'another VM' : `VM "${user}"`;
      throw new DiskError('exists', `${who} already has the MAC address ${mac}`, {
        hint: LEAVE_OUT,
      });
    }
    return this.#claim(mac);
  }

  release(): void {
    for (const mac of this.#own) this.#all.delete(mac);
  }

  #claim(mac: string): string {
    this.#all.add(mac);
    this.#own.push(mac);
    return mac;
  }
}

/**
 * The hardware of `present` (default: of a new VM) with a change made to it.
 * A NIC that is given without an address keeps the one at its position, else gets a new one.
 * @throws DiskError `usage` or `exists`, naming what is wrong.
 */
export function changeHardware(
  change: HardwareRequest,
  macs: MacClaims,
  present: Hardware = DEFAULT_HARDWARE,
  owner?: string,
): Hardware {
  const { vcpus = present.vcpus, memory = present.memory } = change;
  if (!Number.isInteger(vcpus) || vcpus < 1 || vcpus > MAX_VCPUS) {
    throw new DiskError('usage', `${vcpus} virtual CPUs are not possible`, {
      hint: `give a whole number from 1 to ${MAX_VCPUS}`,
    });
  }
  if (!Number.isInteger(memory) || memory < MIN_MEMORY || memory > MAX_MEMORY) {
    throw new DiskError('usage', `a memory of ${formatSize(memory)} is not possible`, {
      hint: `give ${formatSize(MIN_MEMORY)} to ${formatSize(MAX_MEMORY)}, for example 2G`,
    });
  }
  if (change.nics === undefined) return { vcpus, memory, nics: present.nics };
  return { vcpus, memory, nics: buildNics(change.nics, macs, present.nics, owner) };
}

function buildNics(
  requests: readonly NicRequest[],
  macs: MacClaims,
  present: readonly NicRecord[],
  owner: string | undefined,
): NicRecord[] {
  if (requests.length > MAX_NICS) {
    throw new DiskError('usage', `${requests.length} NICs are too many`, {
      hint: `a VM has at most ${MAX_NICS}`,
    });
  }
  for (const { network } of requests) if (network !== undefined) checkName('network', network);
  const chosen = requests.map(({ mac }) =>
    mac === undefined ? undefined : macs.choose(mac, owner),
  );
  const used = new Set(chosen);
  return requests.map(({ mode, network }, index) => {
    const kept = present[index]?.mac;
    const own = chosen[index] ?? (kept === undefined || used.has(kept) ? macs.take() : kept);
    used.add(own);
    return { mode, mac: own, ...(network === undefined ? {} : { network }) };
  });
}

/** The NICs of a clone: every old address is mapped to one new address, or kept. */
export function cloneNics(
  nics: readonly NicRecord[],
  policy: MacPolicy,
  macs: MacClaims,
): NicRecord[] {
  const mapped = new Map<string, string>();
  return nics.map((nic) => {
    if (policy === 'keep' || (policy === 'keep-nat' && nic.mode === 'nat')) return nic;
    const mac = mapped.get(nic.mac) ?? macs.take();
    mapped.set(nic.mac, mac);
    return { ...nic, mac };
  });
}
