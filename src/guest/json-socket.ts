/**
 * One JSON object a line over a unix socket, one question at a time: what QMP and its kin speak.
 */
import { createConnection, type Socket } from 'node:net';
import { DiskError, errnoName } from '../common/errors.js';

export type JsonObject = Readonly<Record<string, unknown>>;

/** Longer than any answer we ask for; more is no answer. */
const MAX_LINE_CHARACTERS = 1024 * 1024;

interface Waiter {
  readonly isAnswer: (message: JsonObject) => boolean;
  readonly succeed: (message: JsonObject) => void;
  readonly fail: (error: DiskError) => void;
}

export class JsonSocket {
  readonly #socket: Socket;
  readonly #what: string;
  /** Messages that nobody waited for yet. */
  #early: JsonObject[] = [];
  #text = '';
  #waiter: Waiter | undefined;
  #ended = false;

  private constructor(socket: Socket, what: string) {
    this.#socket = socket;
    this.#what = what;
    socket.setEncoding('utf8');
    socket.on('data', (chunk: string) => this.#receive(chunk));
    // 'close' follows and tells who waits.
    socket.on('error', () => {});
    socket.on('close', () => this.#end());
  }

  /**
   * @param what names the other end in errors.
   * @throws DiskError `failed` when nobody listens there.
   */
  static async connect(path: string, what: string): Promise<JsonSocket> {
    const socket = createConnection(path);
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('error', (error) => {
        const errno = errnoName(error) ?? 'EIO';
        reject(new DiskError('failed', `cannot reach ${what} (${errno})`, { cause: error, errno }));
      });
    });
    socket.removeAllListeners('error');
    return new JsonSocket(socket, what);
  }

  send(bytes: string | Buffer): void {
    this.#socket.write(bytes);
  }

  /**
   * The next message that `isAnswer` takes; others are dropped (events, late answers).
   * @throws DiskError `failed` when the other end says nothing in time, or goes.
   */
  async receive(
    timeoutMs: number,
    isAnswer: (message: JsonObject) => boolean,
  ): Promise<JsonObject> {
    const early = this.#early.find(isAnswer);
    this.#early = [];
    if (early !== undefined) return early;
    if (this.#ended) throw new DiskError('failed', `${this.#what} closed the connection`);
    let timer: NodeJS.Timeout | undefined;
    try {
      return await new Promise<JsonObject>((succeed, fail) => {
        this.#waiter = { isAnswer, succeed, fail };
        const late = () =>
          fail(new DiskError('failed', `${this.#what} did not answer within ${timeoutMs} ms`));
        timer = setTimeout(late, timeoutMs);
      });
    } finally {
      clearTimeout(timer);
      this.#waiter = undefined;
    }
  }

  close(): void {
    this.#socket.destroy();
  }

  #receive(chunk: string): void {
    this.#text += chunk;
    const lines = this.#text.split('\n');
    this.#text = lines.pop() ?? '';
    if (this.#text.length > MAX_LINE_CHARACTERS) this.#socket.destroy();
    for (const line of lines) {
      const message = parseObject(line);
      if (message === undefined) continue;
      if (this.#waiter === undefined) this.#early.push(message);
      else if (this.#waiter.isAnswer(message)) this.#waiter.succeed(message);
    }
  }

  #end(): void {
    this.#ended = true;
    this.#waiter?.fail(new DiskError('failed', `${this.#what} closed the connection`));
  }
}

/** @returns undefined for what is no object: the agent's line may begin with a stray byte. */
function parseObject(line: string): JsonObject | undefined {
  const start = line.indexOf('{');
  if (start < 0) return undefined;
  try {
    const value: unknown = JSON.parse(line.slice(start));
    return typeof value === 'object' && value !== null ? (value as JsonObject) : undefined;
  } catch {
    // Half a line of an earlier conversation; what was asked now is answered by a whole one.
    return undefined;
  }
}
