/**
 * Makes the programs in dist/ from the modules that the compiler left in dist/modules: each program
 * with the packages it needs in a few files instead of some hundred, so that commands and daemons
 * load in a third of the time. Native packages stay where they are.
 */
import { rm } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const DIST = fileURLToPath(new URL('../dist/', import.meta.url));
const MODULES = `${DIST}modules/`;

/**
 * What is started as a process or as a thread. Those of one row share files; the command stands
 * alone, since each file more costs each command time.
 */
const PROGRAMS = [
  ['cli/main.js'],
  ['daemon/main.js', 'daemon/io-thread.js', 'daemon/background-thread.js', 'identity/main.js'],
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

await rm(`${DIST}chunks`, { recursive: true, force: true });
for (const programs of PROGRAMS) {
  await build({
    entryPoints: programs.map((program) => MODULES + program),
    outbase: MODULES,
    outdir: DIST,
    // Programs find each other by `../ROOM/FILE.js`, from a room and from here.
    chunkNames: 'chunks/[name]-[hash]',
    bundle: true,
    splitting: true,
    platform: 'node',
    format: 'esm',
    target: 'node20',
    external: NATIVE,
    plugins: [helpWhenAsked],
    banner: { js: REQUIRE },
    logLevel: 'warning',
  });
}
