/** Which Linux this is. */
import { platform, release } from 'node:os';

/** Whether the host's kernel is a Linux of this version or a newer one. */
export function isKernelAtLeast(major: number, minor: number): boolean {
  if (platform() !== 'linux') return false;
  const [foundMajor = 0, foundMinor = 0] = release().split('.').map(Number);
  return foundMajor > major || (foundMajor === major && foundMinor >= minor);
}
