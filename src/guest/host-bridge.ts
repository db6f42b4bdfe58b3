/** Bridges of the host that guests are connected to, through ip(8). For root. */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { DiskError } from '../common/errors.js';

export interface HostBridge {
  readonly name: string;
  /** The host's own address on it, with its prefix length; absent: not ours to give. */
  readonly address?: string;
}

/** Where ip(8) is; a user's own PATH may lack the system folders. */
const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** The bridge of a host-only network: named and numbered after the store and the network. */
export function hostOnlyBridge(storeId: string, network: string): HostBridge {
  const hash = createHash('sha256').update(`${storeId}\0host-only\0${network}`).digest();
  // In 10.128.0.0/9, whose upper half few local networks use.
  const address = `10.${128 + ((hash[0] ?? 0) & 0x7f)}.${hash[1]}.1/24`;
  return { name: `ldho${hash.toString('hex', 2, 7)}`, address };
}

/** Makes it unless it is there. It stays when the guests end: it costs nothing. */
export function makeBridge(bridge: HostBridge, what: string): void {
  const { name, address } = bridge;
  if (!existsSync(`/sys/class/net/${name}`)) {
    ip(what, ['link', 'add', name, 'type', 'bridge']);
    if (address !== undefined) ip(what, ['address', 'add', address, 'dev', name]);
  }
  ip(what, ['link', 'set', name, 'up']);
}

/** The tap is QEMU's and goes with it. */
export function addToBridge(tap: string, bridge: HostBridge): void {
  const what = `connecting ${tap} to ${bridge.name}`;
  ip(what, ['link', 'set', tap, 'master', bridge.name]);
  ip(what, ['link', 'set', tap, 'up']);
}

function ip(what: string, args: readonly string[]): void {
  const { status, stderr, error } = spawnSync('ip', [...args], {
    encoding: 'utf8',
    env: { PATH, LC_ALL: 'C' },
  });
  if (status === 0) return;
  const why = error === undefined ? stderr.trim().split('\n', 1)[0] : error.message;
  throw new DiskError('not-supported', `${what}: ip ${args.join(' ')}: ${why}`, {
    hint: 'does this kernel have bridges? Otherwise use --nic nat or --nic internal',
  });
}
