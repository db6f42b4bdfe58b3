/**
 * Which PCI bus each device of a guest is on: q35's own has room for 27 disks and NICs beside what
 * every guest has. Where that does, nothing is said, because saved memory knows its devices by
 * their places.
 */

/** Slots of the root bus that the machine and `buildCommandLine` leave free. */
const ROOT_ROOM = 27;
/** Disks and NICs there when not all fit: bridges take slots as well, and so may the user. */
const ROOT_SHARE = 16;
/** Slots of a bridge: the first of the 32 is that of its own hotplug controller. */
const BRIDGE_ROOM = 31;

/** The bridges that a guest with so many disks and NICs needs. */
export function bridgeArguments(devices: number): string[] {
  const count = devices <= ROOT_ROOM ? 0 : Math.ceil((devices - ROOT_SHARE) / BRIDGE_ROOM);
  return Array.from({ length: count }, (_, index) => [
    '-device',
    JSON.stringify({ driver: 'pcie-pci-bridge', id: bridgeId(index) }),
  ]).flat();
}

/** What the device at a position among so many disks and NICs says of its bus. */
export function busOf(position: number, devices: number): { readonly bus?: string } {
  if (devices <= ROOT_ROOM || position < ROOT_SHARE) return {};
  return { bus: bridgeId(Math.floor((position - ROOT_SHARE) / BRIDGE_ROOM)) };
}

function bridgeId(index: number): string {
  return `bridge${index}`;
}
