/**
 * The end of a run from outside: what is being measured is given up, and everything that was
 * started is ended in order.
 */
const controller = new AbortController();
const EXIT_CODES = { SIGINT: 130, SIGTERM: 143 };

for (const [signal, code] of Object.entries(EXIT_CODES)) {
  process.on(signal, () => {
    process.exitCode = code;
    controller.abort(new Error('interrupted'));
  });
}

/** For whatever takes long; not for cleaning up. */
export const interrupted = controller.signal;
