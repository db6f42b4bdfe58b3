/** A client of the control socket that can also misbehave: it sends whatever bytes it is told to. */
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
  readonly #lines: string[] = [];
  #rest = '';
  #closed = false;
  #lastId = 0;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.setEncoding('utf8');
    socket.on('data', (chunk: string) => {
      const lines = `${this.#rest}${chunk}`.split('\n');
      this.#rest = lines.pop() ?? '';
      this.#lines.push(...lines.filter((line) => line.trim() !== ''));
    });
    // The daemon may cut off whoever misbehaves; that shows as `closed`.
    socket.on('error', () => {});
    socket.on('close', () => {
      this.#closed = true;
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

  get closed(): boolean {
    return this.#closed;
  }

  send(bytes: string | Buffer): void {
    this.#socket.write(bytes);
  }

  /** Says that nothing more will come; answers may still be read. */
  end(): void {
    this.#socket.end();
  }

  /** Vanishes, as a client that crashed. */
  destroy(): void {
    this.#socket.destroy();
  }

  /** The next line from the daemon, parsed; undefined when it closed the connection first. */
  async next(): Promise<RpcAnswer | undefined> {
    const end = Date.now() + ANSWER_TIMEOUT_MS;
    while (this.#lines.length === 0) {
      if (this.#closed) return undefined;
      if (Date.now() > end) throw new Error('no answer on the control socket');
      await sleep(1);
    }
    return JSON.parse(this.#lines.shift() ?? '') as RpcAnswer;
  }

  /** @throws RpcFailure for an error, Error when the connection closes before the answer. */
  async call<T>(method: string, params: object): Promise<T> {
    this.#lastId += 1;
    const id = this.#lastId;
    this.send(`${JSON.stringify({ jsonrpc: '2.0', id, method, params })}\n`);
    for (;;) {
      const answer = await this.next();
      if (answer === undefined) throw new Error(`connection closed before ${method} was answered`);
      if (answer.id !== id) continue;
      if (answer.error !== undefined) throw new RpcFailure(answer.error);
      return answer.result as T;
    }
  }
}
