/** Runs the host's own programs (losetup, mount, ...) and says in one line why one failed. */
import { execFile } from 'node:child_process';
import { DiskError, errnoName } from '../common/errors.js';

export interface CommandResult {
  readonly code: number;
  readonly stdout: string;
  /** The first line that says something, without the program's name. */
  readonly complaint: string;
}

/** Where the programs are; a daemon's own PATH may lack the system ones. */
const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
/** Messages in one language, for those that are looked into. */
export const COMMAND_ENVIRONMENT = { PATH, LC_ALL: 'C' };
const MAX_OUTPUT_BYTES = 1024 * 1024;

/**
 * Runs a program to its end; a non-zero exit is an answer, not an error. Does not block the thread.
 * @param timeoutMs after which the program is told to end; 0: never.
 * @throws DiskError `not-supported` when there is no such program, `failed` when it was ended by a
 * signal.
 */
export function runCommand(
  program: string,
  args: readonly string[],
  timeoutMs = 0,
): Promise<CommandResult> {
  return new Promise((resolve, reject) => {
    const options = {
      env: COMMAND_ENVIRONMENT,
      maxBuffer: MAX_OUTPUT_BYTES,
      timeout: timeoutMs,
    };
    const child = execFile(program, [...args], options, (error, stdout, stderr) => {
      const complaint = firstLine(stderr).replace(`${program}: `, '');
      const code = error === null ? 0 : child.exitCode;
      // Of one that could not be started the code is the errno, negative.
      if (code !== null && code >= 0) resolve({ code, stdout, complaint });
      else reject(cannotRun(program, error));
    });
    child.stdin?.end();
  });
}

/**
 * The same for a program whose failure is the failure of the whole: `what` starts the error's
 * message.
 */
export async function requireCommand(
  what: string,
  program: string,
  args: readonly string[],
): Promise<string> {
  const { code, stdout, complaint } = await runCommand(program, args);
  if (code === 0) return stdout;
  throw commandError(what, program, { code, stdout, complaint });
}

export function commandError(what: string, program: string, result: CommandResult): DiskError {
  const { complaint, code } = result;
  return new DiskError('failed', `${what}: ${complaint || `${program} failed with ${code}`}`);
}

function cannotRun(program: string, error: Error | null): DiskError {
  const errno = errnoName(error);
  if (errno === 'ENOENT') {
    return new DiskError('not-supported', `the program ${program} is not installed here`, {
      hint: 'it is part of util-linux and the mount package',
    });
  }
  const why = errno === undefined ? 'it was ended by a signal' : errno;
  return new DiskError('failed', `cannot run ${program}: ${why}`, { cause: error });
}

function firstLine(text: string): string {
  return text.split('\n', 1)[0]?.trim() ?? '';
}
