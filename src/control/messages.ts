/**
 * The JSON-RPC 2.0 envelope: what a request, an answer and a notification look like, and reading
 * them safely.
 */
import { DiskError, type DiskErrorJson, ERROR_CODES, type ErrorCode } from '../common/errors.js';

/** Codes of the JSON-RPC specification, and (`CANCELLED`) of the Language Server Protocol. */
export const RPC = {
  PARSE_ERROR: -32700,
  INVALID_REQUEST: -32600,
  METHOD_NOT_FOUND: -32601,
  INVALID_PARAMS: -32602,
  INTERNAL_ERROR: -32603,
  /** A `DiskError` of the operation; its own code is in `data.code`. */
  OPERATION_FAILED: -32000,
  CANCELLED: -32800,
} as const;

export const CANCEL_METHOD = '$/cancelRequest';
export const PROGRESS_METHOD = 'progress';
export const EVENT_METHOD = 'event';

const MAX_MESSAGE_CHARACTERS = 500;
const MAX_ID_CHARACTERS = 128;
const CONTROL_CHARACTERS =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: what no log may hold
  /[\u0000-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]+/g;

export type RequestId = number | string;

export interface RpcError {
  readonly code: number;
  readonly message: string;
  readonly data: DiskErrorJson;
}

/** A line that came in, as far as it could be understood. */
export type Incoming =
  | { kind: 'request'; id: RequestId; method: string; params: unknown }
  | { kind: 'notification'; method: string; params: unknown }
  | { kind: 'answer'; id: RequestId; result: unknown }
  | { kind: 'failure'; id: RequestId | null; error: RpcError }
  | { kind: 'malformed'; id: RequestId | null; code: number; reason: string };

/** Text from the other end, made fit for one line of a terminal or a log. */
export function oneLine(text: string): string {
  const line = text.replace(CONTROL_CHARACTERS, ' ').trim();
  return line.length > MAX_MESSAGE_CHARACTERS
    ? `${line.slice(0, MAX_MESSAGE_CHARACTERS)}...`
    : line;
}

/** Reads one line. Never throws: what is wrong with it is in the result. */
export function parseMessage(line: string): Incoming {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    return malformed(null, RPC.PARSE_ERROR, 'not a JSON document');
  }
  if (Array.isArray(value)) {
    return malformed(
      null,
      RPC.INVALID_REQUEST,
      'batches are not supported: send one object a line',
    );
  }
  if (!isRecord(value)) return malformed(null, RPC.INVALID_REQUEST, 'not a JSON object');
  return classify(value);
}

function classify(message: Record<string, unknown>): Incoming {
  const id = isRequestId(message.id) ? message.id : null;
  if (message.jsonrpc !== '2.0') {
    return malformed(id, RPC.INVALID_REQUEST, '"jsonrpc" must be "2.0"');
  }
  if (typeof message.method === 'string') {
    const { method } = message;
    const params = message.params ?? {};
    if (message.id === undefined) return { kind: 'notification', method, params };
    if (id === null) {
      return malformed(null, RPC.INVALID_REQUEST, '"id" must be a number or a short string');
    }
    return { kind: 'request', id, method, params };
  }
  if (isRecord(message.error)) return { kind: 'failure', id, error: readError(message.error) };
  if (id !== null && 'result' in message) return { kind: 'answer', id, result: message.result };
  return malformed(id, RPC.INVALID_REQUEST, '"method" must be a string');
}

function malformed(id: RequestId | null, code: number, reason: string): Incoming {
  return { kind: 'malformed', id, code, reason };
}

/** An error as it arrives: every field checked, since the other end may be anything. */
function readError(error: Record<string, unknown>): RpcError {
  const code = typeof error.code === 'number' ? error.code : RPC.INTERNAL_ERROR;
  const message = oneLine(typeof error.message === 'string' ? error.message : 'unknown error');
  const data = isRecord(error.data) ? error.data : {};
  return {
    code,
    message,
    data: {
      code: isErrorCode(data.code) ? data.code : 'failed',
      message: typeof data.message === 'string' ? oneLine(data.message) : message,
      ...(typeof data.hint === 'string' ? { hint: oneLine(data.hint) } : {}),
      ...(typeof data.errno === 'string' ? { errno: oneLine(data.errno) } : {}),
    },
  };
}

/** An operating error as the error member of an answer. */
export function rpcError(code: number, error: DiskError): RpcError {
  return { code, message: error.message, data: error.toJSON() };
}

/**
 * What a user hears of a request that came to nothing: the words he typed, not the method's name.
 * @param why where it was not he who cancelled it.
 */
export function cancelled(method: string, params: unknown, why?: string): DiskError {
  const { vm, snapshot } = isRecord(params) ? params : {};
  const target =
    typeof vm !== 'string' ? '' : typeof snapshot === 'string' ? `${vm}@${snapshot}` : vm;
  // `export.ova` is an export to who asked for it.
  const command = method.replace(/^(export|run)\..*$/, '$1').replace('.', ' ');
  const work = oneLine(`${command} ${target}`);
  const message = why === undefined ? `${work} was cancelled` : `${work} was broken off: ${why}`;
  return new DiskError('interrupted', message);
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

export function isRequestId(value: unknown): value is RequestId {
  if (typeof value === 'string') return value.length <= MAX_ID_CHARACTERS;
  // 1e999 is Infinity to JSON.parse and null to JSON.stringify: nobody could know the answer by it.
  return Number.isFinite(value);
}

function isErrorCode(value: unknown): value is ErrorCode {
  return ERROR_CODES.some((code) => code === value);
}
