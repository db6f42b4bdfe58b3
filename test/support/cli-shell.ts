/** The command line in a process that stays: a command costs milliseconds instead of a start. */
import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { ProgramResult } from './run-program.js';

const SHELL = fileURLToPath(new URL('../cli/shell.mjs', import.meta.url));
const MAIN = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));

interface Pending {
  readonly line: string;
  resolve(result: ProgramResult): void;
  reject(error: Error): void;
}

/**
 * Runs command lines one after the other. Not for commands that read standard input, hand
 * descriptors on, or are to be stopped by a signal: these need a process of their own.
 */
export class CliShell {
  readonly #env: NodeJS.ProcessEnv;
  #child: ChildProcess | undefined;
  #ended: Promise<void> | undefined;
  readonly #pending = new Map<number, Pending>();
  #lastId = 0;
  #said = '';

  /** @param env the environment of every command */
  constructor(env: NodeJS.ProcessEnv) {
    this.#env = env;
  }

  /** Whether a command is under way, so that another would have to wait. */
  get busy(): boolean {
    return this.#pending.size > 0;
  }

  run(args: readonly string[], cwd = process.cwd()): Promise<ProgramResult> {
    const child = this.#child ?? this.#start();
    this.#lastId += 1;
    const id = this.#lastId;
    const line = JSON.stringify({ id, args, cwd });
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { line, resolve, reject });
      child.stdin?.write(`${line}\n`);
    });
  }

  /** Waits for the commands under way, and ends the process. */
  async close(): Promise<void> {
    this.#child?.stdin?.end();
    await this.#ended;
  }

  #start(): ChildProcess {
    const command = ['-u', 'NODE_OPTIONS', process.execPath, SHELL, MAIN];
    const child = spawn('env', command, { env: this.#env, stdio: 'pipe' });
    this.#child = child;
    child.stderr.on('data', (chunk: Buffer) => {
      this.#said += chunk.toString('utf8');
    });
    // Its end says what there is to say.
    child.stdin.on('error', () => {});
    createInterface({ input: child.stdout }).on('line', (line) => this.#settle(line));
    this.#ended = new Promise((resolve) => {
      child.once('close', (code) => {
        this.#child = undefined;
        for (const { line, reject } of this.#pending.values()) {
          reject(new Error(`the shell ended with ${code} at ${line}\n${this.#said}`));
        }
        this.#pending.clear();
        resolve();
      });
    });
    return child;
  }

  #settle(line: string): void {
    const { id, code, stdout, stderr } = JSON.parse(line) as ProgramResult & { id: number };
    const pending = this.#pending.get(id);
    this.#pending.delete(id);
    pending?.resolve({ code, signal: null, stdout, stderr });
  }
}
