/** The command as it is started: with the code that was kept for it, and without. */
import { cpSync, mkdtempSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { VERSION } from '../../src/common/version.js';
import { V8_FLAGS } from '../../src/daemon/v8-flags.js';
import { runProgram, tool } from '../support/run-program.js';

const DIST = fileURLToPath(new URL('../../dist/', import.meta.url));
const BUILT = join(DIST, 'cli');

/** Without the flags of the test runner, which V8 makes other code for. */
const node = (...args: string[]) => tool('env', ['-u', 'NODE_OPTIONS', 'node', ...args]);

t.test('V8 takes the code that was kept', async (t) => {
  const ask = 'console.log(require(process.argv[1]).script.cachedDataRejected)';
  const [command, daemon] = ['cli/main', 'daemon/serve'].map((name) => join(DIST, `${name}.js`));
  t.equal(await node('-e', ask, command as string), 'false\n', 'the command');
  t.equal(await node(...V8_FLAGS, '-e', ask, daemon as string), 'false\n', 'the daemon');
  const thread = `const { Worker } = require('node:worker_threads');
    const program = process.argv[1];
    const say = 'process.argv[1] = ' + JSON.stringify(program) + ';' + process.argv[2];
    new Worker(say + '; process.exit()', { eval: true });`;
  const taken = await node(...V8_FLAGS, '-e', thread, join(DIST, 'daemon/io-thread.js'), ask);
  t.equal(taken, 'false\n', 'a thread');
});

t.test('without it, or with other code, the command is compiled', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'layerdisk-launcher-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  cpSync(BUILT, folder, { recursive: true });
  const version = () => node(join(folder, 'main.js'), '--version');
  const cache = join(folder, 'main.cache');
  truncateSync(cache, 1000);
  t.equal(await version(), `${VERSION}\n`, 'cut off');
  writeFileSync(cache, 'of another version');
  t.equal(await version(), `${VERSION}\n`, 'something else');
  rmSync(cache);
  t.equal(await version(), `${VERSION}\n`, 'not there');
});

t.test("the command leaves a company's certificates alone, by any path", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'layerdisk-launcher-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const link = join(folder, 'a link');
  symlinkSync(join(BUILT, 'main.js'), link);
  for (const program of [link, join(BUILT, 'main.js')]) {
    // Node.js says so when it reads them and cannot.
    const words = ['-u', 'NODE_OPTIONS', 'NODE_EXTRA_CA_CERTS=/nonexistent', program, '--version'];
    t.match(await runProgram('env', words), { code: 0, stdout: `${VERSION}\n`, stderr: '' });
  }
  const ask = `require(process.argv[1]); console.log(process.env.NODE_EXTRA_CA_CERTS)`;
  t.equal(await node('-e', ask, join(BUILT, 'main.js')), 'undefined\n', 'nor do its children');
});
