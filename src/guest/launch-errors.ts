/** What is said when QEMU cannot be started. */
import { DiskError, errnoName } from '../common/errors.js';

export function qemuMissing(error: unknown): DiskError {
  const errno = errnoName(error) ?? 'EIO';
  if (errno === 'ENOENT') {
    return new DiskError('not-supported', 'QEMU (qemu-system-x86_64) is not installed here', {
      hint: 'install it: apt-get install qemu-system-x86',
      cause: error,
    });
  }
  return new DiskError('failed', `cannot start qemu-system-x86_64 (${errno})`, { cause: error });
}
