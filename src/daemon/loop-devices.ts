/** Loop devices as the kernel lists them. */
import { readdirSync, readFileSync } from 'node:fs';
import { errnoName } from '../common/errors.js';

export interface LoopDevice {
  /** `/dev/loop3`. */
  readonly device: string;
  /** The file behind it, as the kernel names it. */
  readonly file: string;
}

/** Every loop device that has a file behind it. */
export function listLoopDevices(): LoopDevice[] {
  let names: string[];
  try {
    names = readdirSync('/sys/block');
  } catch (error) {
    // Not Linux, or no sysfs: no loop devices either.
    if (errnoName(error) === 'ENOENT') return [];
    throw error;
  }
  return names
    .filter((name) => /^loop\d+$/.test(name))
    .flatMap((name) => {
      const file = backingFile(name);
      return file === undefined ? [] : [{ device: `/dev/${name}`, file }];
    });
}

function backingFile(name: string): string | undefined {
  try {
    return readFileSync(`/sys/block/${name}/loop/backing_file`, 'utf8').replace(/\n$/, '');
  } catch {
    // Not attached, or detached this moment.
    return undefined;
  }
}

/** Where a loop device or a partition of it is mounted. */
export function mountsOfDevice(device: string): string[] {
  let text: string;
  try {
    text = readFileSync('/proc/self/mounts', 'utf8');
  } catch {
    // Not Linux.
    return [];
  }
  const places: string[] = [];
  for (const line of text.split('\n')) {
    const [source, place] = line.split(' ');
    if (source === undefined || place === undefined) continue;
    const rest = source.startsWith(device) ? source.slice(device.length) : undefined;
    if (rest !== undefined && /^(p\d+)?$/.test(rest)) places.push(unescapeMount(place));
  }
  return places;
}

/** mounts(5) writes blanks and backslashes as octal. */
function unescapeMount(text: string): string {
  return text.replace(/\\(\d{3})/g, (_, octal: string) =>
    String.fromCharCode(Number.parseInt(octal, 8)),
  );
}
