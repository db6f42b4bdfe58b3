/**
 * Makes the programs in dist/ from the modules that the compiler left in dist/modules: each program
 * with the packages it needs in a few files instead of some hundred, so that commands and daemons
 * load in a third of the time. Native packages stay where they are.
 */
import { execFileSync } from 'node:child_process';
import { chmod, copyFile, rm, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const DIST = fileURLToPath(new URL('../dist/', import.meta.url));
const MODULES = `${DIST}modules/`;

/** What the daemon starts as processes and threads. */
const PROGRAMS = [
  'daemon/main.js',
  'daemon/io-thread.js',
  'daemon/background-thread.js',
  'identity/main.js',
];
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
      }`,
    }));
  },
};

const COMMON = {
  bundle: true,
  platform: 'node',
  target: 'node20',
  external: NATIVE,
  logLevel: 'warning',
};

await rm(`${DIST}chunks`, { recursive: true, force: true });
await build({
  ...COMMON,
  entryPoints: PROGRAMS.map((program) => MODULES + program),
  outbase: MODULES,
  outdir: DIST,
  // Programs find each other by `../ROOM/FILE.js`, from a room and from here.
  chunkNames: 'chunks/[name]-[hash]',
  splitting: true,
  format: 'esm',
  banner: { js: REQUIRE },
});

/** The command is one file of the older kind: V8 keeps no code of the newer one. */
const COMMAND = `${DIST}cli/`;
await build({
  ...COMMON,
  entryPoints: [`${MODULES}cli/main.js`],
  outfile: `${COMMAND}program.cjs`,
  format: 'cjs',
  define: { 'import.meta.url': 'programUrl' },
  banner: { js: "const programUrl = require('node:url').pathToFileURL(__filename).href;" },
  plugins: [helpWhenAsked, noDecoder],
  // Code that was kept does not know who is to import for it.
  supported: { 'dynamic-import': false },
});
await copyFile(new URL('launcher.cjs', import.meta.url), `${COMMAND}main.js`);
await chmod(`${COMMAND}main.js`, 0o755);
await writeFile(`${COMMAND}package.json`, '{ "type": "commonjs" }\n');
// What a command line runs that gets as far as asking a daemon is what is worth keeping.
const KEEP_CODE = `
  const { script, runCommandLine } = require('./main.js');
  const { writeFileSync } = require('node:fs');
  runCommandLine(['list', '--quiet', '--socket', '/nonexistent/socket']).then(() => {
    writeFileSync('program.cache', script.createCachedData());
    process.exitCode = 0;
  });`;
execFileSync(process.execPath, ['-e', KEEP_CODE], { cwd: COMMAND, stdio: 'ignore' });
