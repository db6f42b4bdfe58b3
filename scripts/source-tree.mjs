/**
 * The project's source files, parsed: what each imports, and from which line. Shared by the checks.
 */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, posix, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';

/** The project that the checks look at: the first argument, else the one this script belongs to. */
export function projectRoot() {
  return process.argv[2] ?? dirname(dirname(fileURLToPath(import.meta.url)));
}

/**
 * Every file below `folder` of `root`, as paths relative to `root`; none where there is no such
 * folder.
 */
export function filesBelow(root, folder) {
  const found = [];
  const visit = (directory) => {
    for (const entry of readdirSync(directory, { withFileTypes: true })) {
      const path = join(directory, entry.name);
      if (entry.isDirectory()) {
        if (entry.name !== 'node_modules') visit(path);
      } else if (entry.isFile()) found.push(relative(root, path));
    }
  };
  if (statSync(join(root, folder), { throwIfNoEntry: false })?.isDirectory()) {
    visit(join(root, folder));
  }
  return found.sort();
}

/**
 * `kind`: `type` vanishes when compiled, `later` is only loaded on demand or by another process.
 * `named` is a string that looks like a module's path, as in a table of modules to load.
 * @typedef {{ specifier: string, line: number, kind: 'now' | 'later' | 'type' | 'named' }} Import
 * @typedef {{ path: string, text: string, tree: ts.SourceFile, imports: Import[] }} Source
 */

/** @returns {Source} */
export function parseSource(root, path) {
  const text = readFileSync(join(root, path), 'utf8');
  const kind = path.endsWith('.ts') ? ts.ScriptKind.TS : ts.ScriptKind.JS;
  const tree = ts.createSourceFile(path, text, ts.ScriptTarget.ESNext, true, kind);
  return { path, text, tree, imports: importsOf(tree) };
}

export function lineOf(tree, position) {
  return tree.getLineAndCharacterOfPosition(position).line + 1;
}

/**
 * Every way in which one module names another: import, export from, import(), import('x').T,
 * require(), and `new URL('./x.js', import.meta.url)`, by which workers and child processes are
 * started.
 * @returns {Import[]}
 */
function importsOf(tree) {
  /** @type {Import[]} */
  const imports = [];
  const told = new Set();
  const add = (literal, kind) => {
    if (literal === undefined || !ts.isStringLiteralLike(literal) || told.has(literal)) return;
    told.add(literal);
    imports.push({ specifier: literal.text, line: lineOf(tree, literal.getStart()), kind });
  };
  const visit = (node) => {
    if (ts.isImportDeclaration(node)) {
      const isType = node.importClause?.phaseModifier === ts.SyntaxKind.TypeKeyword;
      add(node.moduleSpecifier, isType ? 'type' : 'now');
    } else if (ts.isExportDeclaration(node)) {
      add(node.moduleSpecifier, node.isTypeOnly ? 'type' : 'now');
    } else if (ts.isImportTypeNode(node)) add(node.argument.literal, 'type');
    else if (ts.isCallExpression(node) && isModuleCall(node)) add(node.arguments[0], 'later');
    else if (ts.isNewExpression(node) && isModuleUrl(node)) add(node.arguments?.[0], 'later');
    else if (ts.isStringLiteral(node) && /^\.\.?\/\S+\.m?js$/.test(node.text)) add(node, 'named');
    ts.forEachChild(node, visit);
  };
  visit(tree);
  return imports;
}

function isModuleCall(node) {
  const callee = node.expression;
  return (
    callee.kind === ts.SyntaxKind.ImportKeyword ||
    (ts.isIdentifier(callee) && callee.text === 'require')
  );
}

function isModuleUrl(node) {
  return (
    ts.isIdentifier(node.expression) &&
    node.expression.text === 'URL' &&
    node.arguments?.[1]?.getText() === 'import.meta.url'
  );
}

/**
 * The source file that a relative specifier means (`./x.js` is `./x.ts`); undefined for a package.
 */
export function resolveRelative(fromPath, specifier) {
  if (!specifier.startsWith('.')) return undefined;
  const target = posix.normalize(posix.join(posix.dirname(fromPath), specifier));
  return target.replace(/\.js$/, '.ts');
}

/** `node:fs/promises` is `node:fs`, `@a/b/c` is `@a/b`. */
export function packageOf(specifier) {
  const parts = specifier.split('/');
  return specifier.startsWith('@') ? parts.slice(0, 2).join('/') : parts[0];
}

/** Prints findings as `path:line: what`, and ends the process: 0 when there are none. */
export function report(name, findings, checkedFiles) {
  for (const { path, line, what } of findings) console.error(`${path}:${line}: ${what}`);
  if (findings.length > 0) {
    console.error(`${name}: ${findings.length} problems in ${checkedFiles} files`);
    process.exit(1);
  }
  console.log(`${name}: ${checkedFiles} files, nothing to report`);
}
