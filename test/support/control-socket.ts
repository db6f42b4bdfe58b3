/**
 * A client of the control socket that can also misbehave: it sends whatever bytes it is told to.
 */
import { createConnection, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

const ANSWER_TIMEOUT_MS = 60_000;

export interface RpcAnswer {
  readonly id?: number | string | null;
  readonly method?: string;
  readonly result?: unknown;
  readonly error?: {
    readonly code: number;
    readonly message: string;
    readonly data?: { readonly code: string; readonly message: string; readonly hint?: string };
  };
}

/** An error that the daemon answered with. */
export class RpcFailure extends Error {
  readonly code: string;

  constructor(error: NonNullable<RpcAnswer['error']>) {
    super(error.data?.message ?? error.message);
    this.code = error.data?.code ?? '';
  }
}

export class ControlSocket {
  readonly #socket: Socket;
  /** Lines that answer no call under way. */
  readonly #others: RpcAnswer[] = [];
  readonly #calls = new Map<number, (answer: RpcAnswer | undefined) => void>();
  #rest = '';
  #closed = false;
  #lastId = 0;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.setEncoding('utf8');
    socket.on('data', (chunk: string) => this.#receive(chunk));
    // The daemon may cut off whoever misbehaves; that shows as `closed`.
    socket.on('error', () => {});
    socket.on('close', () => {
      this.#closed = true;
      for (const settle of this.#calls.values()) settle(undefined);
    });
  }

  static connect(path: string): Promise<ControlSocket> {
    return new Promise((resolve, reject) => {
      const socket = createConnection(path);
      socket.once('error', reject);
      socket.once('connect', () => {
        socket.off('error', reject);
        resolve(new ControlSocket(socket));
      });
    });
  }

  #receive(chunk: string): void {
    const lines = `${this.#rest}${chunk}`.split('\n');
    this.#rest = lines.pop() ?? '';
    for (const line of lines) {
      if (line.trim() === '') continue;
      const answer = JSON.parse(line) as RpcAnswer;
      const settle = typeof answer.id === 'number' ? this.#calls.get(answer.id) : undefined;
      if (settle === undefined) this.#others.push(answer);
      else settle(answer);
    }
  }

  get closed(): boolean {
    return this.#closed;
  }

  send(bytes: string | Buffer): void {
    this.#socket.write(bytes);
  }

  /** Vanishes, as a client that crashed. */
  destroy(): void {
    this.#socket.destroy();
  }

  /**
   * The next line that answers no `call`; undefined when the daemon closed the connection first.
   */
  async next(): Promise<RpcAnswer | undefined> {
    const end = Date.now() + ANSWER_TIMEOUT_MS;
    while (this.#others.length === 0) {
      if (this.#closed) return undefined;
      if (Date.now() > end) throw new Error('no answer on the control socket');
      await sleep(1);
    }
    return this.#others.shift();
  }

  /** @throws RpcFailure for an error, Error when the connection closes before the answer. */
  async call<T>(method: string, params: object): Promise<T> {
    this.#lastId += 1;
    const id = this.#lastId;
    const answered = new Promise<RpcAnswer | undefined>((resolve) => this.#calls.set(id, resolve));
    this.send(`${JSON.stringify({ jsonrpc: '2.0', id, method, params })}\n`);
    const answer = await answered.finally(() => this.#calls.delete(id));
    if (answer === undefined) throw new Error(`connection closed before ${method} was answered`);
    if (answer.error !== undefined) throw new RpcFailure(answer.error);
    return answer.result as T;
  }
}
