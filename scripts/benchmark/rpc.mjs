/**
 * A client of the control socket, so that the start of a process is not measured with a request.
 */
import { connect } from 'node:net';
import { createInterface } from 'node:readline';

export async function connectTo(socketPath) {
  const socket = connect(socketPath);
  await new Promise((resolve, reject) => {
    socket.once('connect', resolve);
    socket.once('error', reject);
  });
  const waiting = new Map();
  createInterface({ input: socket }).on('line', (line) => {
    const { id, result, error } = JSON.parse(line);
    const call = waiting.get(id);
    if (call === undefined) return; // A notice of progress.
    waiting.delete(id);
    if (error === undefined) call.resolve(result);
    else call.reject(new Error(error.message));
  });
  let last = 0;
  return {
    call(method, params = {}) {
      last += 1;
      socket.write(`${JSON.stringify({ jsonrpc: '2.0', id: last, method, params })}\n`);
      return new Promise((resolve, reject) => waiting.set(last, { resolve, reject }));
    },
    close: () => socket.destroy(),
  };
}
