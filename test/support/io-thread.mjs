/** The I/O thread of test servers: serves the disks of `workerData` through the kernel channel. */
import { parentPort, workerData } from 'node:worker_threads';
import { DiskError } from '../../dist/modules/common/errors.js';
import { serveKernelChannel } from '../../dist/modules/transport/kernel/thread.js';
import { FileDevice } from './file-device.mjs';

const { setup, disks, counters } = workerData;
const devices = new Map();

function deviceOf(handle) {
  const spec = disks[handle];
  if (spec === undefined) throw new DiskError('usage', `handle ${handle}`, { errno: 'EBADF' });
  let device = devices.get(handle);
  if (device === undefined) {
    device = new FileDevice(spec, counters);
    devices.set(handle, device);
  }
  return device;
}

const end = serveKernelChannel({
  ...setup,
  deviceOf,
  forward: (message) => parentPort.postMessage(message),
});
parentPort.postMessage({ type: 'end', end });
