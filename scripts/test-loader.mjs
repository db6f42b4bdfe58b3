/**
 * Loads the TypeScript of tests, and of what they test, as the type check has compiled it: a start
 * without a compiler, which would take two seconds for each test file. What was changed since, or
 * never compiled, is compiled on the spot.
 */
import { readFile, stat } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const PROJECT = fileURLToPath(new URL('..', import.meta.url));
/** `outDir` of test/tsconfig.json. */
const COMPILED = fileURLToPath(new URL('../.compiled-tests', import.meta.url));

/** `./x.js` in TypeScript means `./x.ts`. */
export async function resolve(specifier, context, nextResolve) {
  const { parentURL } = context;
  if (/^\.{1,2}\/.*\.js$/.test(specifier) && parentURL?.endsWith('.ts')) {
    const url = new URL(specifier.replace(/js$/, 'ts'), parentURL).href;
    if ((await timeOf(url)) !== undefined) return { url, format: 'module', shortCircuit: true };
  }
  return nextResolve(specifier, context);
}

export async function load(url, context, nextLoad) {
  if (!url.startsWith('file:') || !url.endsWith('.ts')) return nextLoad(url, context);
  return { format: 'module', source: await sourceOf(url), shortCircuit: true };
}

async function sourceOf(url) {
  const name = relative(PROJECT, fileURLToPath(url)).replace(/ts$/, 'js');
  const compiled = pathToFileURL(join(COMPILED, name));
  const [changed, made] = [await timeOf(url), await timeOf(compiled)];
  if (made !== undefined && made > changed) return readFile(compiled, 'utf8');
  const { default: ts } = await import('typescript');
  const fileName = fileURLToPath(url);
  const { outputText } = ts.transpileModule(await readFile(fileName, 'utf8'), {
    fileName,
    compilerOptions: {
      target: ts.ScriptTarget.ES2023,
      module: ts.ModuleKind.ESNext,
      verbatimModuleSyntax: true,
      inlineSourceMap: true,
    },
  });
  return outputText;
}

async function timeOf(url) {
  try {
    return (await stat(new URL(url))).mtimeMs;
  } catch (error) {
    if (error.code === 'ENOENT') return undefined;
    throw error;
  }
}
