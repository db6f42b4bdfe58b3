/** The daemon's process: options, log, signals, readiness. */
import { closeSync, writeSync } from 'node:fs';
import { DiskError } from '../common/errors.js';
import { Daemon } from './daemon.js';
import { createLogger, type Logger } from './logger.js';
import { type DaemonOptions, readDaemonOptions } from './options.js';

/** How long a mount that is in use may hold up the end after a signal, milliseconds. */
const BUSY_GRACE_MS = 10_000;
const BUSY_RETRY_MS = 500;

/** What is said on the descriptor that `layerdisk daemon start` waits at. */
function announce(fd: number | undefined, message: object): void {
  if (fd === undefined) return;
  try {
    writeSync(fd, `${JSON.stringify(message)}\n`);
    closeSync(fd);
  } catch {
    // Whoever waited has gone; the log says the same.
  }
}

async function run(): Promise<number> {
  let options: DaemonOptions;
  try {
    options = readDaemonOptions(process.argv.slice(2));
  } catch (error) {
    return refuse(error, undefined, createLogger());
  }
  const log = createLogger({ level: options.logLevel });
  let daemon: Daemon;
  try {
    daemon = await Daemon.start(options, log);
  } catch (error) {
    return refuse(error, options.readyFd, log);
  }
  handleSignals(daemon, log);
  announce(options.readyFd, { ready: true });
  const end = await daemon.ended;
  log.info('ended', { end });
  return end === 'stopped' ? 0 : 1;
}

function refuse(error: unknown, readyFd: number | undefined, log: Logger): number {
  log.error('cannot start', { error });
  const known = error instanceof DiskError ? error : new DiskError('failed', String(error));
  const hint = known.hint ?? 'other places: layerdisk daemon start --help';
  announce(readyFd, { error: { ...known.toJSON(), hint } });
  return 1;
}

/**
 * A first signal ends the daemon in order; a second one does not wait for whoever uses the mount.
 */
function handleSignals(daemon: Daemon, log: Logger): void {
  let signals = 0;
  const onSignal = (signal: NodeJS.Signals): void => {
    signals += 1;
    log.info(`${signal}: ending`);
    if (signals === 1) void endPatiently(daemon, log, () => signals > 1);
  };
  process.on('SIGTERM', onSignal);
  process.on('SIGINT', onSignal);
  // The terminal is gone; the daemon is not.
  process.on('SIGHUP', () => {});
}

async function endPatiently(daemon: Daemon, log: Logger, hurry: () => boolean): Promise<void> {
  const giveUp = performance.now() + BUSY_GRACE_MS;
  let told = '';
  for (;;) {
    const force = hurry() || performance.now() > giveUp;
    try {
      await daemon.stop({ force });
      return;
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      if (message !== told) log.warn(message);
      told = message;
      if (force) return;
    }
    await new Promise((resolve) => setTimeout(resolve, BUSY_RETRY_MS));
  }
}

process.exitCode = await run();
