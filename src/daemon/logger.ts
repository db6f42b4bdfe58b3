/** The daemon's log: one JSON object a line on stderr, where journald or a log file takes it. */
import type { Writable } from 'node:stream';
import { createLogger as createWinston, format, transports } from 'winston';
import { harmlessJson } from '../common/harmless-json.js';
import type { LogLevel } from './options.js';

/**
 * What the rooms are given to report with. Fields are anything JSON can say. Never one line per I/O
 * request.
 */
export interface Logger {
  error(message: string, fields?: object): void;
  warn(message: string, fields?: object): void;
  info(message: string, fields?: object): void;
  debug(message: string, fields?: object): void;
}

export interface LoggerOptions {
  /** The least that is written; default `info`. */
  readonly level?: LogLevel;
  /** Default stderr. */
  readonly stream?: Writable;
  /** Fields of every line, for example the process's part. */
  readonly fields?: object;
}

/** A line is `{"time":"2026-01-31T12:00:00.000Z","level":"info","message":"...", ...fields}`. */
export function createLogger(options: LoggerOptions = {}): Logger {
  const stream = options.stream ?? process.stderr;
  // A log that nobody can read any more (a closed terminal, a full disk) must not end the daemon.
  stream.on('error', () => {});
  const winston = createWinston({
    level: options.level ?? 'info',
    levels: { error: 0, warn: 1, info: 2, debug: 3 },
    format: format.combine(
      format(orderFields)(),
      format.json({ deterministic: false }),
      format(withoutEscapes)(),
    ),
    transports: [new transports.Stream({ stream, eol: '\n' })],
  });
  const write =
    (level: LogLevel) =>
    (message: string, fields: object = {}) => {
      winston.log({ ...options.fields, ...jsonFields(fields), level, message });
    };
  return { error: write('error'), warn: write('warn'), info: write('info'), debug: write('debug') };
}

/** Where the line is, once it is made. */
const LINE = Symbol.for('message');

function withoutEscapes(info: {
  level: string;
  message: unknown;
  [key: string | symbol]: unknown;
}) {
  return { ...info, [LINE]: harmlessJson(String(info[LINE])) };
}

/** Puts time, level and message first, for people who read the lines as they are. */
function orderFields(info: { level: string; message: unknown; [key: string | symbol]: unknown }) {
  // A field named `time` would stand in for the line's own.
  const { level, message, time: _, ...fields } = info;
  return { time: new Date().toISOString(), level, message, ...fields };
}

/** Errors have no enumerable fields, so JSON would say nothing of them: take what matters. */
function jsonFields(fields: object): object {
  return Object.fromEntries(
    Object.entries(fields).map(([key, value]) => [
      key,
      value instanceof Error
        ? { name: value.name, message: value.message, stack: value.stack }
        : value,
    ]),
  );
}

/** The same error again, by a program that tries and tries, says nothing new. */
export function logOnce(log: Logger): (what: string, error: unknown) => void {
  let last = '';
  return (what, error) => {
    const line = `${what}: ${error instanceof Error ? error.message : String(error)}`;
    if (line !== last) log.error(line);
    last = line;
  };
}
