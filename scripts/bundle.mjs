/**
 * Makes the programs in dist/ from the modules that the compiler left in dist/modules: each program
 * with the packages it needs in a few files instead of some hundred, so that commands and daemons
 * load in a third of the time. Native packages stay where they are.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmod, readdir, readFile, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const DIST = fileURLToPath(new URL('../dist/', import.meta.url));
const MODULES = `${DIST}modules/`;
/** Written by the compiler, therefore not there before. */
const { V8_FLAGS } = await import(`${MODULES}daemon/v8-flags.js`);
const NATIVE = ['koffi', 'fuse-native', '@node-rs/crc32'];
/** Packages of the older kind ask for Node's own modules with it. */
const REQUIRE = [
  "import { createRequire as requireFrom } from 'node:module';",
  'const require = requireFrom(import.meta.url);',
].join('\n');

/**
 * What yargs needs for help texts alone, and what takes a third of the time that commands need to
 * start (tables of all emoji, for their width): it is set up with the first call.
 */
const OF_HELP = /^(cliui|string-width)$/;
const helpWhenAsked = {
  name: 'help-when-asked',
  setup(bundler) {
    bundler.onResolve({ filter: OF_HELP }, ({ path, kind, importer, resolveDir }) => {
      if (kind !== 'import-statement' || !importer.includes('/yargs/')) return undefined;
      return { path, namespace: 'later', pluginData: { resolveDir } };
    });
    bundler.onLoad({ filter: OF_HELP, namespace: 'later' }, ({ path, pluginData }) => ({
      contents: `export default (...words) => require('${path}').default(...words);`,
      resolveDir: pluginData.resolveDir,
    }));
  },
};

/** Commands look at images, but read no data of them: the decoder would only be loaded. */
const noDecoder = {
  name: 'no-decoder',
  setup(bundler) {
    bundler.onLoad({ filter: /\/formats\/qcow2\/zstd\.js$/ }, () => ({
      contents: `export function unpackZstd() {
        throw new Error('a command reads data of an image');
      }
      export const decoderReady = Promise.resolve();`,
    }));
  },
};

/** Only modules wait at their top: a program that unpacks waits for the decoder by itself. */
const WAITING = '\nawait decoderReady;\n';
const noWaiting = {
  name: 'no-waiting',
  setup(bundler) {
    bundler.onLoad({ filter: /\/formats\/qcow2\/zstd\.js$/ }, async ({ path }) => {
      const text = await readFile(path, 'utf8');
      if (!text.includes(WAITING)) throw new Error(`${path} has no${WAITING}`);
      return { contents: text.replace(WAITING, '\n') };
    });
  },
};

/** A program of its own, which a supervisor does not load. */
const serveApart = {
  name: 'serve-apart',
  setup(bundler) {
    bundler.onResolve({ filter: /^\.\/serve\.js$/ }, ({ path }) => ({ path, external: true }));
  },
};

/** See src/common/build-id.ts. The same sources give the same one. */
async function buildId() {
  const hash = createHash('sha256');
  const names = (await readdir(MODULES, { recursive: true })).filter((name) => /\.js$/.test(name));
  for (const name of names.sort()) hash.update(`${name}\0`).update(await readFile(MODULES + name));
  return hash.digest('hex').slice(0, 32);
}

const BUILD = JSON.stringify(await buildId());
const COMMON = {
  bundle: true,
  platform: 'node',
  target: 'node20',
  external: NATIVE,
  logLevel: 'warning',
};

/**
 * A shell script in its first two lines, which keeps Node.js from reading the certificates that a
 * company adds: they double what it takes to start, and nothing here speaks TLS
 * (native-notes/copying.md). For JavaScript the second line is a word and a comment.
 */
const SHELL = `#!/bin/sh
':' //; unset NODE_EXTRA_CA_CERTS; exec node "$0" "$@"`;

/** V8 keeps code of programs of the older kind only. */
async function makeProgram(room, name, plugins) {
  const path = `${DIST}${room}/${name}`;
  await build({
    ...COMMON,
    entryPoints: [`${MODULES}${room}/${name}.js`],
    outfile: `${path}.cjs`,
    format: 'cjs',
    define: { 'import.meta.url': 'programUrl', LAYERDISK_BUILD: BUILD },
    banner: { js: "const programUrl = require('node:url').pathToFileURL(__filename).href;" },
    plugins,
    // Code that was kept does not know who is to import for it.
    supported: { 'dynamic-import': false },
  });
  const launcher = await readFile(new URL('launcher.cjs', import.meta.url), 'utf8');
  await writeFile(`${path}.js`, `${SHELL}\n${launcher}`);
  await chmod(`${path}.js`, 0o755);
  await writeFile(`${DIST}${room}/package.json`, '{ "type": "commonjs" }\n');
}

/** What keeps V8's code of a program, with what `work` (an async function of it) has run of it. */
function keepCode(name, work = 'async () => {}') {
  const path = JSON.stringify(DIST + name);
  return `
    const program = require(${path} + '.js');
    (${work})(program).then(() => {
      require('node:fs').writeFileSync(${path} + '.cache', program.script.createCachedData());
      process.exit(0);
    });`;
}

function run(script, flags) {
  execFileSync(process.execPath, [...flags, '-e', script], { stdio: 'ignore' });
}

function runInThread(script, flags) {
  const thread = "new (require('node:worker_threads').Worker)";
  run(`${thread}(${JSON.stringify(script)}, { eval: true });`, flags);
}

await build({
  ...COMMON,
  entryPoints: [`${MODULES}identity/main.js`],
  outfile: `${DIST}identity/main.js`,
  format: 'esm',
  banner: { js: REQUIRE },
});
await makeProgram('cli', 'main', [helpWhenAsked, noDecoder]);
await makeProgram('daemon', 'main', [serveApart]);
for (const name of ['serve', 'io-thread', 'background-thread']) {
  await makeProgram('daemon', name, [noWaiting]);
}

// What a command line runs that gets as far as asking a daemon is what is worth keeping.
const ASK = "(it) => it.runCommandLine(['list', '--quiet', '--socket', '/nonexistent/socket'])";
run(keepCode('cli/main', ASK), []);
run(keepCode('daemon/serve'), V8_FLAGS);
runInThread(keepCode('daemon/io-thread'), V8_FLAGS);
