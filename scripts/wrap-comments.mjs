/**
 * Breaks comment lines that are too long, as the formatter breaks code lines: only the words that
 * do not fit move, so that tables, lists and drawings stay as they are.
 *
 * node scripts/wrap-comments.mjs [PROJECT]
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { filesBelow, projectRoot } from './source-tree.mjs';

const MAX_COLUMNS = 100;
/** What a line of text must look like to take words from the line before it. */
const CONTINUES = /^[\p{Ll}\p{Lu}`'"(0-9][^|]*$/u;

function main() {
  const root = projectRoot();
  const paths = ['src', 'test', 'scripts'].flatMap((folder) => filesBelow(root, folder));
  for (const path of paths) {
    if (!/\.(ts|mjs)$/.test(path)) continue;
    const before = readFileSync(join(root, path), 'utf8');
    const after = wrapComments(before.split('\n')).join('\n');
    if (after === before) continue;
    writeFileSync(join(root, path), after);
    console.log(`wrapped ${path}`);
  }
}

/** @param {string[]} lines */
function wrapComments(lines) {
  const wrapped = [];
  const rest = openOneLiners(lines);
  while (rest.length > 0) {
    const line = rest.shift();
    const parts = commentParts(line);
    if (parts === undefined || [...line].length <= MAX_COLUMNS) {
      wrapped.push(line);
      continue;
    }
    const cut = line.slice(0, MAX_COLUMNS + 1).lastIndexOf(' ');
    if (cut <= parts.lead.length + parts.hang.length) {
      wrapped.push(line);
      continue;
    }
    wrapped.push(line.slice(0, cut));
    const moved = line.slice(cut + 1);
    const next = rest[0] === undefined ? undefined : commentParts(rest[0]);
    if (next !== undefined && takesWords(parts, next)) {
      rest[0] = `${next.lead}${next.indent}${moved} ${next.text}`;
    } else {
      rest.unshift(`${parts.lead}${parts.indent}${parts.hang}${moved}`);
    }
  }
  return wrapped;
}

/** A one-line block comment that is too long becomes an open one. */
function openOneLiners(lines) {
  return lines.flatMap((line) => {
    const match = /^( *)\/\*\* (.*) \*\/$/.exec(line);
    if (match === null || [...line].length <= MAX_COLUMNS) return [line];
    return [`${match[1]}/**`, `${match[1]} * ${match[2]}`, `${match[1]} */`];
  });
}

/**
 * `lead` = up to the comment's mark, `indent` = spaces after it, `hang` = what a list item adds to
 * them.
 */
function commentParts(line) {
  const match = /^( *(?:\*|\/\/) )( *)(\S.*)$/.exec(line);
  if (match === null || match[3].startsWith('/')) return undefined;
  const hang = /^(?:[-*]|\d+\.) +/.exec(match[3]);
  return {
    lead: match[1],
    indent: match[2],
    text: match[3],
    hang: hang === null ? '' : ' '.repeat(hang[0].length),
  };
}

function takesWords(parts, next) {
  return (
    next.lead === parts.lead &&
    next.indent === `${parts.indent}${parts.hang}` &&
    CONTINUES.test(next.text) &&
    !/^\d+\. /.test(next.text)
  );
}

main();
