/**
 * A database of SQLite's that is written to until something stops it, and what it then must hold.
 */
import { spawn } from 'node:child_process';
import { cleanEnvironment, tool } from './run-program.js';

export interface LedgerEnd {
  /** The last row whose commit was acknowledged. */
  readonly acknowledged: number;
  /** Exit status; null after a signal. */
  readonly code: number | null;
  readonly said: string;
}

export interface Ledger {
  /** Ends it after the commit under way. */
  stop(): Promise<LedgerEnd>;
  kill(): Promise<LedgerEnd>;
}

const ROW_BYTES = 3000;
/** Every commit is synced, and so is the folder after it. */
const HOW = 'pragma journal_mode = delete; pragma synchronous = extra;';

/** Commits one row after the other, each once the one before was acknowledged. */
export async function startLedger(path: string): Promise<Ledger> {
  const child = spawn('sqlite3', ['-bail', path], { env: cleanEnvironment(), stdio: 'pipe' });
  let acknowledged = 0;
  let said = '';
  let isStopping = false;
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
  const next = (): void => {
    const row = acknowledged + 1;
    child.stdin.write(`insert into ledger values (${row}, randomblob(${ROW_BYTES}));\n`);
    child.stdin.write(`select 'row ' || ${row};\n`);
  };
  child.stdin.on('error', () => {
    // It has ended: its exit status says so.
  });
  child.stderr.on('data', (chunk: Buffer) => {
    said += chunk.toString();
  });
  let pending = '';
  child.stdout.on('data', (chunk: Buffer) => {
    const lines = `${pending}${chunk.toString()}`.split('\n');
    pending = lines.pop() ?? '';
    for (const line of lines) {
      const row = /^row (\d+)$/.exec(line)?.[1];
      if (row === undefined) continue;
      acknowledged = Number(row);
      if (isStopping) child.stdin.end('.quit\n');
      else next();
    }
  });
  child.stdin.write(`${HOW}\ncreate table ledger (number integer primary key, bytes blob);\n`);
  next();
  const end = async (): Promise<LedgerEnd> => ({ code: await ended, acknowledged, said });
  return {
    stop: () => {
      isStopping = true;
      return end();
    },
    kill: () => {
      child.kill('SIGKILL');
      return end();
    },
  };
}

/** @returns what is wrong with it, undefined for nothing. */
export async function judgeLedger(path: string, acknowledged: number): Promise<string | undefined> {
  const integrity = (await tool('sqlite3', [path, 'pragma integrity_check;'])).trim();
  if (integrity !== 'ok') return `integrity_check: ${integrity}`;
  const tables = await tool('sqlite3', [path, '.tables']);
  if (tables.trim() === '') {
    return acknowledged > 0 ? `row ${acknowledged} was committed, there is no table` : undefined;
  }
  const query = 'select count(*), coalesce(max(number), 0) from ledger;';
  const [count, last] = (await tool('sqlite3', [path, query])).trim().split('|').map(Number);
  if (count !== last) return `${count} rows up to ${last}`;
  return (last ?? 0) < acknowledged
    ? `row ${acknowledged} was committed, ${last} is the last`
    : undefined;
}
