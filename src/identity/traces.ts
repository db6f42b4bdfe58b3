/**
 * What makes a Linux system the one that it is, and what of it is cleared so that a clone becomes
 * another one: it makes all of these anew by itself when they are missing, with one exception, the
 * host keys of an SSH server that nothing generates at boot.
 */

export interface Trace {
  readonly what: string;
  /** The folder from the system's root, as components. */
  readonly folder: readonly string[];
  /** Names in it. */
  readonly name: RegExp;
  /** `empty`: the file stays, with its owner, mode and label. */
  readonly how: 'remove' | 'empty';
  /** A symbolic link in its place leads to what is cleared anyway. */
  readonly linkIsFine?: boolean;
}

const path = (text: string) => text.split('/');
const removed = (what: string, folder: string, name: RegExp): Trace => ({
  ...{ what, folder: path(folder), name, how: 'remove' },
});

const LEASE = 'DHCP lease';
const DHCPCD = /\.lease6?$|^(duid|secret)$/;
const SEED = 'random seed';

export const TRACES: readonly Trace[] = [
  // Empty, not absent: systemd takes an absent one for a first boot.
  { what: 'machine-id', folder: ['etc'], name: /^machine-id$/, how: 'empty' },
  {
    ...removed('machine-id', 'var/lib/dbus', /^machine-id$/),
    linkIsFine: true,
  },
  removed('SSH host key', 'etc/ssh', /^ssh_host_/),
  removed(LEASE, 'var/lib/dhcp', /\.leases?$/),
  removed(LEASE, 'var/lib/dhclient', /\.leases?$/),
  removed(LEASE, 'var/lib/dhcpcd', DHCPCD),
  removed(LEASE, 'var/lib/dhcpcd5', DHCPCD),
  // The key is what client ids and stable addresses are derived from.
  removed(LEASE, 'var/lib/NetworkManager', /\.lease$|^secret_key$/),
  removed('DHCP client id', 'etc', /^dhcpcd\.(duid|secret)$/),
  removed(SEED, 'var/lib/systemd', /^random-seed$/),
  removed(SEED, 'var/lib/urandom', /^random-seed$/),
  removed(SEED, 'var/lib', /^random-seed$/),
  removed(SEED, 'var/lib/seedrng', /^seed\.(no-)?credit$/),
  // It ties names of network cards to addresses that the clone has no more.
  removed('names of network cards', 'etc/udev/rules.d', /^70-persistent-net\.rules$/),
];

/** The traces in `/var`. */
export const IN_VAR: readonly Trace[] = TRACES.filter(({ folder }) => folder[0] === 'var');

/** The same in a file system that is mounted at `/var` of a system. */
export const VAR_TRACES: readonly Trace[] = IN_VAR.map((trace) => ({
  ...trace,
  folder: trace.folder.slice(1),
}));
