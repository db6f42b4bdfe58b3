/**
 * The event of `process` that carries the daemon's first word to a command line that became the
 * daemon: `{"ready":true}` or `{"error":DiskErrorJson}`, one line, once.
 */
export const READY_EVENT = 'layerdisk:ready';
