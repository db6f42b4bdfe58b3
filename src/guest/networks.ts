/** Where the cables of a guest's NICs go: QEMU backends, and what the host must do for them. */
import { createHash } from 'node:crypto';
import { accessSync, constants, existsSync, readFileSync } from 'node:fs';
import { DiskError, errnoName } from '../common/errors.js';
import type { GuestNic, NicBackend } from './command-line.js';
import { addToBridge, type HostBridge, hostOnlyBridge, makeBridge } from './host-bridge.js';

/** The network of NICs that are `internal` or `host-only` and name none. */
const DEFAULT_NETWORK = 'default';
/** The program that may connect users to bridges, and which ones. */
const BRIDGE_HELPER = '/usr/lib/qemu/qemu-bridge-helper';
const BRIDGE_RULES = '/etc/qemu/bridge.conf';

/** The ports of one guest. */
export interface PluggedNics {
  readonly backends: readonly NicBackend[];
  /** What people are told. */
  readonly notes: readonly string[];
  /** Connects what only exists once QEMU has started. */
  connect(): void;
}

export interface NetworkRequest {
  /** Tells the networks of one store from those of another. */
  readonly storeId: string;
  readonly nics: readonly GuestNic[];
}

/**
 * @throws DiskError `not-permitted` or `not-supported`, naming the NIC, for what this user or host
 * cannot connect.
 */
export function plugNics({ storeId, nics }: NetworkRequest): PluggedNics {
  const taps: { readonly tap: string; readonly bridge: HostBridge }[] = [];
  const notes: string[] = [];
  const plug = (nic: GuestNic, index: number): NicBackend => {
    switch (nic.mode) {
      case 'nat':
        return 'user';
      case 'none':
        return undefined;
      case 'internal': {
        const { address, port } = groupOf(storeId, nic.network ?? DEFAULT_NETWORK);
        // With this local address QEMU sends to the group and joins it on the loopback alone.
        return `socket,mcast=${address}:${port},localaddr=127.0.0.1`;
      }
      case 'host-only':
      case 'bridged': {
        const found = findBridge(storeId, nic, index);
        if (found.helper) return `bridge,br=${found.bridge.name},helper=${BRIDGE_HELPER}`;
        if (found.note !== undefined) notes.push(found.note);
        const tap = `ldt${process.pid.toString(36)}n${index}`;
        taps.push({ tap, bridge: found.bridge });
        return `tap,ifname=${tap},script=no,downscript=no`;
      }
    }
  };
  const connect = () => {
    for (const { tap, bridge } of taps) addToBridge(tap, bridge);
  };
  return { backends: nics.map(plug), notes, connect };
}

/**
 * The multicast group of an internal network: 24 bits of address and 14 of port, from the store's
 * id and the network's name.
 */
export function groupOf(storeId: string, network: string): { address: string; port: number } {
  const hash = createHash('sha256').update(`${storeId}\0${network}`).digest();
  // 239.0.0.0/8 is for whoever runs the network; ports from 49152 are nobody's.
  const address = `239.${hash[0]}.${hash[1]}.${hash[2]}`;
  return { address, port: 49152 + (hash.readUInt16BE(3) & 0x3fff) };
}

/** The host's bridge that a NIC is connected to; undefined for modes without one. */
export function bridgeOf(
  storeId: string,
  { mode, network }: Pick<GuestNic, 'mode' | 'network'>,
): string | undefined {
  if (mode === 'host-only') return hostOnlyBridge(storeId, network ?? DEFAULT_NETWORK).name;
  return mode === 'bridged' ? network : undefined;
}

interface FoundBridge {
  readonly bridge: HostBridge;
  /** Whether QEMU's own helper connects to it, with rights that we lack. */
  readonly helper: boolean;
  readonly note?: string;
}

function findBridge(storeId: string, nic: GuestNic, index: number): FoundBridge {
  const what = `NIC ${index} (${nic.mode})`;
  const isRoot = process.getuid?.() === 0;
  if (nic.mode === 'host-only') {
    if (!isRoot) throw needsRoot(what, 'host-only networks are bridges that only root may make');
    refuseWithoutTun(what);
    const bridge = hostOnlyBridge(storeId, nic.network ?? DEFAULT_NETWORK);
    makeBridge(bridge, what);
    return {
      bridge,
      helper: false,
      note: `${what}: the host is ${bridge.address} on ${bridge.name}`,
    };
  }
  const { network } = nic;
  if (network === undefined) {
    throw new DiskError('usage', `${what}: say which bridge of the host`, {
      hint: '--nic bridged,network=br0',
    });
  }
  if (!existsSync(`/sys/class/net/${network}/bridge`)) {
    throw new DiskError('not-supported', `${what}: this host has no bridge "${network}"`, {
      hint: `make it, as root: ip link add ${network} type bridge; or use --nic nat`,
    });
  }
  if (isRoot) {
    refuseWithoutTun(what);
    return { bridge: { name: network }, helper: false };
  }
  if (existsSync(BRIDGE_HELPER) && isAllowed(network)) {
    return { bridge: { name: network }, helper: true };
  }
  throw needsRoot(what, `${BRIDGE_RULES} does not allow ${network}`);
}

function needsRoot(what: string, why: string): DiskError {
  return new DiskError('not-permitted', `${what}: ${why}`, {
    hint: 'run as root, or use --nic nat or --nic internal',
  });
}

function refuseWithoutTun(what: string): void {
  try {
    accessSync('/dev/net/tun', constants.R_OK | constants.W_OK);
  } catch (error) {
    const errno = errnoName(error) ?? 'EIO';
    throw new DiskError('not-supported', `${what}: /dev/net/tun cannot be used (${errno})`, {
      hint: 'load the module tun, or use --nic nat or --nic internal',
    });
  }
}

/** The helper's own rules: `allow BRIDGE` or `allow all`, unless `deny` names it. */
function isAllowed(bridge: string): boolean {
  let rules: string;
  try {
    rules = readFileSync(BRIDGE_RULES, 'utf8');
  } catch {
    // No rules that this user may see: the helper would refuse, too.
    return false;
  }
  const lines = rules.split('\n').map((line) => line.trim().split(/\s+/));
  const has = (verb: string, name: string) => lines.some(([v, n]) => v === verb && n === name);
  if (has('deny', bridge) || has('deny', 'all')) return false;
  return has('allow', bridge) || has('allow', 'all');
}
