/** Long comment lines are broken; everything else stays as it is, byte for byte. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { PROJECT, runProgram } from '../support/run-program.js';
import { tempTree } from '../support/temp-tree.js';

const WRAP = join(PROJECT, 'scripts/wrap-comments.mjs');

async function wrap(t: Parameters<typeof tempTree>[0], text: string): Promise<string> {
  const root = await tempTree(t, { 'src/a.ts': text });
  t.match(await runProgram('node', [WRAP, root]), { code: 0, stderr: '' });
  return readFile(join(root, 'src/a.ts'), 'utf8');
}

const words = (count: number) => Array(count).fill('word').join(' ');

t.test('a long one-line comment becomes an open one', async (t) => {
  const text = await wrap(t, `  /** ${words(25)} */\nconst a = 1;\n`);
  t.equal(text, `  /**\n   * ${words(19)}\n   * ${words(6)}\n   */\nconst a = 1;\n`);
});

t.test('words move into the next line of the paragraph', async (t) => {
  const text = await wrap(t, `/**\n * ${words(25)}\n * More here.\n *\n * Next one.\n */\n`);
  t.equal(text, `/**\n * ${words(19)}\n * ${words(6)} More here.\n *\n * Next one.\n */\n`);
});

t.test('a list item keeps its hang and leaves the next item alone', async (t) => {
  const text = await wrap(t, `// - ${words(25)}\n// - two\n`);
  t.equal(text, `// - ${words(19)}\n//   ${words(6)}\n// - two\n`);
});

t.test('tags, tables, code, short comments and unbreakable words stay', async (t) => {
  const kept = [
    `/**\n * @see ${'x'.repeat(80)}\n */\n`,
    `const a = '${'* '.repeat(60)}';\n`,
    `// ${'x'.repeat(120)}\n`,
    '/** Short. */\n',
  ].join('');
  t.equal(await wrap(t, kept), kept);
  const tagged = await wrap(t, `/**\n * ${words(25)}\n * @throws never\n */\n`);
  t.equal(tagged, `/**\n * ${words(19)}\n * ${words(6)}\n * @throws never\n */\n`);
});
