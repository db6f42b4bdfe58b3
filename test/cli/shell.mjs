/**
 * Runs command lines one after the other in one process, since starting one each takes most of a
 * test's time. Argument: the compiled main.js, which is loaded once. Standard input:
 * a JSON line for each, `{ id, args, cwd }`. Standard output: a JSON line for each,
 * `{ id, code, stdout, stderr }`, as a process of its own would have left them.
 */
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';

const main = process.argv[2];
const { runCommandLine } = createRequire(import.meta.url)(main);
const answer = process.stdout.write.bind(process.stdout);

/** Puts what is written to a standard stream into `texts`, as long as the command runs. */
function collect(stream, texts, name) {
  stream.write = (chunk, encoding, done) => {
    texts[name] += typeof chunk === 'string' ? chunk : Buffer.from(chunk).toString('utf8');
    const written = typeof encoding === 'function' ? encoding : done;
    if (written !== undefined) process.nextTick(written);
    return true;
  };
}

for await (const line of createInterface({ input: process.stdin })) {
  const { id, args, cwd } = JSON.parse(line);
  const texts = { stdout: '', stderr: '' };
  collect(process.stdout, texts, 'stdout');
  collect(process.stderr, texts, 'stderr');
  process.chdir(cwd);
  process.argv = [process.execPath, main, ...args];
  process.exitCode = undefined;
  await runCommandLine(args);
  const code = process.exitCode ?? 0;
  process.exitCode = undefined;
  for (const stream of [process.stdout, process.stderr]) stream.removeAllListeners('error');
  answer(`${JSON.stringify({ id, code, ...texts })}\n`);
}
