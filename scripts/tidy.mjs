/**
 * The house rules that a machine can check: lengths, a sentence of purpose in every file, no dead
 * file, no module-level mutable state, no leftovers, nothing that belongs to one machine.
 *
 * node scripts/tidy.mjs [PROJECT]
 */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { homedir, hostname } from 'node:os';
import { basename, join, resolve } from 'node:path';
import ts from 'typescript';
import { filesBelow, lineOf, parseSource, projectRoot, report } from './source-tree.mjs';
import { unreachableFiles } from './unreachable-files.mjs';

const MAX_FILE_LINES = 400;
const MAX_FUNCTION_LINES = 60;
const MAX_COLUMNS = 100;
const FOLDERS = ['src', 'test', 'scripts', '.ci'];
/** Names that say nothing about what is inside. */
const EMPTY_NAMES = /^(utils?|helpers?|misc|common|stuff)\.(ts|mjs|sh)$/;

/** Leftovers; each pattern is written so that it does not match its own line. */
const LEFTOVERS = [
  [/\b(?:TO[D]O|FIX[M]E|X{3})\b/, 'leftover note: do it, or say in the commit why not'],
  [/@ts-(?:ignore|nocheck)\b/, 'the type checker is switched off here'],
  [/\bt\.only\(|\bonly: *true\b/, 'a test that keeps the others from running'],
  [/^\s*debugger;/, 'a break point'],
];

function main() {
  const root = projectRoot();
  const paths = FOLDERS.flatMap((folder) => filesBelow(root, folder));
  const findings = [];
  for (const path of paths) {
    if (isScript(root, path) || /\.(ts|mjs|js)$/.test(path))
      findings.push(...checkText(root, path));
  }
  const code = paths.filter((path) => /\.(ts|mjs)$/.test(path) && !path.endsWith('.d.ts'));
  const sources = code.map((path) => parseSource(root, path));
  for (const source of sources) findings.push(...checkCode(source));
  for (const path of unreachableFiles(sources)) {
    findings.push({ path, line: 1, what: 'dead file: nothing that runs leads to it' });
  }
  const kept = keptFiles(root);
  findings.push(...machineTraces(root, kept), ...lockedHosts(root));
  report('tidy', findings, kept.length);
}

/** A shell script has no extension, only its first line. */
function isScript(root, path) {
  if (basename(path).includes('.')) return false;
  return readFileSync(join(root, path), 'utf8').startsWith('#!');
}

function checkText(root, path) {
  const lines = readFileSync(join(root, path), 'utf8').replace(/\n$/, '').split('\n');
  const findings = [];
  const say = (line, what) => findings.push({ path, line, what });
  if (lines.length > MAX_FILE_LINES) {
    say(lines.length, `file has ${lines.length} lines; split it by noun at ${MAX_FILE_LINES}`);
  }
  if (EMPTY_NAMES.test(basename(path))) say(1, 'the file name says nothing about what is inside');
  if (!opensWithPurpose(lines)) say(1, 'the file does not open with a comment on its purpose');
  lines.forEach((text, index) => {
    const columns = [...text].length;
    if (columns > MAX_COLUMNS) say(index + 1, `${columns} columns; ${MAX_COLUMNS} is the limit`);
    for (const [pattern, what] of LEFTOVERS) if (pattern.test(text)) say(index + 1, what);
  });
  return findings;
}

function opensWithPurpose(lines) {
  const first = lines[0]?.startsWith('#!') ? 1 : 0;
  const opening = lines.slice(first, first + 2).join(' ');
  return /^(\/\*\*|\/\/|#) *(\* )?\S+( \S+){2}/.test(opening);
}

function checkCode(source) {
  const findings = [];
  const { path, tree } = source;
  const visit = (node) => {
    if (ts.isFunctionLike(node) && node.body !== undefined) {
      const lines = lineOf(tree, node.end) - lineOf(tree, node.getStart()) + 1;
      if (lines > MAX_FUNCTION_LINES) {
        const what = `${functionName(node)} has ${lines} lines; ${MAX_FUNCTION_LINES} is the limit`;
        findings.push({ path, line: lineOf(tree, node.getStart()), what });
      }
    }
    ts.forEachChild(node, visit);
  };
  visit(tree);
  if (path.startsWith('src/')) findings.push(...mutableState(path, tree));
  return findings;
}

function functionName(node) {
  const named = node.name ?? (ts.isVariableDeclaration(node.parent) ? node.parent.name : undefined);
  return named === undefined ? 'function' : named.getText();
}

/** One daemon serves many disks: what changes belongs to an object that somebody owns. */
function mutableState(path, tree) {
  const what = 'module-level mutable state: give it to an object that somebody owns';
  return tree.statements
    .filter(
      (node) =>
        ts.isVariableStatement(node) &&
        (node.declarationList.flags & ts.NodeFlags.Const) === 0 &&
        !node.modifiers?.some(({ kind }) => kind === ts.SyntaxKind.DeclareKeyword),
    )
    .map((node) => ({ path, line: lineOf(tree, node.getStart()), what }));
}

/**
 * What the project keeps: what git tracks or would track; outside of git, everything but the build.
 */
function keptFiles(root) {
  if (existsSync(join(root, '.git'))) {
    const args = ['-C', root, 'ls-files', '-z', '--cached', '--others', '--exclude-standard'];
    const listed = execFileSync('git', args, { encoding: 'utf8' }).split('\0');
    return listed.filter((path) => path !== '' && existsSync(join(root, path)));
  }
  return filesBelow(root, '.').filter((path) => !/^(dist|\.tap)\//.test(path));
}

/** The project runs anywhere: nothing in it may name the place where it happened to be written. */
function machineTraces(root, paths) {
  const traces = ownPlaces(resolve(root));
  const findings = [];
  for (const path of paths) {
    const bytes = readFileSync(join(root, path), { flag: 'r' });
    if (bytes.includes(0)) continue;
    bytes
      .toString('utf8')
      .split('\n')
      .forEach((text, index) => {
        for (const { pattern, name } of traces) {
          if (pattern.test(text)) {
            findings.push({ path, line: index + 1, what: `names ${name}` });
          }
        }
      });
  }
  return findings;
}

/** Places every system has, so that naming them gives nothing away. */
const STANDARD_TOPS = /^\/(bin|boot|dev|etc|lib|media|mnt|opt|proc|root|run|srv|sys|tmp|usr|var)$/;

function ownPlaces(root) {
  const places = [{ pattern: /\/(home|Users)\/[a-z][\w-]*\//, name: "somebody's home folder" }];
  const top = /^\/[^/]+/.exec(root)?.[0];
  const addPath = (path, name) => {
    const text = path.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
    places.push({ pattern: new RegExp(`(^|[^\\w.~/-])${text}(/|\\b)`), name });
  };
  if (top !== undefined && !STANDARD_TOPS.test(top) && !/^\/(home|Users)$/.test(top)) {
    addPath(top, 'the folder that this checkout lies in');
  }
  if (homedir() !== '/root' && homedir().length > 2) addPath(homedir(), 'your home folder');
  const host = hostname();
  // A short or plain name is also an ordinary word.
  if (/[0-9.-]/.test(host) && host.length > 5) addPath(host, 'this host');
  return places;
}

/** A lock file written behind a mirror would send everybody there. */
function lockedHosts(root) {
  const path = 'package-lock.json';
  if (!existsSync(join(root, path))) return [];
  const findings = [];
  readFileSync(join(root, path), 'utf8')
    .split('\n')
    .forEach((text, index) => {
      const host = /"resolved": "\w+:\/\/([^/"]+)/.exec(text)?.[1];
      if (host !== undefined && host !== 'registry.npmjs.org') {
        findings.push({ path, line: index + 1, what: `locked to the host ${host}` });
      }
    });
  return findings;
}

main();
