/** Outside programs that tests compare with; a test that lacks one says so and goes on. */
import { spawnSync } from 'node:child_process';

interface Commenting {
  comment(...args: unknown[]): void;
}

/** `qemu-img`, or undefined (with the reason printed) where it is not installed. */
export function qemuImg(t: Commenting): string | undefined {
  return tool(t, 'qemu-img', ['--version']);
}

export function tool(t: Commenting, name: string, probe: readonly string[]): string | undefined {
  if (spawnSync(name, [...probe], { stdio: 'ignore' }).status === 0) return name;
  t.comment(`skipped: ${name} is not installed`);
  return undefined;
}
