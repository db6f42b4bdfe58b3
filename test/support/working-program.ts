/** A program of the tests' own that works beside them until its standard input ends. */
import { spawn } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Test } from 'tap';
import { cleanEnvironment } from './run-program.js';

export interface WorkingProgram {
  /** Lets it end, which must be without an error. @returns what it printed. */
  stop(): Promise<string>;
}

/**
 * Starts a script and waits until it printed the line `working`; it is gone when `t`
 * ends.
 */
export async function startProgram(
  t: Test,
  script: URL,
  args: readonly string[],
): Promise<WorkingProgram> {
  const path = fileURLToPath(script);
  const child = spawn('env', ['-u', 'NODE_OPTIONS', 'node', path, ...args], {
    env: cleanEnvironment(),
    stdio: 'pipe',
  });
  let said = '';
  const note = (chunk: Buffer): void => {
    said += chunk.toString();
  };
  child.stdout.on('data', note);
  child.stderr.on('data', note);
  // One that failed does not read any more: its exit status says it.
  child.stdin.on('error', () => {});
  let isOver = false;
  const ended = new Promise<number | null>((resolve) => {
    child.once('close', (code) => {
      isOver = true;
      resolve(code);
    });
  });
  t.teardown(async () => {
    child.kill('SIGKILL');
    await ended;
  });
  // One that was killed, by the end of the test say, has no exit status.
  while (!said.includes('working\n') && !isOver) await sleep(5);
  return {
    stop: async () => {
      child.stdin.end();
      t.equal(await ended, 0, `${path} saw no error: ${said}`);
      return said.replace('working\n', '');
    },
  };
}
