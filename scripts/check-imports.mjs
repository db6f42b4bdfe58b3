/**
 * Checks who imports whom in src/: rooms only what the table allows, each risky package through one
 * door, no cycle at run time, no package that package.json does not name.
 *
 * node scripts/check-imports.mjs [PROJECT]
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  filesBelow,
  packageOf,
  parseSource,
  projectRoot,
  report,
  resolveRelative,
} from './source-tree.mjs';

/** The engine as others see it: contracts only, no I/O. */
const ENGINE_CONTRACTS = [
  'engine/base.ts',
  'engine/block-device.ts',
  'engine/delta-id.ts',
  'engine/disk-image.ts',
  'engine/engine.ts',
];
/** The ways into the formats; what lies behind them is nobody else's business. */
const FORMAT_DOORS = ['formats/registry.ts', 'formats/open-chain.ts', 'formats/image-map.ts'];
/** Besides: a foreign chain as the engine's base, which only the daemon hands to the engine. */
const BASE_DOORS = ['formats/base.ts', 'formats/fingerprint.ts'];

/**
 * What readers of foreign files share: their errors, where names in such files may lead, and how
 * files of other kinds are told.
 */
const UNTRUSTED_FILES = [
  'formats/foreign-magic.ts',
  'formats/image-error.ts',
  'formats/sibling-path.ts',
];
/** What a machine file says: the contract and the way in. */
const MACHINE_DOORS = ['machines/machine.ts', 'machines/read-machine.ts', 'machines/digests.ts'];
/** Machine files that point at the exposed disks. */
const MACHINE_WRITERS = [
  'machines/machine-output.ts',
  'machines/write-libvirt.ts',
  'machines/write-vbox.ts',
  'machines/write-vmx.ts',
  'formats/raw-descriptor.ts',
];
/** Writing images: the daemon's background thread does it. */
const WRITE_DOORS = ['formats/write-image.ts', 'formats/choose-writing.ts'];

/** room -> what it may import besides itself: folders (ending in `/`) or files, below src/. */
const ROOMS = {
  common: [],
  storage: ['common/'],
  engine: ['storage/', 'common/'],
  formats: [...ENGINE_CONTRACTS, 'storage/', 'common/'],
  machines: [...UNTRUSTED_FILES, 'storage/', 'common/'],
  vm: [
    ...FORMAT_DOORS,
    'machines/machine.ts',
    'machines/write-ova.ts',
    'engine/',
    'storage/',
    'common/',
  ],
  transport: [
    ...['engine/block-device.ts', 'storage/libc.ts', 'storage/positioned-io.ts'],
    'storage/descriptor-passing.ts',
    ...['host/mountinfo.ts', 'common/'],
  ],
  control: ['common/'],
  guest: ['storage/', 'common/'],
  host: ['common/'],
  identity: ['host/', 'common/'],
  daemon: [
    ...['common/', 'storage/', 'engine/', 'vm/', 'transport/', 'control/', 'guest/', 'host/'],
    ...FORMAT_DOORS,
    ...BASE_DOORS,
    ...MACHINE_DOORS,
    ...MACHINE_WRITERS,
    ...WRITE_DOORS,
  ],
  cli: [
    ...['control/', 'guest/', 'identity/', 'host/kernel-files.ts', 'common/'],
    ...FORMAT_DOORS,
    ...ENGINE_CONTRACTS,
  ],
};

/**
 * Folders of a large room: what each may import of its own room. `` is what lies in none of them:
 * contracts and what all share. The face puts the folders together; no folder knows it.
 */
const PARTS = {
  engine: {
    face: 'engine/local-engine.ts',
    mayImport: {
      '': [],
      shared: [''],
      delta: [''],
      volume: ['', 'shared', 'delta'],
      opening: ['', 'shared', 'delta', 'volume'],
      jobs: ['', 'shared', 'delta', 'volume', 'opening'],
    },
  },
  vm: {
    face: 'vm/vm-service.ts',
    mayImport: { store: [], '': ['store'], exchange: ['', 'store'], upkeep: ['', 'store'] },
  },
};

/** Programs that are started, not imported: who starts them. */
const STARTED_BY = { 'daemon/main.ts': 'cli/daemon-process.ts' };

