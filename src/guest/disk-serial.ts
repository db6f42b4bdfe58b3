/** The serial numbers that guests see on their disks. */

/** Longest serial of a virtio disk (VIRTIO_BLK_ID_BYTES). */
export const MAX_SERIAL_LENGTH = 20;
const ID_DIGITS = 11;

/**
 * The same for the life of a disk, whatever the VM and the disk are called: from the VM's id and
 * the disk's node, which is never given out again. A clone is another VM and has other serials.
 */
export function diskSerial(vmId: string, node: number): string {
  const id = vmId.replaceAll('-', '').slice(0, ID_DIGITS);
  return `${id}-${node.toString(16)}`.slice(0, MAX_SERIAL_LENGTH);
}
