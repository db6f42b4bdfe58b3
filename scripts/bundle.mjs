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

/** What is started as a process or as a thread. */
const PROGRAMS = [
  'cli/main.js',
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

await rm(`${DIST}chunks`, { recursive: true, force: true });
await build({
  entryPoints: PROGRAMS.map((program) => MODULES + program),
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
  banner: { js: REQUIRE },
  logLevel: 'warning',
});
