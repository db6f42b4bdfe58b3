/** How a process ends that found a fault of its own: at once, saying so. */
import { logPlainly } from './plain-log.js';
import type { SupervisorLink } from './supervisor-link.js';

/**
 * Ends this process. By a signal, since `process.exit` would wait for threads that wait for
 * requests; nothing acknowledged is lost by that.
 */
export function dieLoudly(what: string, error: unknown, link?: SupervisorLink): never {
  const { name, message, stack } = error instanceof Error ? error : new Error(String(error));
  logPlainly('error', `${what}: ending`, { error: { name, message, stack } });
  link?.tell({ crash: `${what}: ${message}` });
  process.kill(process.pid, 'SIGKILL');
  // Not reached: a signal to oneself arrives before the call returns.
  throw error;
}