/** package -> the only places in src/ that may import it, and why. */
const PACKAGE_DOORS = {
  koffi: { places: /^storage\//, why: 'foreign calls live in storage' },
  'fuse-native': {
    places: /^transport\/(.+\/)?native-[a-z-]+\.ts$/,
    why: 'its quirks end in the native channel',
  },
  'fast-xml-parser': {
    places: /^machines\/xml\.ts$/,
    why: 'XML is bounded before it is parsed, in one place',
  },
  tar: {
    places: /^machines\/tar-[a-z-]+\.ts$/,
    why: 'archives are read by their headers, in one place',
  },
  winston: { places: /^daemon\/logger\.ts$/, why: 'the daemon has one logger' },
  yargs: { places: /^cli\//, why: 'only the command line parses arguments' },
  'node:fs': {
    // Formats have one place that looks at names; both ends of the socket look at its file.
    places: new RegExp(
      '^((storage|engine|vm|transport|guest|host|identity|daemon|cli)/' +
        '|formats/sibling-path.ts$|control/(client|listener).ts$)',
    ),
    except: new RegExp(`^(${ENGINE_CONTRACTS.join('|')})$`),
    why: 'bytes of the host come in through storage',
  },
};

function main() {
  const root = projectRoot();
  const sources = filesBelow(root, 'src')
    .filter((path) => path.endsWith('.ts'))
    .map((path) => parseSource(root, path));
  const dependencies = declaredDependencies(root);
  const findings = sources.flatMap((source) => [
    ...checkSource(source, new Set(sources.map(({ path }) => path))),
    ...checkPackages(source, dependencies),
  ]);
  findings.push(...unusedDependencies(sources, dependencies), ...cycles(sources));
  report('imports', findings, sources.length);
}

function declaredDependencies(root) {
  const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  return new Set(Object.keys(manifest.dependencies ?? {}));
}

function checkSource(source, paths) {
  const findings = [];
  for (const { specifier, line, kind } of source.imports) {
    const target = resolveRelative(source.path, specifier);
    if (target === undefined || (kind === 'named' && !paths.has(target))) continue;
    const what = paths.has(target)
      ? forbiddenFile(source.path.slice('src/'.length), target.slice('src/'.length))
      : missingFile(specifier, target);
    if (what !== undefined) findings.push({ path: source.path, line, what });
  }
  return findings;
}

function missingFile(specifier, target) {
  if (!target.startsWith('src/')) return `imports ${specifier}, which lies outside src/`;
  // A folder or a data file reached through new URL().
  if (!target.endsWith('.ts')) return undefined;
  return `imports ${specifier}, but there is no ${target}`;
}

/** @returns why `from` may not import `to` (both below src/), undefined when it may */
function forbiddenFile(from, to) {
  const fromRoom = roomOf(from);
  // Files directly in src/ only re-export.
  if (fromRoom === undefined) return undefined;
  const allowed = ROOMS[fromRoom];
  if (allowed === undefined) return `${fromRoom} is no room of the table in check-imports.mjs`;
  if (roomOf(to) === fromRoom) return forbiddenFormat(from, to) ?? forbiddenPart(from, to);
  if (STARTED_BY[to] === from) return undefined;
  if (allowed.some((place) => (place.endsWith('/') ? to.startsWith(place) : to === place))) {
    return undefined;
  }
  const list = allowed.length === 0 ? 'nothing of ours' : allowed.join(', ');
  return `${fromRoom} may not import ${to} (it may import ${list})`;
}

function roomOf(path) {
  const slash = path.indexOf('/');
  return slash < 0 ? undefined : path.slice(0, slash);
}

/** Each format stands alone: it knows neither another format nor who opens it. */
function forbiddenFormat(from, to) {
  const [room, fromFormat, ...rest] = from.split('/');
  if (room !== 'formats' || rest.length === 0) return undefined;
  const [, toFormat, ...toRest] = to.split('/');
  if (toRest.length > 0 && toFormat !== fromFormat) {
    return `format ${fromFormat} may not import format ${toFormat}`;
  }
  if (FORMAT_DOORS.includes(to)) return `format ${fromFormat} may not import ${to}`;
  return undefined;
}

/** Within a large room, too, imports go one way. */
function forbiddenPart(from, to) {
  const parts = PARTS[roomOf(from)];
  if (parts === undefined || from === parts.face) return undefined;
  if (to === parts.face) return `only other rooms may import ${to}`;
  const [fromPart, toPart] = [partOf(from), partOf(to)];
  if (fromPart === toPart || parts.mayImport[fromPart]?.includes(toPart)) return undefined;
  return `${from.slice(0, from.lastIndexOf('/'))} may not import ${to}`;
}

function partOf(path) {
  return path.split('/').slice(1, -1).join('/');
}

function checkPackages(source, dependencies) {
  const findings = [];
  const place = source.path.slice('src/'.length);
  for (const { specifier, line, kind } of source.imports) {
    if (specifier.startsWith('.')) continue;
    const name = packageOf(specifier);
    if (!name.startsWith('node:') && !dependencies.has(name) && kind !== 'type') {
      const what = `imports ${name}, which is not in the dependencies of package.json`;
      findings.push({ path: source.path, line, what });
    }
    const door = PACKAGE_DOORS[name];
    if (door === undefined || (door.places.test(place) && !door.except?.test(place))) continue;
    findings.push({ path: source.path, line, what: `may not import ${name}: ${door.why}` });
  }
  return findings;
}

function unusedDependencies(sources, dependencies) {
  const used = new Set(
    sources.flatMap(({ imports }) => imports.map(({ specifier }) => packageOf(specifier))),
  );
  return [...dependencies]
    .filter((name) => !used.has(name))
    .map((name) => ({ path: 'package.json', line: 1, what: `nothing in src/ imports ${name}` }));
}

/** Modules that load each other: whichever runs first sees the other half-made. */
function cycles(sources) {
  const findings = [];
  const byPath = new Map(sources.map((source) => [source.path, source]));
  const done = new Set();
  const trail = [];
  const visit = (source) => {
    if (done.has(source.path)) return;
    const start = trail.indexOf(source.path);
    if (start >= 0) {
      const loop = [...trail.slice(start), source.path].join(' -> ');
      findings.push({ path: source.path, line: 1, what: `import cycle: ${loop}` });
      return;
    }
    trail.push(source.path);
    for (const { specifier, kind } of source.imports) {
      const next = byPath.get(resolveRelative(source.path, specifier) ?? '');
      if (next !== undefined && kind === 'now') visit(next);
    }
    trail.pop();
    done.add(source.path);
  };
  for (const source of sources) visit(source);
  return findings;
}

main();
