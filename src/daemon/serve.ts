/** The daemon proper as a process: log, signals, readiness, and what it says to its supervisor. */
import { DiskError, errnoName } from '../common/errors.js';
import { formatsReady } from '../formats/base.js';
import { hostError } from '../storage/exact-io.js';
import { exitNow } from '../storage/libc.js';
import { Daemon } from './daemon.js';
import { makeMallocFrugal } from './frugal-malloc.js';
import { dieLoudly } from './last-words.js';
import { LoadedThreads } from './loaded-threads.js';
import { createLogger, type Logger } from './logger.js';
import type { DaemonOptions } from './options.js';
import { announce } from './ready-line.js';
import { refuseHandover } from './refuse-handover.js';
import { SupervisorLink } from './supervisor-link.js';

/** How long a mount that is in use may hold up the end after a signal, milliseconds. */
const BUSY_GRACE_MS = 10_000;
const BUSY_RETRY_MS = 500;
/** How long threads may take to end after everything else has, those of Node's pool, too. */
const THREADS_GRACE_MS = 2000;

/** Starts a daemon and stays until it has ended. @returns the exit code. */
export async function serve(options: DaemonOptions): Promise<number> {
  makeMallocFrugal();
  const log = createLogger({ level: options.logLevel });
  const loaded = new LoadedThreads(options.transport === 'fuse-native' ? 0 : options.threads);
  await formatsReady;
  // The supervisor is told that this daemon is ready to begin: its threads should be, too.
  if (options.part === 'supervised') await loaded.loaded;
  if (options.part === 'supervised' && !canGoOn(options.store, log)) return 1;
  const link = options.part === 'supervised' ? await SupervisorLink.open() : undefined;
  // Kept ready for a death that never came.
  if (link === undefined && options.part === 'supervised') return 0;
  const die = (what: string) => (error: unknown) => dieLoudly(what, error, link);
  process.on('uncaughtException', die('a bug in the daemon'));
  process.on('unhandledRejection', die('a bug in the daemon'));
  let daemon: Daemon;
  try {
    daemon = await Daemon.start(options, log, loaded, link);
  } catch (error) {
    return refuse(error, options.readyFd, log, link);
  }
  handleEnd(daemon, log, link);
  if (link === undefined) announce(options.readyFd, { ready: true });
  else link.tell({ ready: true });
  const end = await daemon.ended;
  log.info('ended', { end });
  link?.tell({ ended: end });
  // Its threads wait for requests that go to the next daemon.
  if (end === 'restart') process.kill(process.pid, 'SIGKILL');
  // A thread that waits for requests of a file that is still open would keep the process for as
  // long.
  return endSoon(end === 'stopped' ? 0 : 1);
}

/** Said before this daemon counts as loaded: the running one then does not hand over to it. */
function canGoOn(store: string, log: Logger): boolean {
  try {
    refuseHandover(store);
    return true;
  } catch (error) {
    if (!(error instanceof DiskError)) throw error;
    log.error('cannot go on with the running mount', { error });
    SupervisorLink.refuse(error.toJSON());
    return false;
  }
}

/** Has the process end although a thread of it waits. @returns the exit code. */
function endSoon(code: number): number {
  setTimeout(() => exitNow(code), THREADS_GRACE_MS).unref();
  return code;
}

function refuse(
  error: unknown,
  readyFd: number | undefined,
  log: Logger,
  link: SupervisorLink | undefined,
): number {
  log.error('cannot start', { error });
  const known =
    errnoName(error) === undefined && !(error instanceof DiskError)
      ? new DiskError('failed', String(error))
      : hostError('cannot start', error);
  const hint = known.hint ?? 'other places: layerdisk daemon start --help';
  const said = { error: { ...known.toJSON(), hint } };
  if (link === undefined) announce(readyFd, said);
  else link.tell(said);
  // A mount that was taken over stays for the next try: its threads would keep this process.
  if (link?.adopted !== undefined) process.kill(process.pid, 'SIGKILL');
  // One that asked a mount which does not answer goes on waiting for that.
  return endSoon(1);
}

/**
 * A first signal ends the daemon in order; a second one does not wait for whoever uses the mount.
 * The supervisor's word counts apart: a service manager signals both, and means it once.
 */
function handleEnd(daemon: Daemon, log: Logger, link: SupervisorLink | undefined): void {
  const asked = { signals: 0, words: 0 };
  const isUrgent = () => Math.max(asked.signals, asked.words) > 1;
  const end = (why: string): void => {
    log.info(`${why}: ending`);
    if (asked.signals + asked.words === 1) void endPatiently(daemon, log, isUrgent);
  };
  const onSignal = (signal: NodeJS.Signals): void => {
    asked.signals += 1;
    end(signal);
  };
  process.on('SIGTERM', onSignal);
  process.on('SIGINT', onSignal);
  // The terminal is gone; the daemon is not.
  process.on('SIGHUP', () => {});
  link?.listen({
    onStop: () => {
      asked.words += 1;
      end('the supervisor was told to end');
    },
    onLost: () => log.warn('the supervisor is gone: if this daemon dies, its mount dies, too'),
  });
}

async function endPatiently(daemon: Daemon, log: Logger, hurry: () => boolean): Promise<void> {
  const giveUp = performance.now() + BUSY_GRACE_MS;
  let told = '';
  while (!hurry() && performance.now() <= giveUp) {
    try {
      await daemon.stop();
      return;
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      if (message !== told) log.warn(message);
      told = message;
    }
    await new Promise((resolve) => setTimeout(resolve, BUSY_RETRY_MS));
  }
  await daemon.stop({ force: true });
}
