/** Other people's readers of formats of which QEMU does not read everything. */
import { execFileSync } from 'node:child_process';
import { tool } from './tools.js';

interface Commenting {
  comment(...args: unknown[]): void;
}

/** Reads the disk in an image (and its parents, beside it), or undefined without 7-Zip. */
export function sevenZip(t: Commenting): ((path: string) => Buffer) | undefined {
  const command = tool(t, '7z', ['i']);
  if (command === undefined) return undefined;
  return (path) =>
    execFileSync(command, ['e', '-so', path], {
      maxBuffer: 256 * 1024 * 1024,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
}

/** What libvhdi finds in a VHD or VHDX: label -> value; or undefined without it. */
export function vhdiInfo(t: Commenting): ((path: string) => Map<string, string>) | undefined {
  const command = tool(t, 'vhdiinfo', ['-V']);
  if (command === undefined) return undefined;
  return (path) => {
    const lines = execFileSync(command, [path], { encoding: 'utf8', stdio: 'pipe' }).split('\n');
    const pairs = lines.map((line) => /^\t([^\t:]+?)\s*: (.*)$/.exec(line));
    return new Map(pairs.flatMap((pair) => (pair === null ? [] : [[pair[1]!, pair[2]!] as const])));
  };
}
