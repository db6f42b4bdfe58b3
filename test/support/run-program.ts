/** Runs a program to its end and answers what it said: for tests that judge real tools. */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

/** The project's folder. */
export const PROJECT = fileURLToPath(new URL('../..', import.meta.url));

export interface ProgramResult {
  /** Exit status; 128 + signal number's place is taken by -1 when a signal ended it. */
  readonly code: number;
  readonly signal: string | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface ProgramOptions {
  readonly cwd?: string;
  /** Added to (undefined: taken out of) the environment. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly input?: string | Buffer;
  readonly timeoutMs?: number;
  /** Kills it. */
  readonly signal?: AbortSignal;
  readonly uid?: number;
  readonly gid?: number;
}

/** Debian's tools for disks lie where the PATH of an ordinary user does not look. */
const TOOL_PATH = `${process.env.PATH}:/usr/local/sbin:/usr/sbin:/sbin`;

/**
 * The environment for children. What the test runner puts in there would make every child slower,
 * and make a runner started by a test believe that it is a child itself.
 */
export function cleanEnvironment(
  extra: Readonly<Record<string, string | undefined>> = {},
): NodeJS.ProcessEnv {
  const env: NodeJS.ProcessEnv = { ...process.env, PATH: TOOL_PATH, LC_ALL: 'C.UTF-8' };
  for (const name of Object.keys(env)) {
    if (name === 'TAP' || name.startsWith('TAP_') || name.startsWith('_TAPJS_')) delete env[name];
  }
  Object.assign(env, extra);
  return env;
}

/**
 * Never throws for a program that fails: look at `code`. Throws when it cannot be started at all.
 */
export function runProgram(
  command: string,
  args: readonly string[],
  options: ProgramOptions = {},
): Promise<ProgramResult> {
  const { timeoutMs = 120_000, input, uid, gid, cwd } = options;
  // The runner slips NODE_OPTIONS into every child, so only another program can take it out again.
  const child = spawn('env', ['-u', 'NODE_OPTIONS', command, ...args], {
    env: cleanEnvironment(options.env),
    stdio: ['pipe', 'pipe', 'pipe'],
    timeout: timeoutMs,
    killSignal: 'SIGKILL',
    ...(cwd === undefined ? {} : { cwd }),
    ...(uid === undefined ? {} : { uid }),
    ...(gid === undefined ? {} : { gid }),
  });
  const out: Buffer[] = [];
  const err: Buffer[] = [];
  child.stdout.on('data', (chunk: Buffer) => out.push(chunk));
  child.stderr.on('data', (chunk: Buffer) => err.push(chunk));
  // A program that does not read what it is given is none of our concern.
  child.stdin.on('error', () => {});
  child.stdin.end(input ?? '');
  const kill = (): boolean => child.kill('SIGKILL');
  options.signal?.addEventListener('abort', kill);
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, signal) => {
      options.signal?.removeEventListener('abort', kill);
      const stdout = Buffer.concat(out).toString('utf8');
      resolve({ code: code ?? -1, signal, stdout, stderr: Buffer.concat(err).toString('utf8') });
    });
  });
}

/**
 * Runs a tool that must succeed and answers its standard output.
 * @throws Error with all that it printed
 */
export async function tool(
  command: string,
  args: readonly string[],
  options: ProgramOptions = {},
): Promise<string> {
  const result = await runProgram(command, args, options);
  if (result.code !== 0) {
    const end = result.signal ?? `exit status ${result.code}`;
    const said = `${result.stdout}${result.stderr}`;
    throw new Error(`${command} ${args.join(' ')}: ${end}\n${said}`);
  }
  return result.stdout;
}
