/** Runs the compiled command line as a user's shell would. */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { CliShell } from '../support/cli-shell.js';

/** `npm run build` makes it. */
export const CLI = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));

export interface CliResult {
  readonly code: number | null;
  readonly signal: string | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface CliOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** Called with what has come on stdout so far, and a way to send a signal. */
  readonly onStdout?: (text: string, kill: (signal: NodeJS.Signals) => void) => void;
  /** The same for stderr. */
  readonly onStderr?: (text: string, kill: (signal: NodeJS.Signals) => void) => void;
  /** Runs it on a terminal made by script(1); both streams then come as stdout. */
  readonly terminal?: Typing;
}

/** What somebody types once the question is there. */
export interface Typing {
  readonly question?: string;
  readonly answer?: string;
}

/** The environment of every run: nothing of the caller's but the path. */
function cleanEnvironment(extra: Readonly<Record<string, string>> = {}): NodeJS.ProcessEnv {
  return { PATH: process.env.PATH, HOME: '/nonexistent', LANG: 'C.UTF-8', ...extra };
}

export function runCli(args: readonly string[], options: CliOptions = {}): Promise<CliResult> {
  if (!existsSync(CLI)) throw new Error(`${CLI} is missing: npm run build first`);
  const { terminal } = options;
  // tap puts its loader into NODE_OPTIONS of every child, whatever its environment: env takes it
  // out again.
  const command = ['env', '-u', 'NODE_OPTIONS', process.execPath, CLI, ...args];
  const [program = '', ...rest] =
    terminal === undefined
      ? command
      : ['script', '-qec', command.map(quoteForShell).join(' '), '/dev/null'];
  const child = spawn(program, rest, {
    env: cleanEnvironment(options.env),
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    stdio: 'pipe',
  });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
    const asked = terminal?.question !== undefined && stdout.includes(terminal.question);
    stdout += chunk;
    options.onStdout?.(stdout, (signal) => child.kill(signal));
    if (!asked && terminal?.question !== undefined && stdout.includes(terminal.question)) {
      child.stdin.write(terminal.answer ?? '');
    }
  });
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
    stderr += chunk;
    options.onStderr?.(stderr, (signal) => child.kill(signal));
  });
  if (terminal === undefined) child.stdin.end();
  return new Promise((done, fail) => {
    child.on('error', fail);
    child.on('close', (code, signal) => {
      child.stdin.destroy();
      done({ code, signal, stdout, stderr });
    });
  });
}

/** Runs command lines one after the other in one process, in the folder `cwd`. */
export async function runBatch(
  lines: readonly (readonly string[])[],
  cwd: string,
): Promise<readonly CliResult[]> {
  const shell = new CliShell(cleanEnvironment());
  try {
    return await Promise.all(lines.map((args) => shell.run(args, cwd)));
  } finally {
    await shell.close();
  }
}

function quoteForShell(word: string): string {
  return `'${word.replaceAll("'", `'\\''`)}'`;
}
